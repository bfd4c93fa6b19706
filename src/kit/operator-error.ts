/**
 * What an operator (a person at the CLI, or reading the log at start) is told: what happened, and what to do next.
 * `usage` marks bad input (exit 2); everything else is a refusal or a failure (exit 1).
 */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  readonly next: string | undefined;
  readonly usage: boolean;
  /** A stable word for scripts: `NAME_INVALID`, `ALIAS_TAKEN`, `REGISTRY_IN_USE` … */
  readonly code: string;

  constructor(code: string, message: string, options: { next?: string; usage?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.next = options.next;
    this.usage = options.usage ?? false;
  }
}
