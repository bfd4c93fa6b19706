import { fstatSync, writeSync } from 'node:fs';
import { pino } from 'pino';

/**
 * Bytes of one write of whole lines. The processes of a gateway share their output, and a pipe takes this much in one piece (PIPE_BUF
 * on Linux, pipe(7)): with more, a line of one process could land in the middle of another's.
 */
const PIPE_PIECE = 4096;
/** A file takes any write in one piece; this much is more than is logged while one is under way. */
const FILE_PIECE = 64 * 1024;
/** How long lines wait for others to be written with them, ms. */
const BATCH_MS = 5;
/** Bytes that wait for an output that takes nothing, at most; what is logged beyond it is lost, and counted. */
const MAX_WAITING = 8 * 1024 * 1024;
/** Until a write is repeated: of a pipe that was full, and after an error such as a full disk, ms. */
const FULL_MS = 10;
const FAILED_MS = 1_000;
/** How long the end of the process waits for a full pipe, ms. */
const EXIT_MS = 1_000;

/** How many lines were lost, and why, where a write had failed. */
export type OnLost = (lines: number, error: Error | null) => void;

/** What pino's types do not say: with `contentMode: 'buffer'` the destination takes buffers in place of text. */
type BufferDestination = Omit<ReturnType<typeof pino.destination>, 'write'> & { write(piece: Buffer): boolean };

/**
 * Writes lines to a file descriptor through sonic-boom (`pino.destination`), which queues them, writes them in another thread and drops
 * what is more than MAX_WAITING. An output that fails (a full disk) or takes nothing (a reader that stopped) costs lines, but neither
 * memory without end nor the process; one whose reader is gone gets no more.
 *
 * What sonic-boom 4 cannot do through its public API, and is done here:
 * - Its `flushSync` repeats every error but EAGAIN for ever, so a full disk or a closed pipe would hang the process at its end. It is never
 *   called: this class remembers what is not yet written, and writes it itself when the process ends.
 * - It measures its whole last buffer again with each line, which costs more than making the line. So lines are put together here,
 *   and it gets pieces of whole lines that it must not join (`maxWrite`): one piece is one write.
 * - Its timer for a full pipe keeps the process alive (so `retryEAGAIN` is off), and after an error it waits for the next line to try again.
 * - Its `periodicFlush` wakes an idle process. Here a timer runs only while lines wait.
 */
export class LineWriter {
  readonly #fd: number;
  readonly #onLost: OnLost;
  readonly #sonic: BufferDestination;
  /** Bytes of a piece, at most, unless one line is longer. */
  readonly #pieceBytes: number;
  /** Lines that are not yet a piece, their bytes and their count. */
  #batch = '';
  #batchBytes = 0;
  #batchLines = 0;
  #batchTimer: NodeJS.Timeout | null = null;
  /** Pieces that sonic-boom has and has not written, oldest first, and how many bytes of the first it has. */
  readonly #pieces: Buffer[] = [];
  #writtenOfFirst = 0;
  /** The first piece is with another thread now. */
  #writing = false;
  #closed = false;
  /** Sonic-boom did not take the last piece. */
  #dropped = false;
  #lost = 0;
  #error: Error | null = null;

  /** `onLost` is called once the output takes lines again. */
  constructor(fd: number, onLost: OnLost) {
    this.#fd = fd;
    this.#onLost = onLost;
    this.#pieceBytes = fstatSync(fd).isFile() ? FILE_PIECE : PIPE_PIECE;
    this.#sonic = pino.destination({
      dest: fd,
      sync: false,
      contentMode: 'buffer',
      minLength: 1,
      maxLength: MAX_WAITING,
      maxWrite: 2,
      retryEAGAIN: () => false,
    }) as unknown as BufferDestination;
    this.#sonic.on('write', (bytes: number) => this.#written(bytes));
    this.#sonic.on('drain', () => this.#drained());
    this.#sonic.on('drop', () => {
      this.#dropped = true;
    });
    this.#sonic.on('error', (error: NodeJS.ErrnoException) => this.#failed(error));
    // At the end of the process's work ('beforeExit') pino closes what it made.
    this.#sonic.on('close', () => {
      this.#closed = true;
    });
  }

  /** One line, with its end. */
  write(line: string): void {
    if (this.#closed) return;
    const bytes = Buffer.byteLength(line);
    if (this.#batchBytes + bytes > this.#pieceBytes) this.#flush();
    this.#batch += line;
    this.#batchBytes += bytes;
    this.#batchLines += 1;
    // While a write is under way, what comes waits for it, so that few long writes are made of many lines.
    if (!this.#writing) this.#batchTimer ??= setTimeout(this.#flush, BATCH_MS);
  }

  /**
   * Writes what waits, waiting no longer than EXIT_MS, and takes no more: the last thing that a process does. A piece that another thread
   * is writing may be written after it.
   */
  end(): void {
    if (this.#closed) return;
    const [first, ...others] = this.#pieces;
    const rest = first === undefined || this.#writing ? [] : [first.subarray(this.#writtenOfFirst)];
    const pieces = [...rest, ...others, Buffer.from(this.#batch)];
    this.#closed = true;
    // So that pino, which flushes at the process's end what it made, leaves it.
    this.#sonic.destroy();
    writeNow(this.#fd, pieces);
  }

  #flush = (): void => {
    if (this.#batchTimer !== null) clearTimeout(this.#batchTimer);
    this.#batchTimer = null;
    if (this.#batchBytes === 0 || this.#closed) return;
    this.#send(Buffer.from(this.#batch), this.#batchLines);
    this.#batch = '';
    this.#batchBytes = 0;
    this.#batchLines = 0;
  };

  #send(piece: Buffer, lines: number): void {
    this.#dropped = false;
    this.#sonic.write(piece);
    if (this.#dropped) {
      this.#lost += lines;
    } else {
      this.#pieces.push(piece);
      this.#writing = true;
    }
  }

  #written(bytes: number): void {
    this.#writtenOfFirst += bytes;
    for (
      let first = this.#pieces[0];
      first !== undefined && this.#writtenOfFirst >= first.length;
      first = this.#pieces[0]
    ) {
      this.#writtenOfFirst -= first.length;
      this.#pieces.shift();
    }
  }

  #drained(): void {
    this.#writing = false;
    const lost = this.#lost;
    const error = this.#error;
    this.#lost = 0;
    this.#error = null;
    if (lost > 0) this.#onLost(lost, error);
    if (this.#batchBytes > 0) this.#batchTimer ??= setTimeout(this.#flush, BATCH_MS);
  }

  #failed(error: NodeJS.ErrnoException): void {
    this.#writing = false;
    if (error.code === 'EPIPE') {
      this.#closed = true;
      this.#pieces.length = 0;
      this.#sonic.destroy();
      return;
    }
    if (!isFull(error)) this.#error = error;
    setTimeout(this.#retry, isFull(error) ? FULL_MS : FAILED_MS).unref();
  }

  #retry = (): void => {
    if (this.#closed || this.#writing || this.#pieces.length === 0) return;
    this.#writing = true;
    this.#sonic.flush();
  };
}

/** Writes in this thread; gives up at the first error, and on a full pipe after EXIT_MS. */
function writeNow(fd: number, pieces: readonly Buffer[]): void {
  const deadline = performance.now() + EXIT_MS;
  for (let piece of pieces) {
    while (piece.length > 0) {
      try {
        piece = piece.subarray(writeSync(fd, piece));
      } catch (error) {
        if (!isFull(error) || performance.now() > deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_MS);
      }
    }
  }
}

/** A pipe that does not wait for its reader. */
function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EAGAIN' || code === 'EBUSY';
}
