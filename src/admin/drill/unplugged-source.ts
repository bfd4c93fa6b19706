import { type ImageSource, SourceError, type SourceManifest } from '../../images/image-source.ts';
import { RegistryError } from '../../oci/errors.ts';
import { acceptClass } from '../../oci/media-types.ts';
import {
  type BlobKey,
  type Digest,
  parseDigest,
  type Reference,
  type RepositoryKey,
  type What,
} from '../../oci/names.ts';
import { OPERATOR_AUDIENCE } from '../../policy/audiences.ts';
import { OPERATOR, toSourceError } from '../../proxy/core-source.ts';
import type { ProxyCore, Reply } from '../../proxy/reply.ts';

/** How a client asks. */
export interface Asking {
  readonly method: 'GET' | 'HEAD';
  /** The header `Accept`; left out: everything. */
  readonly accept?: string;
  /** Without credentials of the gateway. */
  readonly anonymous?: boolean;
}

/** Something that could not be had, of what `planImage` asked for. */
export interface Unavailable {
  readonly what: 'manifest' | 'referrers';
  readonly reference: Reference;
  readonly error: RegistryError;
}

/**
 * Images from a core whose registries are out of reach, for the walk over one image. It remembers what could not be had, and the time from which on what was
 * given would be too old.
 */
export class UnpluggedSource implements ImageSource {
  /** The first manifest or list that could not be had; null where nothing was missing. */
  unavailable: Unavailable | null = null;
  /** When the lists were confirmed that were given, ms; the earliest. */
  listedAt = Number.POSITIVE_INFINITY;
  readonly #core: ProxyCore;
  readonly #isKnownTag: (repository: RepositoryKey, tag: string) => boolean;
  readonly #signal: AbortSignal;

  /** @param isKnownTag whether anything is kept of a tag: what nobody ever asked for is taken not to exist */
  constructor(core: ProxyCore, isKnownTag: (repository: RepositoryKey, tag: string) => boolean, signal: AbortSignal) {
    this.#core = core;
    this.#isKnownTag = isKnownTag;
    this.#signal = signal;
  }

  /** The answer that a client would get. @throws {RegistryError} */
  async ask({ registry, repository }: RepositoryKey, what: What, how: Asking): Promise<Reply> {
    const { method, accept = acceptClass(undefined).header, anonymous = false } = how;
    const reply = await this.#core.serve({
      target: { registry, repository, what },
      method,
      accept,
      authenticated: !anonymous,
      audience: OPERATOR_AUDIENCE,
      client: OPERATOR,
      base: '/v2/',
      signal: this.#signal,
    });
    const { body } = reply;
    if (body !== null && !(body instanceof Uint8Array) && what.kind === 'blob') await body.close();
    return reply;
  }

  async manifest(repository: RepositoryKey, reference: Reference): Promise<SourceManifest> {
    // Signatures are looked for under tags that most images do not have.
    if (reference.kind === 'tag' && !this.#isKnownTag(repository, reference.tag))
      throw new SourceError(404, 'MANIFEST_UNKNOWN', `nothing is kept of the tag ${reference.tag}`);
    const { headers, body } = await this.#have('manifest', reference, () =>
      this.ask(repository, { kind: 'manifest', reference }, { method: 'GET' }),
    );
    const digest = parseDigest(headers['docker-content-digest'] ?? '');
    if (digest === null || !(body instanceof Uint8Array)) throw new TypeError('a manifest without its bytes');
    return { digest, mediaType: headers['content-type'] ?? '', body, warning: headers.warning ?? null };
  }

  async referrers(repository: RepositoryKey, digest: Digest): Promise<Uint8Array> {
    const { body, since } = await this.#have('referrers', { kind: 'digest', digest }, () =>
      this.ask(repository, { kind: 'referrers', digest }, { method: 'GET' }),
    );
    if (since !== undefined) this.listedAt = Math.min(this.listedAt, since);
    if (!(body instanceof Uint8Array)) throw new TypeError('a list without its bytes');
    return body;
  }

  /** Blobs are asked for by `ask`. */
  async blob(_key: BlobKey): Promise<never> {
    throw new TypeError('the bytes of blobs are not read by a drill');
  }

  // biome-ignore lint/correctness/useYield: the walk over one image lists no tags
  async *tags(): AsyncIterable<readonly string[]> {
    throw new TypeError('tags are not listed by a drill');
  }

  async #have(what: Unavailable['what'], reference: Reference, ask: () => Promise<Reply>): Promise<Reply> {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      this.unavailable ??= { what, reference, error };
      throw toSourceError(error);
    }
  }
}
