/** One kind of error that an operator can meet. */
export interface OperatorErrorEntry {
  /** What it means, whatever the case at hand. */
  readonly meaning: string;
  /** The general next step, used where the code that fails knows no better one. */
  readonly next: string;
  /** Bad usage (the command exits 2); everything else is a refusal or a failure (it exits 1). */
  readonly usage: boolean;
}

export function usage(meaning: string, next: string): OperatorErrorEntry {
  return { meaning, next, usage: true };
}

export function failure(meaning: string, next: string): OperatorErrorEntry {
  return { meaning, next, usage: false };
}
