import { sleep } from '../kit/time.ts';
import { reconcile } from './reconcile.ts';
import type { Upkeep } from './upkeep.ts';

/** Work in the background begins so long after the start, ms: readiness and the first pulls come first. */
const FIRST = 2_000;
/** … and comes back this often, ms. */
const INTERVAL = 6 * 60 * 60 * 1000;
/** A tag that nobody asked for, and a link whose content is gone, are forgotten after this, ms. Far longer than any answer may be stale. */
const FORGET_AFTER = 30 * 24 * 60 * 60 * 1000;
const BATCH = 256;
const PAUSE = 5;

/** Keeps index and directory in agreement, and forgets what nobody needs. */
export class Maintenance {
  readonly #upkeep: Upkeep;
  readonly #abort = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(upkeep: Upkeep) {
    this.#upkeep = upkeep;
  }

  start(): void {
    this.#running = this.#run().catch(() => {});
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    await idle(FIRST, signal);
    for (;;) {
      await this.#once(signal).catch((error: unknown) => {
        if (!signal.aborted) this.#upkeep.log.warn({ err: error }, 'putting the cache in order failed');
      });
      signal.throwIfAborted();
      await idle(INTERVAL, signal);
    }
  }

  async #once(signal: AbortSignal): Promise<void> {
    const { index, room, log } = this.#upkeep;
    // First, since an eviction that comes before it has all of this to do.
    for (const _ of index.tidy()) await sleep(PAUSE, signal);
    const done = await reconcile(this.#upkeep, signal);
    if (done.adopted + done.removed + done.missing > 0) log.info({ ...done }, 'the cache was put in order');
    await room.settle().catch(() => {});
    const before = Date.now() - FORGET_AFTER;
    while (index.dropStaleTags(before, BATCH)) await sleep(PAUSE, signal);
    while (index.dropStaleLinks(before, BATCH)) await sleep(PAUSE, signal);
  }
}

/** A wait that does not keep the process alive. */
function idle(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', end);
      resolve();
    }, ms);
    timer.unref();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}
