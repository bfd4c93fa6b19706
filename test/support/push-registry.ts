import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What goes wrong once, with the first request that it is for. */
export interface Fault {
  /** `PATCH`, `PUT` (of a blob), `POST`, `GET` (of an upload), `manifest` (PUT of one), `HEAD`. */
  readonly on: string;
  /** Requests of that kind that go well before. */
  readonly skip?: number;
  /** `break`: the connection, after so many bytes of the body; `late`: it is done, and the answer is lost; `forget`: the upload is gone. */
  readonly how: 'break' | 'late' | 'forget' | 'status' | 'wrong digest' | 'wrong range';
  readonly after?: number;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly code?: string;
}

export interface PushRegistryOptions {
  /** `keeps`: what came of a chunk that broke off is there (distribution 3); `loses`: the upload with it (distribution 2). */
  readonly partial?: 'keeps' | 'loses';
  /** Ways to send a blob that it takes. */
  readonly takes?: readonly ('chunks' | 'stream' | 'whole')[];
  readonly minChunk?: number;
  readonly locations?: 'absolute' | 'relative' | { readonly to: string };
  readonly referrers?: boolean;
  /** Whoever does not log in gets 401. */
  readonly login?: {
    readonly kind: 'basic' | 'bearer';
    readonly username: string;
    readonly password: string;
    readonly refreshToken?: string;
  };
}

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  /** Of its body that came. */
  bytes: number;
  status: number;
}

interface Upload {
  readonly repository: string;
  bytes: Buffer;
  /** That it was given, the last one at the end. */
  readonly states: string[];
}

interface Repository {
  readonly blobs: Map<string, Buffer>;
  readonly manifests: Map<string, { readonly type: string; readonly body: Buffer }>;
  readonly tags: Map<string, string>;
}

/**
 * A registry that takes pushes as the specification says, and nothing else: chunks in order, uploads by the state that it gave last, manifests whose parts
 * are all there, tokens for what is asked. It fails as it is told to.
 */
export class PushRegistry {
  readonly seen: Seen[] = [];
  readonly repositories = new Map<string, Repository>();
  readonly uploads = new Map<string, Upload>();
  /** Requests to the token endpoint: form or query, and whether credentials came. */
  readonly tokens: { readonly scopes: readonly string[]; readonly grant: string }[] = [];
  faults: Fault[] = [];
  options: PushRegistryOptions;
  readonly #server: Server;
  readonly #granted = new Map<string, readonly string[]>();
  readonly #skipped = new Map<Fault, number>();

  private constructor(options: PushRegistryOptions) {
    this.options = options;
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  static async start(options: PushRegistryOptions = {}): Promise<PushRegistry> {
    const registry = new PushRegistry(options);
    registry.#server.listen(0, '127.0.0.1');
    await once(registry.#server, 'listening');
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `http://${this.host}`;
  }

  repository(name: string): Repository {
    const found = this.repositories.get(name) ?? { blobs: new Map(), manifests: new Map(), tags: new Map() };
    this.repositories.set(name, found);
    return found;
  }

  /** Bytes of blobs that came, whatever became of them. */
  get received(): number {
    return this.seen.filter(({ path }) => path.includes('/blobs/uploads/')).reduce((sum, { bytes }) => sum + bytes, 0);
  }

  count(method: string, pattern: RegExp = /./): number {
    return this.seen.filter((one) => one.method === method && pattern.test(one.path)).length;
  }

  /** No token is good any more. */
  expireTokens(): void {
    this.#granted.clear();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const seen = {
      method: request.method ?? '',
      path: `${url.pathname}${url.search}`,
      headers: request.headers,
      bytes: 0,
      status: 0,
    };
    this.seen.push(seen);
    const answer = (status: number, headers: Record<string, string> = {}, body: string | Buffer = '') => {
      seen.status = status;
      response.writeHead(status, { 'content-length': String(Buffer.byteLength(body)), ...headers });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    const refuse = (status: number, code: string, headers: Record<string, string> = {}) =>
      answer(
        status,
        { 'content-type': 'application/json', ...headers },
        JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] }),
      );
    if (url.pathname === '/token') return this.#token(request, url, answer);
    const parts = /^\/v2\/(.+?)\/(manifests|blobs|referrers|tags)\/(.*)$/.exec(url.pathname);
    const [, name = '', kind = '', rest = ''] = parts ?? [];
    const writes = request.method !== 'GET' && request.method !== 'HEAD';
    const from = url.searchParams.get('from');
    if (!this.#mayPass(request, name, writes, from)) {
      const scope = `repository:${name}:${writes ? 'pull,push' : 'pull'}`;
      const bearer = `Bearer realm="${this.url}/token",service="of this test",scope="${scope}"`;
      const challenge = this.options.login?.kind === 'basic' ? 'Basic realm="of this test"' : bearer;
      return refuse(401, 'UNAUTHORIZED', { 'www-authenticate': challenge });
    }
    if (parts === null) return answer(url.pathname === '/v2/' ? 200 : 404, {}, '{}');
    const isUpload = kind === 'blobs' && rest.startsWith('uploads/');
    const fault = this.#faultFor(
      request.method === 'PUT' && kind === 'manifests'
        ? 'manifest'
        : isUpload || request.method === 'HEAD'
          ? seen.method
          : '',
    );
    if (fault?.how === 'status') {
      request.resume();
      return refuse(fault.status ?? 500, fault.code ?? 'UNKNOWN', fault.headers);
    }
    const repository = this.repository(name);
    if (isUpload)
      return await this.#upload({
        request,
        response,
        url,
        seen,
        answer,
        refuse,
        name,
        id: rest.slice('uploads/'.length),
        fault,
      });
    if (kind === 'blobs') {
      const blob = repository.blobs.get(rest);
      return blob === undefined ? refuse(404, 'BLOB_UNKNOWN') : answer(200, { 'content-length': String(blob.length) });
    }
    if (kind === 'referrers') return this.#referrers(repository, rest, answer, refuse);
    if (request.method !== 'PUT') {
      const digest = rest.includes(':') ? rest : (repository.tags.get(rest) ?? '');
      const manifest = repository.manifests.get(digest);
      if (manifest === undefined) return refuse(404, 'MANIFEST_UNKNOWN');
      return answer(
        200,
        {
          'content-type': manifest.type,
          'docker-content-digest': digest,
          'content-length': String(manifest.body.length),
        },
        manifest.body,
      );
    }
    const body = Buffer.concat(await request.toArray());
    const digest = digestOf(body);
    if (rest.includes(':') && rest !== digest) return refuse(400, 'DIGEST_INVALID');
    const document = JSON.parse(body.toString()) as Document;
    const blobs = [...(document.layers ?? []), ...(document.config === undefined ? [] : [document.config])];
    const isWhole =
      blobs.every((one) => one.urls !== undefined || repository.blobs.has(one.digest)) &&
      (document.manifests ?? []).every(
        (one) => repository.manifests.has(one.digest) || /^sha256-[0-9a-f]+$/.test(rest),
      );
    if (!isWhole) return refuse(400, 'MANIFEST_BLOB_UNKNOWN');
    repository.manifests.set(digest, { type: request.headers['content-type'] ?? '', body });
    if (!rest.includes(':')) repository.tags.set(rest, digest);
    const subject =
      this.options.referrers === true && document.subject !== undefined
        ? { 'oci-subject': document.subject.digest }
        : {};
    return answer(201, {
      'docker-content-digest': fault?.how === 'wrong digest' ? digestOf(Buffer.alloc(1)) : digest,
      ...subject,
    });
  }

  async #upload({ request, response, url, seen, answer, refuse, name, id, fault }: UploadRequest): Promise<void> {
    const { takes = ['chunks', 'stream', 'whole'], minChunk = 0 } = this.options;
    const repository = this.repository(name);
    if (request.method === 'POST') {
      const [mount, from] = [url.searchParams.get('mount'), url.searchParams.get('from')];
      const blob = mount === null || from === null ? undefined : this.repositories.get(from)?.blobs.get(mount);
      if (blob !== undefined && mount !== null) {
        repository.blobs.set(mount, blob);
        return answer(201, { location: `/v2/${name}/blobs/${mount}`, 'docker-content-digest': mount });
      }
      const upload = { repository: name, bytes: Buffer.alloc(0), states: [] };
      const made = randomBytes(8).toString('hex');
      this.uploads.set(made, upload);
      return answer(202, {
        location: this.#location(made, upload),
        range: '0-0',
        ...(minChunk > 0 ? { 'oci-chunk-min-length': String(minChunk) } : {}),
      });
    }
    const upload = this.uploads.get(id);
    if (fault?.how === 'forget') this.uploads.delete(id);
    // The query as it was written: a state that was read and written anew is another one.
    const state = url.search.slice(1).split('&')[0] ?? '';
    const good = this.options.partial === 'keeps' ? upload?.states : upload?.states.slice(-1);
    const isKnown = upload?.repository === name && good?.includes(state) === true;
    if (!isKnown || fault?.how === 'forget') {
      request.resume();
      return refuse(404, 'BLOB_UPLOAD_UNKNOWN');
    }
    const range = () => ({ location: this.#location(id, upload), range: `0-${Math.max(0, upload.bytes.length - 1)}` });
    if (request.method === 'GET') return answer(204, range());
    if (request.method === 'DELETE') {
      this.uploads.delete(id);
      return answer(204);
    }
    const isChunk = request.headers['content-range'] !== undefined;
    const length = Number(request.headers['content-length'] ?? 0);
    const way = request.method === 'PUT' && length > 0 ? 'whole' : isChunk ? 'chunks' : 'stream';
    if ((request.method === 'PATCH' || way === 'whole') && !takes.includes(way)) {
      request.resume();
      return refuse(way === 'whole' ? 400 : 416, 'UNSUPPORTED');
    }
    const [, start = '0', end = ''] = /^(\d+)-(\d+)$/.exec(request.headers['content-range'] ?? '') ?? [];
    const fits = !isChunk || (Number(start) === upload.bytes.length && Number(end) - Number(start) + 1 === length);
    if (!fits) {
      request.resume();
      return refuse(416, 'RANGE_INVALID', range());
    }
    const parts: Buffer[] = [];
    const limit = fault?.how === 'break' ? (fault.after ?? 0) : Number.POSITIVE_INFINITY;
    let isBroken = false;
    try {
      for await (const part of request as AsyncIterable<Buffer>) {
        const taken = part.subarray(0, Math.max(0, limit - seen.bytes));
        parts.push(taken);
        seen.bytes += taken.length;
        if (seen.bytes >= limit) break;
      }
    } catch {
      isBroken = true;
    }
    if (isBroken || seen.bytes >= limit) {
      if (this.options.partial === 'loses' && seen.bytes > 0) this.uploads.delete(id);
      else upload.bytes = Buffer.concat([upload.bytes, ...parts]);
      response.destroy();
      return;
    }
    upload.bytes = Buffer.concat([upload.bytes, ...parts]);
    if (request.method === 'PATCH') {
      const headers = range();
      if (fault?.how === 'late') return void response.destroy();
      return answer(202, fault?.how === 'wrong range' ? { ...headers, range: '0-999999999' } : headers);
    }
    const digest = url.searchParams.get('digest') ?? '';
    this.uploads.delete(id);
    if (digestOf(upload.bytes) !== digest) return refuse(400, 'DIGEST_INVALID');
    repository.blobs.set(digest, upload.bytes);
    if (fault?.how === 'late') return void response.destroy();
    return answer(201, { location: `/v2/${name}/blobs/${digest}`, 'docker-content-digest': digest });
  }

  #location(id: string, upload: Upload): string {
    // With what an encoder would write otherwise.
    const state = `_state=${id}.${upload.bytes.length}~a+b%2Fc%3D`;
    upload.states.push(state);
    const path = `/v2/${upload.repository}/blobs/uploads/${id}?${state}`;
    const { locations = 'absolute' } = this.options;
    if (locations === 'relative') return path;
    return `${locations === 'absolute' ? this.url : locations.to}${path}`;
  }

  #referrers(repository: Repository, digest: string, answer: Answer, refuse: Refuse): void {
    if (this.options.referrers !== true) {
      refuse(404, 'UNSUPPORTED');
      return;
    }
    const manifests = [...repository.manifests].flatMap(([found, { type, body }]) => {
      const { subject } = JSON.parse(body.toString()) as Document;
      return subject?.digest === digest ? [{ mediaType: type, digest: found, size: body.length }] : [];
    });
    const type = 'application/vnd.oci.image.index.v1+json';
    answer(200, { 'content-type': type }, JSON.stringify({ schemaVersion: 2, mediaType: type, manifests }));
  }

  #faultFor(kind: string): Fault | undefined {
    const fault = this.faults.find(({ on }) => on === kind);
    if (fault === undefined) return undefined;
    const skipped = this.#skipped.get(fault) ?? 0;
    this.#skipped.set(fault, skipped + 1);
    if (skipped < (fault.skip ?? 0)) return undefined;
    this.faults = this.faults.filter((one) => one !== fault);
    return fault;
  }

  #mayPass({ headers }: IncomingMessage, name: string, writes: boolean, from: string | null): boolean {
    const { login } = this.options;
    if (login === undefined) return true;
    if (login.kind === 'basic') return headers.authorization === basicOf(login);
    const scopes = this.#granted.get(/^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '');
    if (scopes === undefined) return false;
    const opens = (repository: string, action: string) =>
      scopes.some((scope) => new RegExp(`^repository:${repository}:.*${action}`).test(scope));
    return name === '' || (opens(name, writes ? 'push' : 'pull') && (from === null || opens(from, 'pull')));
  }

  #token(request: IncomingMessage, url: URL, answer: Answer): void {
    const { login } = this.options;
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const form = new URLSearchParams(Buffer.concat(chunks).toString());
      const grant = request.method === 'POST' ? (form.get('grant_type') ?? '') : 'GET';
      const scopes =
        request.method === 'POST' ? (form.get('scope') ?? '').split(' ') : url.searchParams.getAll('scope');
      this.tokens.push({ scopes, grant });
      const isKnown =
        login !== undefined &&
        (grant === 'refresh_token'
          ? form.get('refresh_token') === login.refreshToken
          : request.headers.authorization === basicOf(login));
      if (!isKnown) return answer(401, {}, '{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}');
      const token = randomBytes(8).toString('hex');
      this.#granted.set(token, scopes);
      answer(200, { 'content-type': 'application/json' }, JSON.stringify({ token, expires_in: 300 }));
    });
  }
}

type Answer = (status: number, headers?: Record<string, string>, body?: string | Buffer) => void;
type Refuse = (status: number, code: string, headers?: Record<string, string>) => void;

interface UploadRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly seen: Seen;
  readonly answer: Answer;
  readonly refuse: Refuse;
  readonly name: string;
  readonly id: string;
  readonly fault: Fault | undefined;
}

interface Document {
  readonly config?: { readonly digest: string; readonly urls?: unknown };
  readonly layers?: readonly { readonly digest: string; readonly urls?: unknown }[];
  readonly manifests?: readonly { readonly digest: string }[];
  readonly subject?: { readonly digest: string };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function basicOf({ username, password }: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
