import type { Pins } from '../cache/pins.ts';
import type { WarmRow, WarmRun } from '../images/warm-store.ts';
import { Reloader } from '../kit/async.ts';
import type { Lock, Locks } from '../kit/locks.ts';
import { type Clock, systemClock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { errorOf, type WarmService } from './service.ts';

/** What was due before the start, or is due at once, waits so long, ms: readiness and the first pulls come first. */
const START_AFTER = 20_000;
/** A lease outlives a gateway that vanished by so long, ms. */
const LEASE = 60_000;
/** When another gateway holds a row, or the store could not be asked, ms. */
const LOOK_AGAIN = 60_000;
/** A timer is set for no longer than this, ms: clocks are put right. */
const MOST_WAIT = 60 * 60_000;

export interface WarmKeeperOptions {
  readonly service: WarmService;
  readonly pins: Pins;
  readonly locks: Locks;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly clock?: Clock;
  /** Shorter in tests, ms. */
  readonly startAfter?: number;
}

/**
 * Runs what is on a schedule when its time has come, one image at a time, and brings what is pinned and not here. A row that is only fetched is run by one
 * gateway of a fleet at a time, who holds its lock; what is pinned each brings to its own disk.
 */
export class WarmKeeper {
  readonly #options: WarmKeeperOptions;
  readonly #clock: Clock;
  readonly #notBefore: number;
  readonly #closing = new AbortController();
  readonly #reloader: Reloader;
  readonly #ends: (() => void)[];
  readonly #runs;
  /** Pins whose tag is known to stand for another image now. */
  readonly #moved = new Set<string>();
  /** Not looked at before this time: another gateway has them. */
  readonly #elsewhere = new Map<string, number>();
  #rows: readonly WarmRow[] = [];
  #known: readonly WarmRun[] = [];
  #cancel: () => void = () => {};
  #running: Promise<void> | null = null;

  private constructor(options: WarmKeeperOptions) {
    const { service, pins, log, metrics, clock = systemClock, startAfter = START_AFTER } = options;
    this.#options = options;
    this.#clock = clock;
    this.#notBefore = clock.now() + startAfter;
    this.#reloader = new Reloader(
      () => this.#load(),
      (error) => log.warn({ err: error }, 'what is to be kept at hand could not be read; it is tried again'),
    );
    this.#ends = [
      service.watch(this.#reloader.request),
      pins.onMoved((id) => {
        this.#moved.add(id);
        this.#arm();
      }),
    ];
    this.#runs = metrics.counter('warm_runs_total', 'Images on a schedule or pinned that were fetched, by outcome', [
      'outcome',
    ]);
    metrics.gauge('warm_images', 'Images that are on a schedule or pinned', [], (gauge) =>
      gauge.set(this.#rows.length),
    );
    metrics.gauge(
      'warm_failing',
      'Images on a schedule or pinned whose last run failed, as this gateway knows',
      [],
      (gauge) => gauge.set(this.#last().filter((run) => run.error !== null).length),
    );
    metrics.gauge(
      'warm_last_success_timestamp_seconds',
      'When the last run of a scheduled or pinned image went well, of the one for which that is longest ago; 0 for never, and where there is none',
      [],
      (gauge) => gauge.set(this.#oldestSuccess()),
    );
    metrics.gauge('cache_pinned_bytes', 'Bytes of blobs that pinned images hold', [], (gauge) =>
      gauge.set(pins.totals.bytes),
    );
  }

  static start(options: WarmKeeperOptions): WarmKeeper {
    const keeper = new WarmKeeper(options);
    keeper.#reloader.request();
    return keeper;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the gateway is ending'));
    this.#cancel();
    for (const end of this.#ends) end();
    await this.#reloader.close();
    await this.#running;
  }

  async #load(): Promise<void> {
    const { rows, runs } = await this.#options.service.load();
    this.#rows = rows;
    this.#known = runs;
    this.#options.service.releaseOthers(rows);
    this.#arm();
  }

  #arm(): void {
    this.#cancel();
    if (this.#closing.signal.aborted || this.#running !== null || this.#rows.length === 0) return;
    const next = Math.min(...this.#rows.map((row) => this.#dueAt(row)));
    // It is looked again even where nothing is due: something of what is pinned may have been found damaged.
    const wait = Math.min(MOST_WAIT, Math.max(0, next - this.#clock.now()));
    this.#cancel = this.#clock.after(wait, () => {
      this.#running = this.#runDue()
        .catch((error: unknown) => {
          if (!this.#closing.signal.aborted)
            this.#options.log.warn({ err: error }, 'images were not fetched in their turn; it is tried again');
        })
        .finally(() => {
          this.#running = null;
          this.#arm();
        });
    });
  }

  #dueAt(row: WarmRow): number {
    const { service } = this.#options;
    const isLacking = row.pin && (this.#moved.has(row.image) || !service.isHeld(row.image));
    const last = service.lastRun(row, this.#known);
    // What is lacking is brought at once, unless that has just failed.
    const due = isLacking && (last === null || last.error === null) ? 0 : service.nextRun(row, this.#known);
    return Math.max(due, this.#notBefore, this.#elsewhere.get(row.image) ?? 0);
  }

  async #runDue(): Promise<void> {
    const now = this.#clock.now();
    const due = this.#rows.filter((row) => this.#dueAt(row) <= now);
    for (const row of due.sort((one, other) => this.#dueAt(one) - this.#dueAt(other))) {
      if (this.#closing.signal.aborted) return;
      try {
        await (row.pin ? this.#run(row) : this.#runAsHolder(row));
      } catch (error) {
        this.#closing.signal.throwIfAborted();
        this.#elsewhere.set(row.image, this.#clock.now() + LOOK_AGAIN);
        throw error;
      }
    }
  }

  async #runAsHolder(row: WarmRow): Promise<void> {
    const { locks, service } = this.#options;
    const lock = await locks.tryAcquire(`warm ${row.image}`, { leaseMs: LEASE, note: service.node });
    if (lock === null) {
      this.#elsewhere.set(row.image, this.#clock.now() + LOOK_AGAIN);
      return;
    }
    try {
      await this.#refresh();
      const current = this.#rows.find(({ image }) => image === row.image);
      // Another gateway has run it meanwhile, or it is gone.
      if (current === undefined || this.#dueAt(current) > this.#clock.now()) return;
      await this.#run(current, lock);
    } finally {
      await lock.release();
    }
  }

  async #run(row: WarmRow, lock?: Lock): Promise<void> {
    const { service, log } = this.#options;
    const ended = AbortSignal.any([this.#closing.signal, ...(lock === undefined ? [] : [lock.lost])]);
    const began = this.#clock.now();
    this.#moved.delete(row.image);
    const outcome = await service.run(row, ended);
    const error = errorOf(outcome);
    this.#runs.inc({ outcome: error === null ? 'ok' : 'failed' });
    const { image, digest, bytes, fetched } = outcome;
    const fields = { image, digest, bytes, fetched, ms: this.#clock.now() - began, pinned: row.pin };
    if (error === null) log.info(fields, 'an image was fetched by its schedule');
    else
      log.warn(
        { ...fields, reason: error },
        'an image on a schedule or pinned could not be fetched; it is tried again',
      );
    await this.#refresh();
  }

  async #refresh(): Promise<void> {
    const { rows, runs } = await this.#options.service.load();
    this.#rows = rows;
    this.#known = runs;
  }

  #last(): WarmRun[] {
    return this.#rows.map((row) => this.#options.service.lastRun(row, this.#known)).filter((run) => run !== null);
  }

  #oldestSuccess(): number {
    if (this.#rows.length === 0) return 0;
    const successes = this.#rows.map((row) => {
      const at = this.#options.service.lastRun(row, this.#known)?.succeededAt ?? null;
      return at === null ? 0 : Date.parse(at) / 1000;
    });
    return Math.min(...successes);
  }
}
