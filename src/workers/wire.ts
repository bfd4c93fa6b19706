import type { AliasEntry } from '../aliases/table.ts';
import type { Config } from '../config/config.ts';
import type { Pull, Reply } from '../proxy/reply.ts';

/** What a worker is told when it starts. */
export interface StartMessage {
  readonly config: Config;
  readonly version: string;
  /** Shared by all processes, so that a session begun with one is resumed with any. */
  readonly ticketKeys: Uint8Array;
  readonly state: StateMessage;
}

/** Everything that workers hold a copy of; sent whole at every change. */
export interface StateMessage {
  readonly aliases: readonly AliasEntry[];
  /** Hosts only: where their content comes from, and the credentials, stay with the owner. */
  readonly registries: readonly string[];
  readonly users: readonly { readonly name: string; readonly tokenHash: Uint8Array; readonly createdAt: string }[];
  /** True, or why the gateway is not ready. */
  readonly ready: true | string;
  /** Hosts that have a certificate, and a number that grows with each change of any. */
  readonly certificates: { readonly hosts: readonly string[]; readonly version: number } | null;
}

/** A certificate and its key as they cross: PEM. */
export interface MaterialMessage {
  readonly chain: string;
  readonly key: string;
}

export type PullMessage = Omit<Pull, 'signal'>;

/** A reply whose body is read by the worker itself from a file, or pulled from the owner, or here. */
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
}

export interface StreamMessage {
  readonly kind: 'stream';
  readonly source: number;
  readonly length: number | undefined;
}

/** A growing file as it is at one moment. */
export interface ViewMessage {
  readonly path: string;
  readonly size: number | undefined;
  readonly available: number;
  /** Null while it grows; `failure` as workers/failure.ts writes it. */
  readonly outcome: { readonly failure: unknown } | 'complete' | null;
}

export function isFile(body: ReplyMessage['body']): body is FileMessage {
  return body !== null && 'kind' in body && body.kind === 'file';
}

export function isStream(body: ReplyMessage['body']): body is StreamMessage {
  return body !== null && 'kind' in body && body.kind === 'stream';
}
