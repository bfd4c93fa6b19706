import type { Config } from '../config/config.ts';
import { type Lock, type Locks, unlessHeld } from '../kit/locks.ts';
import { sleep, steadyNow } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { HistoryStore } from './history-store.ts';

const HOUR = 60 * 60_000;
const DAY = 24 * HOUR;
/**
 * What was not seen for so long is dropped, ms: an image that is pulled once a year is known then. In any case it is longer than what has to be old may take
 * to be so, with what was dropped seen again as if for the first time.
 */
const KEPT_FOR = 400 * DAY;
/** Content that is remembered, some 130 bytes each in SQLite: beyond it goes what was seen longest ago … */
const MOST = 2_000_000;
/**
 * … but nothing that was seen so lately, ms: that it is in use is written once a day, and of what manifests name once a week, and what is in use must not
 * become young again because somebody asks for a great many images.
 */
const IN_USE = 8 * DAY;
/** How often it is looked for, ms. */
const INTERVAL = HOUR;
/** Rows dropped at once, and the pause after them, ms: nobody waits for it, and nobody is to wait for a database that does it. */
const BATCH = 500;
const PAUSE = 200;
const LEASE = 2 * 60_000;

export interface HistoryKeeperOptions {
  readonly store: Pick<HistoryStore, 'dropBefore' | 'lastSeenBehind'>;
  readonly locks: Pick<Locks, 'tryAcquire'>;
  /** As it is now. */
  readonly config: () => Pick<Config['policy'], 'cooldown'>;
  readonly log: Pick<Logger, 'warn'>;
  readonly now?: () => number;
  /** Content that is remembered; default: as much as a gateway may. */
  readonly most?: number;
}

/** Drops what was not seen of images for long, and what is too much, by one gateway of a fleet at a time. */
export class HistoryKeeper {
  readonly #options: HistoryKeeperOptions;
  readonly #closing = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: HistoryKeeperOptions) {
    this.#options = options;
  }

  static start(options: HistoryKeeperOptions): HistoryKeeper {
    const keeper = new HistoryKeeper(options);
    keeper.#running = keeper.#run();
    return keeper;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  /** Drops all that is old enough, or too much, in small steps. @throws the store's errors */
  async drop(under: Lock, ended: AbortSignal): Promise<void> {
    const { store, config, log, now = steadyNow, most = MOST } = this.#options;
    const cooldown = config().cooldown ?? 0;
    const old = now() - Math.max(KEPT_FOR, 2 * cooldown);
    const inUse = now() - Math.max(IN_USE, 2 * cooldown);
    const surplus = await store.lastSeenBehind(most);
    const before = Math.max(old, surplus === null ? old : Math.min(surplus + 1, inUse));
    if (surplus !== null && surplus >= inUse) {
      log.warn(
        { most },
        'more content was seen lately than is to be remembered, and the history of images grows: find who asks for so many (gateway status), or limit it (limits.requestsPerMinute)',
      );
    }
    while (!ended.aborted && (await store.dropBefore(before, BATCH, under))) {
      await sleep(PAUSE, ended, { ref: false }).catch(() => {});
    }
  }

  async #run(): Promise<void> {
    const { locks, log } = this.#options;
    const { signal } = this.#closing;
    for (;;) {
      await sleep(INTERVAL, signal, { ref: false }).catch(() => {});
      if (signal.aborted) return;
      try {
        await unlessHeld(locks, 'drop history', { leaseMs: LEASE, signal }, (lock, ended) => this.drop(lock, ended));
      } catch (error) {
        if (!signal.aborted)
          log.warn({ err: error }, 'what was seen of images long ago was not dropped; it is tried again');
      }
    }
  }
}
