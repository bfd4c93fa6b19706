import type { ImageSource, SourceBlob, SourceManifest } from '../images/image-source.ts';
import { SourceError } from '../images/image-source.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import { isObject, parseJsonObject } from '../kit/json.ts';
import { RegistryError } from '../oci/errors.ts';
import { acceptClass } from '../oci/media-types.ts';
import { type BlobKey, type Digest, parseDigest, type Reference, type RepositoryKey, type What } from '../oci/names.ts';
import { OPERATOR_AUDIENCE } from '../policy/audiences.ts';
import type { ProxyCore, Reply } from './reply.ts';

/** As whom the gateway's own commands pull: no user and no network is called so. */
export const OPERATOR = 'operator';

/** Tags asked for at once. */
const TAGS_PAGE = 1_000;
/** Refusals after which the same question has another answer a moment later. */
const RETRY_WITHIN_S = 5;

/** Images from a proxy core in this process, as a client with credentials of the gateway would be given them. */
export class CoreSource implements ImageSource {
  readonly #core: ProxyCore;
  readonly #client: string;

  /** @param client as `Pull.client` */
  constructor(core: ProxyCore, client: string = OPERATOR) {
    this.#core = core;
    this.#client = client;
  }

  async manifest(repository: RepositoryKey, reference: Reference, signal: AbortSignal): Promise<SourceManifest> {
    const reply = await this.#ask(repository, { kind: 'manifest', reference }, signal);
    const { 'content-type': mediaType = '', 'docker-content-digest': text = '', warning = null } = reply.headers;
    const digest = parseDigest(text);
    if (digest === null) throw new TypeError('a manifest without its digest');
    return { digest, mediaType, body: await bytesOf(reply), warning, asked: reply.from !== 'stale' };
  }

  async blob({ digest, ...repository }: BlobKey, from: number, signal: AbortSignal): Promise<SourceBlob> {
    const range = from === 0 ? undefined : `bytes=${from}-`;
    const reply = await this.#ask(repository, { kind: 'blob', digest }, signal, range);
    const { body, headers } = reply;
    const length = headers['content-length'];
    if (body === null || body instanceof Uint8Array) throw new TypeError('a blob without a source');
    const kept = reply.from === 'cache';
    if (range === undefined) return { size: length === undefined ? undefined : Number(length), body, kept };
    if (reply.status === 206) return { size: sizeIn(headers['content-range']), body, kept };
    await body.close();
    throw new SourceError(502, 'UNAVAILABLE', `${digest} cannot be read from byte ${from}: its size is not known`);
  }

  async referrers(repository: RepositoryKey, digest: Digest, signal: AbortSignal): Promise<Uint8Array> {
    return await bytesOf(await this.#ask(repository, { kind: 'referrers', digest }, signal));
  }

  async *tags(repository: RepositoryKey, signal: AbortSignal): AsyncIterable<readonly string[]> {
    let last: string | undefined;
    for (;;) {
      const what: What = { kind: 'tags', n: TAGS_PAGE, ...(last === undefined ? {} : { last }) };
      const reply = await this.#ask(repository, what, signal);
      const page = parseJsonObject(await bytesOf(reply));
      const tags = isObject(page) && Array.isArray(page.tags) ? page.tags.filter((tag) => typeof tag === 'string') : [];
      if (tags.length > 0) yield tags;
      if (reply.headers.link === undefined || tags.length === 0 || tags.at(-1) === last) return;
      last = tags.at(-1);
    }
  }

  async #ask(repository: RepositoryKey, what: What, signal: AbortSignal, range?: string): Promise<Reply> {
    const { registry, repository: name } = repository;
    try {
      return await this.#core.serve({
        target: { registry, repository: name, what },
        method: 'GET',
        accept: acceptClass(undefined).header,
        ...(range === undefined ? {} : { range }),
        authenticated: true,
        direct: true,
        audience: OPERATOR_AUDIENCE,
        client: this.#client,
        base: '/v2/',
        signal,
      });
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof RegistryError ? toSourceError(error) : error;
    }
  }
}

/** As a client would be told, whole. */
export function toSourceError(error: RegistryError): SourceError {
  const { says, retryAfter = error.status === 503 ? RETRY_WITHIN_S : undefined } = error.options;
  const quoted = says === undefined ? '' : `; ${says.by} says: "${says.message}"`;
  return new SourceError(error.status, error.code, `${error.message}; ${error.next}${quoted}`, retryAfter);
}

async function bytesOf({ body }: Reply): Promise<Uint8Array> {
  if (body === null) throw new TypeError('an answer to GET without a body');
  return body instanceof Uint8Array ? body : await readWhole(body);
}

async function readWhole(source: ByteSource): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  try {
    for (;;) {
      const part = Buffer.allocUnsafe(64 * 1024);
      const count = await source.pull(part);
      if (count === 0) return Buffer.concat(parts);
      parts.push(part.subarray(0, count));
    }
  } finally {
    await source.close();
  }
}

function sizeIn(contentRange: string | undefined): number | undefined {
  const size = /\/(\d+)$/.exec(contentRange ?? '')?.[1];
  return size === undefined ? undefined : Number(size);
}
