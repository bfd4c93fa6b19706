/** Where whole lines go; `flushSync` waits until all of them are written. */
export interface Lines {
  write(lines: string): unknown;
  flushSync(): void;
}

/**
 * Hands on together what is logged in one turn of the event loop: a write costs a way to another thread and back, however long it is.
 * Nothing is held beyond the turn, nor at the end of the process.
 */
export class TurnLines implements Lines {
  readonly #to: Lines;
  readonly #maxBytes: number;
  #lines = '';
  #bytes = 0;
  #scheduled = false;

  /** `maxBytes`: of lines that are handed on in one piece; a longer line is one by itself. */
  constructor(to: Lines, maxBytes: number) {
    this.#to = to;
    this.#maxBytes = maxBytes;
  }

  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#bytes + bytes > this.#maxBytes) this.#handOn();
    this.#lines += line;
    this.#bytes += bytes;
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#onTurn);
  }

  flushSync(): void {
    this.#handOn();
    this.#to.flushSync();
  }

  #onTurn = (): void => {
    this.#scheduled = false;
    this.#handOn();
  };

  #handOn(): void {
    if (this.#bytes === 0) return;
    const lines = this.#lines;
    this.#lines = '';
    this.#bytes = 0;
    this.#to.write(lines);
  }
}
