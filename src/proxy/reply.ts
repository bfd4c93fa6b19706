import type { ByteSource } from '../kit/byte-source.ts';
import { BLOB } from '../oci/media-types.ts';
import type { Digest, Target } from '../oci/names.ts';
import { API_VERSION } from '../oci/response-headers.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Tally } from '../telemetry/tally.ts';
import type { Denials } from './denials.ts';

/** A pull as the core sees it: no socket, no URL, no web framework. */
export interface Pull {
  readonly target: Target;
  readonly method: 'GET' | 'HEAD';
  /** The request headers that change an answer; every other header stops at the edge. */
  readonly accept?: string | undefined;
  readonly range?: string | undefined;
  readonly ifRange?: string | undefined;
  readonly ifNoneMatch?: string | undefined;
  /** True where the client showed credentials that the gateway knows. */
  readonly authenticated: boolean;
  /** Equal for clients to whom the operator's policy lets the same images through: `Audiences.of`. Left out or empty where it names nobody. */
  readonly audience?: string | undefined;
  /** Who shares limits, allowances and turns with whom: `Grant.client`. No answer's content depends on it. */
  readonly client: string;
  /** What the client calls the repository, where `base` and target make another name: without `library/`, or by another name of the registry. */
  readonly name?: string | undefined;
  /** Path in front of `<name>/tags/list` in the shape that the client used, for `Link`: `/v2/`, `/v2/quay.io/`, `/quay.io/v2/`. */
  readonly base: string;
  /** `ns=<registry>` where the client sent one, to be carried into `Link`. */
  readonly ns?: string | undefined;
  /** Other gateways that it passed, as `gatewaysIn` reads them. No answer's content depends on it. */
  readonly via?: readonly string[] | undefined;
  /** Whoever asks reads the bytes here, and follows no redirect to the shared store. */
  readonly direct?: boolean | undefined;
  /** Aborted when the client leaves. A fill that it caused goes on. */
  readonly signal: AbortSignal;
}

/** An answer; HEAD has the headers of GET and a null body. Header names are lower-case. */
export interface Reply {
  readonly status: number;
  readonly headers: ReplyHeaders;
  readonly body: Uint8Array | ByteSource | null;
  /**
   * The body once more, as a text of one character a byte (latin1), where the manifest cache keeps it. Node puts a header and a text together
   * into one write, where a buffer needs a second: that is a tenth of what a warm manifest costs.
   */
  readonly text?: string;
  /** Bytes that a redirect lets the client have from elsewhere: they count in its quota as if they were sent. Left out of every other answer. */
  readonly elsewhere?: number;
  /** Where the bytes came from, for the access log and metrics. */
  readonly from: 'cache' | 'fill' | 'upstream' | 'stale';
  /** When its registry last gave or confirmed this, ms since 1970, of the same clock as `freshUntil`; left out where that is now, or not known. */
  readonly since?: number;
  /** Why this is stale, as the operator may know it; left out of every other answer. */
  readonly reason?: string;
  /**
   * Until when, ms since 1970, this answer may be given again to the same question (target, method, class of Accept, authenticated or not, audience)
   * without asking the core, as long as the core's generation stays the same and it is not denied. Left out where it may not.
   */
  readonly freshUntil?: number;
}

/** The proxy core, as the edge needs it. Failures are thrown, at once or later, as `RegistryError` (oci/errors.ts). */
export interface ProxyCore {
  /** What is ready in memory comes without a promise: most of what is asked is. */
  serve(pull: Pull): Promise<Reply> | Reply;
}

/** A core that tells when answers with `freshUntil` are no longer good. */
export interface VersionedCore extends ProxyCore {
  /** Grows with every change after which no earlier answer may be given again: a registry was changed, the cache was pruned. */
  readonly generation: number;
  /** Repositories whose earlier answers may not be given again, because their registry refuses them. */
  readonly denials: Denials;
}

export type ReplyHeaders = Readonly<Record<string, string>>;

/** What every client needs of a manifest: type without parameters, exact length, digest, quoted tag. */
export function manifestHeaders(mediaType: string, size: number, digest: Digest): ReplyHeaders {
  return {
    'docker-distribution-api-version': API_VERSION,
    'content-type': mediaType,
    'content-length': String(size),
    'docker-content-digest': digest,
    etag: entityTag(digest),
  };
}

/** A blob, or a part of one: `length` is that of the body, undefined where the upstream never says. */
export function blobHeaders(digest: Digest, length: number | undefined, contentType: string = BLOB): ReplyHeaders {
  const headers: Record<string, string> = {
    'docker-distribution-api-version': API_VERSION,
    'content-type': contentType,
    'docker-content-digest': digest,
    etag: entityTag(digest),
    'accept-ranges': 'bytes',
    // Its name is its digest: no cache between here and the client ever has to ask again.
    'cache-control': 'max-age=31536000, immutable',
  };
  if (length !== undefined) headers['content-length'] = String(length);
  return headers;
}

export function listHeaders(mediaType: string, length: number): ReplyHeaders {
  return {
    'docker-distribution-api-version': API_VERSION,
    'content-type': mediaType,
    'content-length': String(length),
  };
}

/** Of what is served although it may be out of date; unchanged where `warning` is undefined. */
export function withWarning(headers: ReplyHeaders, warning: string | undefined): ReplyHeaders {
  return warning === undefined ? headers : { ...headers, warning };
}

/** 304: what a client's cache needs to recognise its copy, and no length. */
export function notModified(
  digest: string,
  { from, since, reason }: Pick<Reply, 'from' | 'since' | 'reason'>,
  warning?: string,
): Reply {
  const headers = {
    'docker-distribution-api-version': API_VERSION,
    'docker-content-digest': digest,
    etag: entityTag(digest),
  };
  return {
    status: 304,
    headers: withWarning(headers, warning),
    body: null,
    from,
    ...(since === undefined ? {} : { since }),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** A manifest's reply as this pull gets it: 304 where the client has it already (RFC 9110, 13.1.2). */
export function withCondition(pull: Pull, reply: Reply): Reply {
  if (pull.ifNoneMatch === undefined) return reply;
  const { 'docker-content-digest': digest, warning } = reply.headers;
  return digest !== undefined && matchesNone(pull.ifNoneMatch, digest) ? notModified(digest, reply, warning) : reply;
}

/** The digest names the exact bytes, so it is a strong validator. */
function entityTag(digest: string): string {
  return `"${digest}"`;
}

/** `If-None-Match` (RFC 9110, 13.1.2): weak comparison, a list, or `*`. */
export function matchesNone(header: string | undefined, digest: string): boolean {
  if (header === undefined) return false;
  if (header.trim() === '*') return true;
  const tag = entityTag(digest);
  return header.split(',').some((part) => part.trim().replace(/^W\//, '') === tag);
}

/** `If-Range` (RFC 9110, 13.1.5): strong comparison. Blobs have no date, so a date never matches. True where the range may be served. */
export function rangeApplies(header: string | undefined, digest: Digest): boolean {
  return header === undefined || header.trim() === entityTag(digest);
}

export type RepliesTally = Tally<'kind' | 'from' | 'registry'>;

/** Counts replies: the core what it answered, a manifest cache in front of it what it gave again. One for each process. */
export function repliesTally(metrics: Metrics): RepliesTally {
  return metrics.tally(
    'registry_replies_total',
    'Replies of the proxy core, by what was asked and where it came from',
    ['kind', 'from', 'registry'],
  );
}
