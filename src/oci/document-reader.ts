import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Mutex } from '../kit/async.ts';
import type { DocumentMessage } from './document-thread.ts';
import { type Question, READINGS, type Reading, type ReadingName } from './documents.ts';

/** A document of so many bytes is read within a millisecond; almost all are smaller. */
const INLINE_BYTES = 64 * 1024;
/** The largest honest document takes less than a second, on a busy machine a few. What takes longer, ms, is made to. */
const MAX_READING_MS = 20_000;
/** MiB of JavaScript objects: the most values that a document may have, parsed, and what is written anew of them. */
const MAX_HEAP_MIB = 256;
/** The thread takes some MiB while it lives, ms; large documents are rare. */
const IDLE_MS = 10_000;

/**
 * Reads a registry's document: a small one at once, a large one in a thread, so that requests are answered meanwhile.
 * @returns null for what is no such document, and for one that takes too much time or memory
 */
export function readDocument<N extends ReadingName>(
  name: N,
  bytes: Uint8Array,
  question: Question<N>,
): Reading<N> | Promise<Reading<N>> {
  if (bytes.length <= INLINE_BYTES) return READINGS[name](bytes, question as never) as Reading<N>;
  return thread.read({ name, bytes, question }) as Promise<Reading<N>>;
}

/** The one thread for all large documents: it starts with the first, reads them one by one, and ends when none comes for a while. */
class DocumentThread {
  readonly #turns = new Mutex();
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | undefined;

  read(message: DocumentMessage): Promise<unknown> {
    return this.#turns.run(async () => {
      clearTimeout(this.#idle);
      this.#worker ??= startThread();
      const reading = await answerOf(this.#worker, message);
      if (reading === undefined) this.#end();
      else this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
      return reading ?? null;
    });
  }

  #end(): void {
    void this.#worker?.terminate();
    this.#worker = null;
  }
}

const thread = new DocumentThread();

function startThread(): Worker {
  const worker = new Worker(new URL(`./document-thread${extname(import.meta.filename)}`, import.meta.url), {
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
  });
  // Without a listener an error event would end the process; `answerOf` has its own.
  worker.on('error', () => {});
  worker.unref();
  return worker;
}

/** What the thread answers; undefined where it failed or takes too long, and must be ended. */
function answerOf(worker: Worker, message: DocumentMessage): Promise<unknown> {
  return new Promise((resolve) => {
    const finish = (reading: unknown): void => {
      clearTimeout(timer);
      worker.off('message', finish).off('error', fail).off('exit', fail);
      resolve(reading);
    };
    const fail = (): void => finish(undefined);
    const timer = setTimeout(fail, MAX_READING_MS);
    worker.on('message', finish).on('error', fail).on('exit', fail);
    worker.postMessage(message);
  });
}
