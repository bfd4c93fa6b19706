import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { sha256 } from '../content.ts';

/** Something that registries hold: a blob, or a manifest with the digests that it names where its type defines it. */
export interface Item {
  readonly digest: string;
  readonly bytes: Buffer;
  /** Null for a blob. */
  readonly manifest: { readonly mediaType: string; readonly names: readonly string[] } | null;
}

export function blobItem(bytes: Buffer): Item {
  return { digest: sha256(bytes), bytes, manifest: null };
}

/** How a hostile registry lies. `heads`: its HEAD claims whatever is asked for; `page`: everything is 200 and a web page; `wrong`: one byte of every blob is another. */
export type Lie = 'none' | 'heads' | 'page' | 'wrong';

/** What one repository holds at its registry, by digest, and how it is closed. */
export class Repository {
  readonly items = new Map<string, Item>();
  readonly tags = new Map<string, string>();
  /** The registry states this type for a manifest, in place of the manifest's own. */
  readonly types = new Map<string, string>();
  closed: 401 | 403 | null = null;
  readonly closedDigests = new Set<string>();
}

/** What a registry has done, in its order: the model learns from it what the gateway may know. */
export type Event =
  /** A GET brought right bytes of it; `user`: as whom it was asked, null for nobody. */
  | { readonly kind: 'gave'; readonly repository: string; readonly item: Item; readonly user: string | null }
  /** A HEAD claimed that it is there. */
  | { readonly kind: 'claimed'; readonly repository: string; readonly digest: string; readonly user: string | null }
  /** A GET was denied; `digest` where it asked by digest. */
  | { readonly kind: 'denied'; readonly repository: string; readonly digest: string | null };

/** Who may log in at a registry, and what each may open there. */
export interface Login {
  /** Passwords by name. */
  readonly users: Readonly<Record<string, string>>;
  readonly opens: (user: string, repository: string) => boolean;
}

/** A registry of a few repositories whose every answer is one event. It wants a login by Basic where there are users. */
export class ScriptedRegistry {
  readonly host: string;
  readonly login: Login | null;
  readonly repositories = new Map<string, Repository>();
  /** Events since they were taken last. */
  #events: Event[] = [];
  lie: Lie = 'none';
  /** Breaks every connection. */
  off = false;
  readonly #server: Server;

  private constructor(host: string, login: Login | null, repositories: readonly string[]) {
    this.host = host;
    this.login = login;
    for (const name of repositories) this.repositories.set(name, new Repository());
    this.#server = createServer((request, response) => this.#serve(request, response));
  }

  static async start(
    host: string,
    repositories: readonly string[],
    login: Login | null = null,
  ): Promise<ScriptedRegistry> {
    const registry = new ScriptedRegistry(host, login, repositories);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  takeEvents(): Event[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  repository(name: string): Repository {
    const found = this.repositories.get(name);
    if (found === undefined) throw new Error(`${this.host} has no ${name}`);
    return found;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    if (this.off) {
      request.socket.destroy();
      return;
    }
    const match = /^\/v2\/(.+)\/(manifests|blobs|referrers|tags)\/([^/?]+)/.exec(request.url ?? '');
    if (this.lie === 'page') {
      const page = '<html>welcome</html>';
      response.writeHead(200, { 'content-type': 'text/html', 'content-length': page.length });
      response.end(request.method === 'HEAD' ? undefined : page);
      return;
    }
    if (match === null) {
      refuse(response, 404, 'NAME_UNKNOWN');
      return;
    }
    const [, name = '', what = '', reference = ''] = match;
    const user = userOf(request.headers.authorization ?? '', this.login?.users ?? {});
    if (this.login !== null && user === null) {
      refuse(response, 401, 'UNAUTHORIZED', { 'www-authenticate': `Basic realm="${this.host}"` });
      return;
    }
    const repository = this.repositories.get(name);
    const byDigest = reference.startsWith('sha256:') ? reference : null;
    const digest = byDigest ?? repository?.tags.get(reference) ?? null;
    if (user !== null && this.login?.opens(user, name) === false) {
      const pull = what === 'manifests' || what === 'blobs';
      if (request.method === 'GET' && pull) this.#events.push({ kind: 'denied', repository: name, digest: byDigest });
      refuse(response, 403, 'DENIED');
      return;
    }
    if (repository?.closed != null || (byDigest !== null && repository?.closedDigests.has(byDigest))) {
      const pull = what === 'manifests' || what === 'blobs';
      if (request.method === 'GET' && pull) this.#events.push({ kind: 'denied', repository: name, digest: byDigest });
      refuse(response, repository?.closed ?? 403, 'DENIED');
      return;
    }
    const item = digest === null ? undefined : repository?.items.get(digest);
    const fits = item !== undefined && (item.manifest !== null) === (what === 'manifests');
    if (item !== undefined && fits && repository !== undefined)
      this.#give(request, response, name, repository, item, user);
    else if (this.lie === 'heads' && request.method === 'HEAD' && byDigest !== null)
      this.#claim(response, name, byDigest, what, user);
    else refuse(response, 404, what === 'manifests' ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN');
  }

  #give(
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    repository: Repository,
    item: Item,
    user: string | null,
  ): void {
    const headers: Record<string, string | number> = {
      'content-type': repository.types.get(item.digest) ?? item.manifest?.mediaType ?? 'application/octet-stream',
      'docker-content-digest': item.digest,
      'accept-ranges': 'bytes',
    };
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const from = range === null ? 0 : Number(range[1]);
    const to =
      range === null || range[2] === '' ? item.bytes.length : Math.min(item.bytes.length, Number(range[2]) + 1);
    if (from >= item.bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${item.bytes.length}`, 'content-length': 0 }).end();
      return;
    }
    if (range !== null) headers['content-range'] = `bytes ${from}-${to - 1}/${item.bytes.length}`;
    headers['content-length'] = to - from;
    response.writeHead(range === null ? 200 : 206, headers);
    if (request.method === 'HEAD') {
      this.#events.push({ kind: 'claimed', repository: name, digest: item.digest, user });
      response.end();
      return;
    }
    const body = Buffer.from(item.bytes.subarray(from, to));
    if (this.lie === 'wrong' && item.manifest === null) body[body.length - 1] = (body.at(-1) ?? 0) ^ 0xff;
    else this.#events.push({ kind: 'gave', repository: name, item, user });
    response.end(body);
  }

  #claim(response: ServerResponse, name: string, digest: string, what: string, user: string | null): void {
    this.#events.push({ kind: 'claimed', repository: name, digest, user });
    response.writeHead(200, {
      'content-type': what === 'manifests' ? 'application/vnd.oci.image.manifest.v1+json' : 'application/octet-stream',
      'docker-content-digest': digest,
      'content-length': 1000,
    });
    response.end();
  }
}

function userOf(authorization: string, users: Login['users']): string | null {
  const text = Buffer.from(authorization.replace(/^Basic /, ''), 'base64').toString();
  const name = text.slice(0, text.indexOf(':'));
  return Object.hasOwn(users, name) && text === `${name}:${users[name]}` ? name : null;
}

function refuse(response: ServerResponse, status: number, code: string, headers: Record<string, string> = {}): void {
  const body = JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] });
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length, ...headers });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}
