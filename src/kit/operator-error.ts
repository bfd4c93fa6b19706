import { CERTIFICATE_ERRORS } from './operator-errors/certificates.ts';
import { COMMAND_ERRORS } from './operator-errors/commands.ts';
import { IMAGE_ERRORS } from './operator-errors/images.ts';
import { STATE_ERRORS } from './operator-errors/state.ts';
import { TABLE_ERRORS } from './operator-errors/table.ts';

/**
 * The catalogue of what an operator (a person at the command line, or reading the log) can be told, as src/oci/errors.ts is the clients'.
 * The codes are for scripts: they do not change. deploy/ERRORS.md shows the catalogue, and test/unit/kit/operator-error.test.ts holds it to that.
 */
export const OPERATOR_ERRORS = {
  ...STATE_ERRORS,
  ...COMMAND_ERRORS,
  ...IMAGE_ERRORS,
  ...TABLE_ERRORS,
  ...CERTIFICATE_ERRORS,
};

export type OperatorErrorCode = keyof typeof OPERATOR_ERRORS;

/** What happened, as the message of an error, and what to do next. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  readonly code: OperatorErrorCode;
  readonly next: string;
  readonly usage: boolean;

  /** `next`: better advice than the catalogue's, which knows nothing of the case at hand. */
  constructor(
    code: OperatorErrorCode,
    message: string,
    options: { readonly next?: string | undefined; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const entry = OPERATOR_ERRORS[code];
    this.code = code;
    this.next = options.next ?? entry.next;
    this.usage = entry.usage;
  }

  /** An error as another process sent it, which may be of another version and know other codes: what it says is kept. */
  static received(sent: SentOperatorError): OperatorError {
    const { code, message, next, usage } = sent;
    const error = new OperatorError(
      Object.hasOwn(OPERATOR_ERRORS, code) ? (code as OperatorErrorCode) : 'INTERNAL',
      message,
      { next },
    );
    return Object.assign(error, { code, usage });
  }
}

/** An `OperatorError` as JSON. */
export interface SentOperatorError {
  readonly code: string;
  readonly message: string;
  readonly next?: string | undefined;
  readonly usage: boolean;
}
