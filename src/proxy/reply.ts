import type { ByteSource } from '../kit/byte-source.ts';
import type { Target } from '../oci/target.ts';

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
  /** Path in front of `<name>/tags/list` in the shape that the client used, for `Link`: `/v2/`, `/v2/quay.io/`, `/quay.io/v2/`. */
  readonly base: string;
  /** `ns=<registry>` where the client sent one, to be carried into `Link`. */
  readonly ns?: string | undefined;
  /** Aborted when the client leaves. A fill that it caused goes on. */
  readonly signal: AbortSignal;
}

/** An answer; HEAD has the headers of GET and a null body. Header names are lower-case. */
export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | ByteSource | null;
  /** Where the bytes came from, for the access log and metrics. */
  readonly from: 'cache' | 'fill' | 'upstream' | 'stale';
  /**
   * Until when, ms since 1970, another process may give this answer to the same question (target, method, Accept, `If-None-Match`,
   * authenticated or not) without asking again. Left out where it may not.
   */
  readonly freshUntil?: number;
}

/** The proxy core, as the edge needs it. Failures are thrown, at once or later, as `RegistryError` (oci/errors.ts). */
export interface ProxyCore {
  /** What is ready in memory comes without a promise: most of what is asked is. */
  serve(pull: Pull): Promise<Reply> | Reply;
}
