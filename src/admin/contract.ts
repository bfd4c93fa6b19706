/**
 * The operator's contract: named operations, JSON in, a stream of JSON lines out. The CLI calls them through `<dataDir>/admin.sock`
 * where a gateway runs, and in its own process, on the same data directory, where none does.
 */
export type AdminLine =
  /** Progress, as it happens; `data` for bars (`{done, total}`). */
  | { readonly type: 'step'; readonly step: string; readonly message: string; readonly data?: unknown }
  /** The last line of a success. */
  | { readonly type: 'result'; readonly result: unknown }
  /** The last line of a failure; `usage` makes the CLI exit 2, else 1. */
  | {
      readonly type: 'error';
      readonly code: string;
      readonly message: string;
      readonly next?: string;
      readonly usage: boolean;
      readonly result?: unknown;
    };

/** One operation: validates its input itself, so that both ways in are checked alike. */
export type Operation = (input: unknown, context: OperationContext) => Promise<unknown>;

export interface OperationContext {
  readonly step: (step: string, message: string, data?: unknown) => void;
  /** Aborted when the person presses Ctrl-C. */
  readonly signal: AbortSignal;
}
