import { OperatorError } from '../../kit/operator-error.ts';
import { essence, parseAccept } from '../../oci/media-types.ts';
import { type Digest, parseDigest, type Reference } from '../../oci/names.ts';
import { secretsOf } from '../authorization.ts';
import { urlAt } from '../endpoint-url.ts';
import { InvalidResponseError } from '../failures.ts';
import { header } from '../responses.ts';
import { Attempts, BACKOFF, type Backoff, pushError, retrying, type Told } from './attempts.ts';
import { ANSWER_MS, BlobUpload, CHUNK, type UploadContent, type UploadManners } from './blob-upload.ts';
import {
  type PushAnswer,
  type PushDestination,
  type PushOptions,
  type PushRequest,
  PushRequests,
  refusal,
} from './push-requests.ts';
import { NO_JOURNAL, type UploadJournal } from './upload-journal.ts';

/** A manifest may be checked against all that it names before it is taken, ms. */
const MANIFEST_MS = 120_000;

export interface RegistryTargetOptions extends PushOptions {
  /** Default: sessions are forgotten with the process. */
  readonly journal?: UploadJournal;
  /** Hears of long waits. */
  readonly tell: (sentence: string) => void;
  readonly backoff?: Backoff;
  /** Bytes of one chunk. */
  readonly chunk?: number;
}

/** A registry that is pushed to: what the engine of a relay needs of one (images/push-target.ts). */
export class RegistryTarget {
  readonly registry: string;
  readonly #requests: PushRequests;
  readonly #endpoint: URL;
  readonly #options: RegistryTargetOptions;
  readonly #told: Told;
  readonly #manners: UploadManners = { way: 'chunks' };

  /** @throws {OperatorError} `CA_INVALID` */
  constructor(destination: PushDestination, options: RegistryTargetOptions) {
    const { credentials } = destination;
    this.registry = destination.host;
    this.#endpoint = destination.endpoint;
    this.#requests = new PushRequests(destination, options);
    this.#options = options;
    const hidden = credentials === null ? [] : [credentials.username, ...secretsOf(credentials)];
    this.#told = { host: destination.host, hidden };
  }

  /**
   * Asks whether a registry is there (distribution-spec, *Determining Support*), so that the first push knows how it authorises.
   * @throws {OperatorError} where nobody answers, or none
   */
  async reach(signal: AbortSignal): Promise<void> {
    const answer = await this.#ask({ method: 'GET', path: '/v2/', scope: '' }, signal);
    if (answer.status === 404)
      throw new OperatorError('PUSH_UNSUPPORTED', `${this.registry} is no registry: it answers 404 to /v2/`);
  }

  async digestOf(repository: string, reference: Reference, signal: AbortSignal): Promise<Digest | null> {
    const request = { method: 'HEAD', path: manifestPath(repository, reference), scope: scopeOf(repository) } as const;
    const answer = await this.#ask({ ...request, headers: { accept: ACCEPT } }, signal);
    if (isHidden(answer)) return null;
    if (answer.status !== 200) throw this.#failed(refusal(answer));
    // A digest that was asked for and is there is that digest.
    return reference.kind === 'digest'
      ? reference.digest
      : parseDigest(header(answer.headers, 'docker-content-digest') ?? '');
  }

  async manifest(
    repository: string,
    tag: string,
    signal: AbortSignal,
  ): Promise<{ mediaType: string; body: Uint8Array } | null> {
    const path = manifestPath(repository, { kind: 'tag', tag });
    const request = { method: 'GET', path, scope: scopeOf(repository), headers: { accept: ACCEPT } } as const;
    const answer = await this.#ask(request, signal);
    if (answer.status === 404) return null;
    if (answer.status !== 200) throw this.#failed(refusal(answer));
    return { mediaType: essence(header(answer.headers, 'content-type') ?? ''), body: answer.body };
  }

  async hasBlob(repository: string, digest: Digest, signal: AbortSignal): Promise<boolean> {
    const path = `/v2/${repository}/blobs/${digest}`;
    const answer = await this.#ask({ method: 'HEAD', path, scope: scopeOf(repository) }, signal);
    if (answer.status === 200) return true;
    if (isHidden(answer)) return false;
    throw this.#failed(refusal(answer));
  }

  async pushBlob(
    repository: string,
    content: UploadContent,
    { mountFrom, progress }: { mountFrom: readonly string[]; progress: (bytes: number) => void },
    signal: AbortSignal,
  ): Promise<{ how: 'mounted' | 'pushed'; bytes: number }> {
    const { digest } = content;
    const scope = scopeOf(repository);
    const begin = urlAt(this.#endpoint, `/v2/${repository}/blobs/uploads/`);
    const { journal = NO_JOURNAL, chunk = CHUNK } = this.#options;
    const upload = new BlobUpload(content, {
      requests: this.#requests,
      attempts: this.#attempts(),
      journal,
      manners: this.#manners,
      key: { origin: this.#endpoint.origin, repository, digest },
      scope,
      begin,
      isThere: (within) => this.hasBlob(repository, digest, within),
      progress,
      chunk,
    });
    if (await upload.resume(signal)) return { how: 'pushed', bytes: await upload.run(signal) };
    for (const [index, from] of mountFrom.entries()) {
      const answer = await this.#mount(begin, digest, from, scope, signal);
      if (answer?.status === 201) return { how: 'mounted', bytes: 0 };
      // What it has not mounted it has begun an upload for.
      if (answer?.status === 202 && index === mountFrom.length - 1) upload.adopt(answer);
    }
    return { how: 'pushed', bytes: await upload.run(signal) };
  }

  async putManifest(
    repository: string,
    reference: Reference,
    { digest, mediaType, body }: { digest: Digest; mediaType: string; body: Uint8Array },
    signal: AbortSignal,
  ): Promise<{ notedSubject: boolean }> {
    const headers = { 'content-type': mediaType };
    const path = manifestPath(repository, reference);
    const request = { method: 'PUT', path, scope: scopeOf(repository), headers, body, patience: MANIFEST_MS } as const;
    const answer = await this.#ask(request, signal);
    if (answer.status !== 201 && answer.status !== 200 && answer.status !== 202) throw this.#failed(refusal(answer));
    const said = header(answer.headers, 'docker-content-digest');
    if (said !== undefined && said !== digest)
      throw this.#failed(new InvalidResponseError(`it keeps the manifest ${digest} as ${said.slice(0, 100)}`));
    return { notedSubject: header(answer.headers, 'oci-subject') !== undefined };
  }

  async listsReferrers(repository: string, digest: Digest, signal: AbortSignal): Promise<boolean> {
    const path = `/v2/${repository}/referrers/${digest}`;
    const answer = await this.#ask({ method: 'GET', path, scope: scopeOf(repository) }, signal);
    // ghcr.io leads to a web page.
    return answer.status === 200 && essence(header(answer.headers, 'content-type') ?? '').endsWith('json');
  }

  async close(): Promise<void> {
    await this.#requests.close();
  }

  /** Null where the registry fails at it: a mount saves work, and is never needed. */
  async #mount(
    begin: URL,
    digest: Digest,
    from: string,
    scope: string,
    signal: AbortSignal,
  ): Promise<PushAnswer | null> {
    const url = new URL(begin);
    url.search = `mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`;
    const headers = { 'content-length': '0' };
    const both = `${scope} repository:${from}:pull`;
    const request = { method: 'POST', url, scope: both, headers, signal, patience: ANSWER_MS } as const;
    return await this.#requests.send(request).catch(() => {
      signal.throwIfAborted();
      return null;
    });
  }

  /** Sends what may be sent twice until it is answered; any answer that does not pass by itself is one. */
  async #ask(
    {
      path,
      patience = ANSWER_MS,
      ...request
    }: Omit<PushRequest, 'url' | 'signal' | 'patience'> & { readonly path: string; readonly patience?: number },
    signal: AbortSignal,
  ): Promise<PushAnswer> {
    const url = urlAt(this.#endpoint, path);
    return await retrying(this.#attempts(), signal, async () => {
      const answer = await this.#requests.send({ ...request, url, patience, signal });
      if (answer.status === 408 || answer.status === 429 || answer.status >= 500) throw refusal(answer);
      return answer;
    });
  }

  #attempts(): Attempts {
    const { backoff = BACKOFF, tell } = this.#options;
    return new Attempts(backoff, this.#told, tell);
  }

  #failed(error: unknown): OperatorError {
    return pushError(error, this.#told);
  }
}

const ACCEPT = parseAccept(undefined).header;

/** What a token must open (distribution, *Token Scope*): one token for all that a push asks. */
function scopeOf(repository: string): string {
  return `repository:${repository}:pull,push`;
}

function manifestPath(repository: string, reference: Reference): string {
  return `/v2/${repository}/manifests/${reference.kind === 'tag' ? reference.tag : reference.digest}`;
}

/**
 * Whether there is nothing, as far as one may look: registries answer 401 or 403 where a repository is still to be made (ghcr.io), and for every HEAD of
 * a blob (public.ecr.aws). Whether one may write there, the first upload shows.
 */
function isHidden({ status }: PushAnswer): boolean {
  return status === 404 || status === 401 || status === 403;
}
