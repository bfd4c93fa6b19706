import { fstatSync, write, writeSync } from 'node:fs';

/**
 * Bytes of one write of whole lines. The processes of a gateway share their output, and a pipe takes this much in one piece
 * (PIPE_BUF on Linux): with more, a line of one process could land in the middle of another's.
 */
const PIPE_PIECE = 4096;
/** A file takes any write in one piece; this much is more than is logged while one is under way. */
const FILE_PIECE = 64 * 1024;
/** How long lines wait for others to go with them, ms. */
const TOGETHER_MS = 5;
/** Bytes that wait for an output that takes nothing, at most; what is logged then is lost, and counted. */
const MAX_WAITING = 8 * 1024 * 1024;
/** Until an output is tried again that was full, or that failed, ms. */
const FULL_MS = 10;
const FAILED_MS = 1_000;
/** How long the last lines of a process wait for an output that takes nothing, ms. */
const LAST_WORDS_MS = 1_000;

/** How many lines were lost, and why, where a write had failed. */
export type OnLost = (lines: number, error: Error | null) => void;

/**
 * Writes lines to a file descriptor, by another thread: those of a few milliseconds in one go, or as soon as they fill a piece. A write
 * costs a way to that thread and back, however long it is.
 * An output that fails (a full disk) or takes nothing (a reader that stopped) costs lines, but neither memory without end nor the
 * process; one whose reader is gone gets no more.
 */
export class LineWriter {
  readonly #fd: number;
  readonly #onLost: OnLost;
  readonly #filling: Buffer;
  #filled = 0;
  /** Pieces that wait before the one that is being filled. */
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** A write is under way, or will be when a failed one is tried again. */
  #busy = false;
  /** Until the lines of the piece that is being filled are written. */
  #together: NodeJS.Timeout | null = null;
  #gone = false;
  #lost = 0;
  #error: Error | null = null;

  /** `onLost` is called once the output takes lines again. */
  constructor(fd: number, onLost: OnLost) {
    this.#fd = fd;
    this.#onLost = onLost;
    this.#filling = Buffer.allocUnsafeSlow(fstatSync(fd).isFile() ? FILE_PIECE : PIPE_PIECE);
  }

  /** One line, with its end. */
  write(line: string): void {
    if (this.#gone) return;
    if (this.#waitingBytes > MAX_WAITING) {
      this.#lost += 1;
      return;
    }
    // A unit of UTF-16 becomes three bytes at most; to count them would cost as much as to write them.
    const room = line.length * 3;
    if (this.#filled + room > this.#filling.length) this.#putBehind(this.#takeFilled());
    if (room > this.#filling.length) this.#putBehind(Buffer.from(line));
    else this.#filled += this.#filling.write(line, this.#filled);
    if (this.#busy) return;
    if (this.#waiting.length > 0) this.#next();
    else this.#together ??= setTimeout(this.#next, TOGETHER_MS);
  }

  /** Writes what waits before it returns: the last thing that a process does. A write that is under way may end after it. */
  flushSync(): void {
    const deadline = Date.now() + LAST_WORDS_MS;
    for (let piece = this.#take(); piece !== null; ) {
      try {
        const written = writeSync(this.#fd, piece);
        piece = written < piece.length ? piece.subarray(written) : this.#take();
      } catch (error) {
        if (!isFull(error) || Date.now() > deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_MS);
      }
    }
  }

  #next = (): void => {
    if (this.#together !== null) clearTimeout(this.#together);
    this.#together = null;
    const piece = this.#take();
    this.#busy = piece !== null;
    if (piece === null) return;
    write(this.#fd, piece, (error, written) => {
      if (error === null) {
        this.#busy = false;
        if (written < piece.length) this.#putBack(piece.subarray(written));
        if (this.#waiting.length > 0) {
          this.#next();
          return;
        }
        this.#tellLost();
        if (this.#filled > 0) this.#together ??= setTimeout(this.#next, TOGETHER_MS);
      } else if (error.code === 'EPIPE') {
        this.#gone = true;
        this.#waiting.length = 0;
        this.#filled = 0;
      } else {
        this.#putBack(piece);
        if (!isFull(error)) this.#error = error;
        setTimeout(this.#next, isFull(error) ? FULL_MS : FAILED_MS).unref();
      }
    });
  };

  #tellLost(): void {
    const lost = this.#lost;
    const error = this.#error;
    this.#lost = 0;
    this.#error = null;
    if (lost > 0) this.#onLost(lost, error);
  }

  #take(): Buffer | null {
    const piece = this.#waiting.shift();
    if (piece === undefined) return this.#filled === 0 ? null : this.#takeFilled();
    this.#waitingBytes -= piece.length;
    return piece;
  }

  /** A copy as long as it must be: most pieces are far below the whole. */
  #takeFilled(): Buffer {
    const piece = Buffer.from(this.#filling.subarray(0, this.#filled));
    this.#filled = 0;
    return piece;
  }

  #putBehind(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#waiting.push(piece);
    this.#waitingBytes += piece.length;
  }

  #putBack(piece: Buffer): void {
    this.#waiting.unshift(piece);
    this.#waitingBytes += piece.length;
  }
}

/** A pipe that does not wait for its reader. */
function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EAGAIN' || code === 'EBUSY';
}
