import type { KeptUsers } from '../access/user-snapshot.ts';
import type { AliasEntry } from '../aliases/table.ts';
import { CacheError, type CacheErrorReason } from '../cache/blob-cache.ts';
import type { Config } from '../config/config.ts';
import { TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { OperatorError, type SentOperatorError } from '../kit/operator-error.ts';
import { type ErrorName, RegistryError } from '../oci/errors.ts';
import type { Pull, Reply } from '../proxy/reply.ts';

// What the owner and its workers say to each other, and errors as they cross. Values are structured clones (`serialization: 'advanced'`).

/** What a worker is given when it starts. */
export interface StartMessage {
  readonly version: string;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  /** For `shareSteadyClock`: what the owner says is fresh until some time must be so here. */
  readonly clock: number;
  readonly state: StateMessage;
}

/** Everything that workers hold a copy of; sent whole at every change. */
export interface StateMessage {
  /** With the ports as the owner bound them. */
  readonly config: Config;
  /** Those that a host leads to. */
  readonly aliases: readonly AliasEntry[];
  /** Hosts only: where their content comes from, and the credentials, stay with the owner. */
  readonly registries: readonly string[];
  readonly users: KeptUsers;
  /** Of the owner's core: no answer from before it changed may be given again. */
  readonly generation: number;
  /** True, or why the gateway is not ready. */
  readonly ready: true | string;
  /** What is to be said of it all the same. */
  readonly remark: string | null;
  /** Of a node that others do the work of: it is ending. */
  readonly draining: boolean;
  /** Hosts that have a certificate, those that are to have one and wait for it, domains that a wildcard covers, and a number that grows with each change of any. */
  readonly certificates: {
    readonly hosts: readonly string[];
    readonly waiting: readonly string[];
    readonly wildcards: readonly string[];
    readonly version: number;
  } | null;
  /** Shared by all processes, so that a TLS session begun with one is resumed with any; replaced from time to time. */
  readonly ticketKeys: Uint8Array;
  /** TLS-ALPN-01 challenges (RFC 8737) that a CA may ask any process for now. */
  readonly challenges: readonly AlpnMessage[];
}

/** Until when a worker may serve by the state that it was sent last: by `steadyNow`, and by `Date.now`. */
export interface FreshMessage {
  readonly steady: number;
  readonly date: number;
}

/** A certificate and its key as they cross: PEM. */
export interface CertificateMessage {
  readonly chain: string;
  readonly key: string;
}

export interface AlpnMessage extends CertificateMessage {
  readonly host: string;
}

/** A registry denied a repository (as `repositoryId` names it): no reply of it that a worker has may be given again. */
export interface DeniedMessage {
  readonly repository: string;
}

export type PullMessage = Omit<Pull, 'signal'>;

/** A reply whose body the worker itself reads from a file, or pulls from the owner, or has here. */
export interface ReplyMessage extends Omit<Reply, 'body'> {
  readonly body: Uint8Array | FileMessage | StreamMessage | null;
}

export interface FileMessage {
  readonly kind: 'file';
  /** Names the reply's source at the owner, to be closed. */
  readonly source: number;
  /** Names the blob at the owner: readers of one blob share its view. */
  readonly blob: number;
  readonly from: number;
  readonly to: number | undefined;
  readonly length: number | undefined;
  readonly view: ViewMessage;
  /** One reply carries the whole content: the end of it waits for the digest. */
  readonly wholeReply: boolean;
  /** The bytes come through another repository: what fails them there says nothing of this one. */
  readonly byAnother: boolean;
  /** The owner is to be told where the reader waits: what is fetched next depends on it. */
  readonly wanted: boolean;
  /** The worker checks the blob as it reads it. */
  readonly check: boolean;
}

export interface StreamMessage {
  readonly kind: 'stream';
  readonly source: number;
  readonly length: number | undefined;
}

/** What a reader waits for: the growth of a blob at an offset. */
export interface AdvanceMessage {
  readonly blob: number;
  readonly offset: number;
  readonly wholeReply: boolean;
}

/** A growing file as it is at one moment, seen from one offset. */
export interface ViewMessage {
  readonly path: string;
  readonly size: number | undefined;
  /** The bytes that are there from the offset on; none where `from` is `to`. */
  readonly written: Extent;
  /** As in `FileView`. */
  readonly tail: number;
  readonly whole: boolean;
  /** Null while it grows; `failure` as `encodeFailure` made it. */
  readonly outcome: { readonly failure: Failure } | 'complete' | null;
}

export function isFile(body: ReplyMessage['body']): body is FileMessage {
  return body !== null && 'kind' in body && body.kind === 'file';
}

export function isStream(body: ReplyMessage['body']): body is StreamMessage {
  return body !== null && 'kind' in body && body.kind === 'stream';
}

/** An error as it crosses: a structured clone would lose its class and fields. */
export type Failure =
  | { readonly kind: 'registry'; readonly name: ErrorName; readonly options: Omit<RegistryError['options'], 'cause'> }
  | ({ readonly kind: 'operator' } & SentOperatorError)
  | { readonly kind: 'cache'; readonly reason: CacheErrorReason; readonly message: string }
  | { readonly kind: 'truncated' | 'other'; readonly message: string };

export function encodeFailure(error: unknown): Failure {
  if (error instanceof RegistryError) {
    const { cause: _, ...options } = error.options;
    return { kind: 'registry', name: error.kind, options };
  }
  if (error instanceof OperatorError) {
    const { code, message, next, usage } = error;
    return { kind: 'operator', code, message, next, usage };
  }
  if (error instanceof CacheError) return { kind: 'cache', reason: error.reason, message: error.message };
  const message = error instanceof Error ? error.message : String(error);
  return { kind: error instanceof TruncatedError ? 'truncated' : 'other', message };
}

export function decodeFailure(failure: Failure): Error {
  switch (failure.kind) {
    case 'registry':
      return new RegistryError(failure.name, failure.options);
    case 'operator':
      return OperatorError.received(failure);
    case 'cache':
      return new CacheError(failure.reason, failure.message);
    case 'truncated':
      return new TruncatedError(failure.message);
    case 'other':
      return new Error(failure.message);
  }
}
