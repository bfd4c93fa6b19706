import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Askers } from '../kit/askers.ts';
import { FairPool } from '../kit/fair-pool.ts';
import type { DocumentMessage } from './document-thread.ts';
import { type Question, READINGS, type Reading, type ReadingName } from './documents.ts';
import { busyError, type RegistryError } from './errors.ts';

/** A document of so many bytes is read within a millisecond; almost all are smaller. */
const INLINE_BYTES = 64 * 1024;
/** The largest honest document takes less than a second, on a busy machine a few. What takes longer, ms, is made to. */
const MAX_READING_MS = 20_000;
/** What takes longer, ms, is ended where others wait. */
const TURN_MS = 5_000;
/** The longest wait for a turn, ms: a client waits 30 s for an answer, and the document had to be fetched, too. */
const MAX_WAIT_MS = 15_000;
/** Bytes of one registry's documents that wait for their turn: whoever sends more than are read must not fill the memory … */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
/** … and of those, bytes of one client's, who leaves room for others. */
const MAX_CLIENT_BYTES = 32 * 1024 * 1024;
/** MiB of JavaScript objects: the most values that a document may have, parsed, and what is written anew of them. */
const MAX_HEAP_MIB = 256;
/** The thread takes some MiB while it lives, ms; large documents are rare. */
const IDLE_MS = 10_000;

/** Where a document comes from, and who asked for it. */
export interface DocumentOrigin {
  /** The row of the table. */
  readonly registry: string;
  readonly askers?: Askers | undefined;
  /** Ends the wait for its turn. */
  readonly signal?: AbortSignal;
}

/**
 * Reads a registry's document: a small one at once, a large one in a thread, so that requests are answered meanwhile. Registries take turns
 * there, and their clients.
 * @returns null for what is no such document, and for one that takes too much time or memory
 * @throws {RegistryError} gatewayBusy where its turn did not come, or it took too long and others waited; the signal's reason
 */
export function readDocument<N extends ReadingName>(
  name: N,
  bytes: Uint8Array,
  question: Question<N>,
  origin: DocumentOrigin,
): Reading<N> | Promise<Reading<N>> {
  if (bytes.length <= INLINE_BYTES) return READINGS[name](bytes, question as never) as Reading<N>;
  return thread.read({ name, bytes, question }, origin) as Promise<Reading<N>>;
}

/** The one thread for all large documents: it starts with the first, reads them one by one, and ends when none comes for a while. */
class DocumentThread {
  readonly #turns = new FairPool({
    limits: { permits: 1, perGroup: 1, perAsker: 1, perItem: 1, safeFor: TURN_MS, turn: TURN_MS },
    maxWait: MAX_WAIT_MS,
    refusal: (registry, own) => tooMany(own ? registry : 'other registries'),
  });
  /** Bytes that wait for their turn, by registry, and by registry and client. */
  readonly #waiting = new Map<string, number>();
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | undefined;

  async read(message: DocumentMessage, { registry, askers, signal }: DocumentOrigin): Promise<unknown> {
    const [client = ''] = askers?.names ?? [];
    const endWait = this.#beginWait(message.bytes.length, registry, client);
    let state: 'waits' | 'reads' | 'rests' | 'is done' = 'waits';
    const rest = (): void => {
      if (state !== 'reads') return;
      state = 'rests';
      this.#end();
    };
    const release = await this.#turns
      .acquire(registry, signal ?? new AbortController().signal, { askers, rest })
      .finally(endWait);
    try {
      state = 'reads';
      clearTimeout(this.#idle);
      this.#worker ??= startThread();
      const reading = await answerOf(this.#worker, message);
      if ((state as string) === 'rests') throw busyError(`large documents from ${registry} that take long`);
      if (reading === undefined) this.#end();
      else this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
      return reading ?? null;
    } finally {
      state = 'is done';
      release();
    }
  }

  /** Counts bytes as waiting until the function returned is called. @throws {RegistryError} gatewayBusy where these are too many */
  #beginWait(bytes: number, registry: string, client: string): () => void {
    const limits = { [registry]: MAX_WAITING_BYTES, [`${registry} ${client}`]: MAX_CLIENT_BYTES };
    const of = (key: string): number => this.#waiting.get(key) ?? 0;
    for (const [key, limit] of Object.entries(limits)) if (of(key) + bytes > limit) throw tooMany(registry);
    for (const key of Object.keys(limits)) this.#waiting.set(key, of(key) + bytes);
    return () => {
      for (const key of Object.keys(limits)) {
        this.#waiting.set(key, of(key) - bytes);
        if (of(key) === 0) this.#waiting.delete(key);
      }
    };
  }

  #end(): void {
    void this.#worker?.terminate();
    this.#worker = null;
  }
}

const thread = new DocumentThread();

function tooMany(registry: string): RegistryError {
  return busyError(`large documents from ${registry}`);
}

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
