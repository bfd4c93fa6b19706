import type { LoggedRequest } from './log.ts';

/** What goes wrong with one answer; everything that is not said goes right. Counts are body bytes of this answer. */
export interface Fault {
  /** Milliseconds before the answer's first byte. */
  readonly delay?: number;
  /** Never answers. */
  readonly hang?: boolean;
  /** A body that comes a byte each so many milliseconds, and never ends. */
  readonly drip?: number;
  /** Breaks the connection before any answer. */
  readonly refuse?: boolean;
  /** Answers this instead. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** TCP reset after so many bytes. */
  readonly resetAfter?: number;
  /** No byte more after so many, the connection stays open. */
  readonly stallAfter?: number;
  /** An ordinary end of the connection after so many bytes, though Content-Length said more. */
  readonly endAfter?: number;
  /** The byte at this offset of the content is flipped. */
  readonly wrongByteAt?: number;
  /** Content-Length (and the size in Content-Range) is off by so much. */
  readonly sizeOff?: number;
  /** No Content-Length: chunked. */
  readonly chunked?: boolean;
  /** Bytes per second of this answer. */
  readonly bytesPerSecond?: number;
  /** Answers 200 and the whole to a Range request. */
  readonly ignoreRange?: boolean;
  /** What `Content-Encoding` says of the bytes, which stay as they are. */
  readonly contentEncoding?: string;
  /** Another `ETag` than last time. */
  readonly etag?: string;
}

export type FaultPlan = (request: LoggedRequest) => Fault | undefined;

export interface BearerAuth {
  readonly scheme: 'bearer';
  /** Name → password of who may have a token for private repositories. */
  readonly users?: Readonly<Record<string, string>>;
  /** Repositories that an anonymous token does not open; `true`: all of them. */
  readonly private?: readonly string[] | true;
  /** By the first part of a private repository's name: whose token alone opens it; others' are answered 401, as Docker Hub does. */
  readonly owners?: Readonly<Record<string, string>>;
  readonly tokenField?: 'token' | 'access_token' | 'both';
  /** Seconds that a token is really good for; default 300. */
  readonly lifetime?: number;
  /** What `expires_in` says; default the truth; null: nothing is said. */
  readonly saysLifetime?: number | null;
  readonly service?: string;
  /** Where the realm points; default the fake's own `/token`. */
  readonly realm?: string;
  /** ghcr: what is private or missing fails at the token endpoint with this status. */
  readonly tokenRefusal?: number;
  /** nvcr: the challenge for a token that has expired. */
  readonly expiredChallenge?: string;
  /** ghcr: `/v2/` names this scope. */
  readonly pingScope?: string;
  /** gcr: 401 with no challenge at all. */
  readonly noChallenge?: boolean;
  /** Replaces the whole `WWW-Authenticate`. */
  readonly challenge?: (realm: string, service: string, scope: string) => string;
}

export interface BasicAuth {
  readonly scheme: 'basic';
  readonly users: Readonly<Record<string, string>>;
}

export interface RedirectOptions {
  /** `absolute`: another origin; `signed`: another origin and a signature that expires; `relative`: the same origin, a path. */
  readonly to: 'absolute' | 'relative' | 'signed' | ((digest: string, signedFor: 'GET' | 'HEAD') => string);
  /** For `signed`; milliseconds. */
  readonly lifetime?: number;
  readonly status?: 301 | 302 | 303 | 307 | 308;
  /** registry.k8s.io redirects manifests too. */
  readonly manifests?: boolean;
}

export interface PullLimit {
  /** Pulls of one account, or of one address. */
  readonly limit: number;
  /** Seconds from the first pull until there are as many again; default six hours. */
  readonly window?: number;
  /** What a 429 says, seconds; default: nothing. */
  readonly retryAfter?: number;
}

export interface FakeRegistryOptions {
  readonly host?: string;
  readonly port?: number;
  /** PEM; serves https where given. */
  readonly tls?: { readonly key: string; readonly cert: string };
  readonly auth?: BearerAuth | BasicAuth;
  readonly redirect?: RedirectOptions;
  /** Status of every HEAD of that kind; default: served. */
  readonly refuseHead?: { readonly manifest?: number; readonly blob?: number };
  /** `ignore`: 200 and the whole; a number: that status. */
  readonly refuseRange?: 'ignore' | number;
  /** Blobs are gzipped unless the client says `Accept-Encoding: identity`. */
  readonly gzip?: boolean;
  /** Default true; false answers 404. */
  readonly referrers?: boolean;
  /** Most descriptors in one answer of referrers, most tags without `n`. */
  readonly pageSize?: number;
  /** ghcr: pages of so many tags, whatever `n` is, and links that say `n=0`. */
  readonly tagPages?: number;
  /** Filters referrers by artifactType itself and says so. Default true. */
  readonly filtersReferrers?: boolean;
  /** ghcr: an index is MANIFEST_UNKNOWN when `Accept` lacks its type. */
  readonly strictAccept?: boolean;
  /** Sends no `Docker-Content-Digest`. */
  readonly noDigestHeader?: boolean;
  /** Milliseconds before each answer, bytes per second of each connection. */
  readonly latency?: number;
  readonly bytesPerSecond?: number;
  /** More than so many requests within a second are answered 429 with `Retry-After: 1`. */
  readonly requestsPerSecond?: number;
  /** Docker Hub's `ratelimit-limit` and `ratelimit-remaining`, counted by manifest GET; 429 after the last. */
  readonly pullLimit?: PullLimit;
  readonly faults?: FaultPlan;
}
