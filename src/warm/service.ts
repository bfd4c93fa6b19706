import type { CacheAdmin } from '../cache/admin.ts';
import { parseImageName } from '../images/image-name.ts';
import { parsePlatform } from '../images/platform.ts';
import type { KeptWarm, WarmRow, WarmRun, WarmStore } from '../images/warm-store.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { iso } from '../kit/time.ts';
import { Schedule } from './schedule.ts';
import {
  type BlobProgress,
  coming,
  missingBytes,
  type Planned,
  type Warmer,
  type WarmOutcome,
  type WarmRequest,
} from './warmer.ts';

/** A row of `warm ls --json`. Times in ISO 8601. */
export interface WarmListed extends WarmRow {
  /** Null without a schedule. */
  readonly nextRun: string | null;
  /** The last run that this gateway knows of: its own of what is pinned, else any gateway's. */
  readonly lastRun: WarmRun | null;
  /** What this gateway holds of it; null where it holds nothing, or it is not pinned. Bytes. */
  readonly held: { readonly digest: string; readonly bytes: number; readonly missing: number } | null;
}

/** What images need, before anything is fetched. Bytes. */
export interface WarmNeed {
  readonly images: readonly { readonly image: string; readonly bytes: number; readonly here: number }[];
  /** Of all together, each blob once. */
  readonly missing: number;
  readonly cache: { readonly maxBytes: number; readonly used: number; readonly pinned: number; readonly spare: number };
}

export interface WarmServiceOptions {
  readonly store: WarmStore;
  readonly warmer: Warmer;
  readonly cache: () => CacheAdmin;
  /** The id of this gateway. */
  readonly node: string;
  readonly now?: () => number;
}

/** What is told of a run that somebody follows. */
export interface WarmReport {
  need(need: WarmNeed): void;
  progress(progress: BlobProgress): void;
  /** An image is done, well or not. */
  ended(outcome: WarmOutcome): void;
}

/** Tried again after a failure of which the registry does not say how long it lasts, ms. */
const RETRY_AFTER = 15 * 60_000;
/** A registry's word is believed within these bounds, ms: its windows are hours. */
const LEAST_RETRY = 60_000;
const MOST_RETRY = 24 * 60 * 60_000;

/** What is kept at hand: rows with their runs, and images that are fetched now. */
export class WarmService {
  readonly warmer: Warmer;
  readonly node: string;
  readonly #options: WarmServiceOptions;
  readonly #listeners = new Set<() => void>();
  readonly #now: () => number;

  constructor(options: WarmServiceOptions) {
    this.#options = options;
    this.warmer = options.warmer;
    this.node = options.node;
    this.#now = options.now ?? Date.now;
  }

  load(): Promise<KeptWarm> {
    return this.#options.store.load();
  }

  /** Calls after rows were changed, here or by another gateway. The function returned ends that. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    const unwatch = this.#options.store.watch(listener);
    return () => {
      this.#listeners.delete(listener);
      unwatch();
    };
  }

  async list(): Promise<WarmListed[]> {
    const { rows, runs } = await this.load();
    const cache = this.#options.cache();
    return rows.map((row) => {
      const pin = cache.pins.of(row.image);
      const missing = pin?.blobs.filter(({ digest }) => cache.sizeOf(digest) === null) ?? [];
      const bytes = (blobs: readonly { readonly size: number }[]) => blobs.reduce((sum, { size }) => sum + size, 0);
      return {
        ...row,
        nextRun: isoOrNull(this.nextRun(row, runs)),
        lastRun: this.lastRun(row, runs),
        held: pin === null ? null : { digest: pin.root, bytes: bytes(pin.blobs), missing: bytes(missing) },
      };
    });
  }

  /** The run by which it is decided when the next one is due: of what is pinned, each gateway has its own. */
  lastRun({ image, pin }: WarmRow, runs: readonly WarmRun[]): WarmRun | null {
    const own = runs.filter((run) => run.image === image && (!pin || run.node === this.node));
    return own.sort((one, other) => (one.startedAt < other.startedAt ? 1 : -1))[0] ?? null;
  }

  /**
   * When a row is due, ms since 1970; infinite for never. What should have run meanwhile is due once, in the past. A failure is tried again before its
   * next time, when its registry allows.
   */
  nextRun(row: WarmRow, runs: readonly WarmRun[]): number {
    const last = this.lastRun(row, runs);
    const since = Date.parse(last?.startedAt ?? row.createdAt);
    const who = row.pin ? `${row.image} ${this.node}` : row.image;
    const planned = row.schedule === null ? Number.POSITIVE_INFINITY : new Schedule(row.schedule).dueAfter(since, who);
    if (last === null) return row.pin ? Math.min(planned, since) : planned;
    if (last.error === null) return planned;
    return Math.min(planned, Date.parse(last.retryAt ?? iso(Date.parse(last.endedAt) + RETRY_AFTER)));
  }

  /**
   * Fetches images now, and keeps them at hand from now on where they are pinned or have a schedule. What cannot be had is in its outcome; the others go on.
   * @throws {OperatorError} `PIN_NO_ROOM`, `CACHE_OFF`: nothing was fetched then, and nothing is kept at hand
   */
  async warm(
    requests: readonly WarmRequest[],
    schedule: string | null,
    platforms: WarmRow['platforms'],
    report: WarmReport,
    signal: AbortSignal,
  ): Promise<WarmOutcome[]> {
    const startedAt = iso(this.#now());
    const looked = await this.warmer.plan(requests, signal);
    const planned = looked.filter((one) => 'plan' in one);
    this.warmer.requireRoom(planned);
    report.need(this.#needOf(planned));
    const keep = requests.filter(({ pin }) => pin || schedule !== null);
    // Before anything is fetched: where this is killed, the gateway goes on with it.
    for (const { image, selection, pin } of keep) {
      const { referrers } = selection;
      await this.#options.store.put({ image: image.text, platforms, referrers, pin, schedule, createdAt: startedAt });
      if (!pin) this.#unpin(image.text);
    }
    const outcomes = await Promise.all(
      looked.map(async (one) => {
        const outcome = 'plan' in one ? await this.warmer.fetch(one, report.progress, signal) : one;
        report.ended(outcome);
        return outcome;
      }),
    );
    const { runs } = await this.load();
    for (const outcome of outcomes)
      if (keep.some(({ image }) => image.text === outcome.image)) await this.#note(outcome, startedAt, runs);
    this.#changed();
    return outcomes;
  }

  /** Fetches a row, as its time has come. Never rejects for the image's sake. @throws the store's errors, the signal's reason */
  async run(row: WarmRow, signal: AbortSignal): Promise<WarmOutcome> {
    // First: while the store is away nothing is asked for of which nobody could note how it went, and which would be due again the next moment.
    const { runs } = await this.load();
    const startedAt = iso(this.#now());
    const outcome = await this.#runNow(row, signal);
    await this.#note(outcome, startedAt, runs);
    return outcome;
  }

  /** Takes schedule and pin back. @throws {OperatorError} `WARM_UNKNOWN` */
  async remove(image: string): Promise<WarmRow> {
    const { rows } = await this.load();
    const row = rows.find((one) => one.image === image);
    if (row === undefined || !(await this.#options.store.remove(image)))
      throw new OperatorError('WARM_UNKNOWN', `${image} is neither pinned nor on a schedule`);
    this.#unpin(image);
    this.#changed();
    return row;
  }

  /** Whether all that was pinned of an image is here. */
  isHeld(image: string): boolean {
    const cache = this.#options.cache();
    const pin = cache.pins.of(image);
    if (pin === null) return false;
    const { bytes, heldBytes } = cache.pins.totals;
    // Mostly nothing is missing of any, which costs nothing to see.
    return bytes === heldBytes || pin.blobs.every(({ digest }) => cache.sizeOf(digest) !== null);
  }

  /** Takes back pins of rows that are gone, or pinned no more: another gateway may have said so. */
  releaseOthers(rows: readonly WarmRow[]): void {
    const pinned = new Set(rows.filter(({ pin }) => pin).flatMap(({ image }) => [image, coming(image)]));
    const { pins } = this.#options.cache();
    for (const id of pins.ids()) if (!pinned.has(id)) pins.release(id);
  }

  async #runNow(row: WarmRow, signal: AbortSignal): Promise<WarmOutcome> {
    const request = requestOf(row);
    const [looked] = await this.warmer.plan([request], signal);
    if (looked === undefined) throw new TypeError('no plan');
    if (!('plan' in looked)) return looked;
    try {
      this.warmer.requireRoom([looked]);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      const { plan, bytes } = looked;
      const rest = { ok: false, platforms: [], fetched: 0, retryAfter: null, stale: null, waits: null };
      return { ...rest, image: row.image, digest: plan.root.digest, bytes, error: error.message };
    }
    return await this.warmer.fetch(looked, () => {}, signal);
  }

  async #note(outcome: WarmOutcome, startedAt: string, runs: readonly WarmRun[]): Promise<void> {
    const { image, digest, bytes, fetched, retryAfter } = outcome;
    const error = errorOf(outcome);
    const endedAt = this.#now();
    const before = runs.find((run) => run.image === image && run.node === this.node) ?? null;
    const wait = retryAfter === null ? RETRY_AFTER : Math.min(MOST_RETRY, Math.max(LEAST_RETRY, retryAfter * 1000));
    await this.#options.store.noteRun({
      image,
      node: this.node,
      startedAt,
      endedAt: iso(endedAt),
      error,
      retryAt: error === null ? null : iso(endedAt + wait),
      succeededAt: error === null ? iso(endedAt) : (before?.succeededAt ?? null),
      digest,
      bytes,
      fetched,
    });
  }

  #needOf(planned: readonly Planned[]): WarmNeed {
    const cache = this.#options.cache();
    const { maxBytes, used, spare } = cache.room();
    return {
      images: planned.map(({ request, bytes, here }) => ({ image: request.image.text, bytes, here })),
      missing: missingBytes(planned),
      cache: { maxBytes, used, pinned: cache.pins.totals.bytes, spare },
    };
  }

  #unpin(image: string): void {
    const { pins } = this.#options.cache();
    pins.release(image);
    pins.release(coming(image));
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Why a run counts as failed; null where it went well. An image that is here, but whose registry could not be asked, may be out of date. */
export function errorOf({ error, stale }: WarmOutcome): string | null {
  if (error !== null) return error;
  return stale === null ? null : `its registry was not asked: ${stale}`;
}

/** What a row asks for. @throws {OperatorError} where it was not written by this program */
function requestOf({ image, platforms, referrers, pin }: WarmRow): WarmRequest {
  const selection = { platforms: platforms?.map(parsePlatform) ?? null, referrers };
  return { image: parseImageName(image), selection, pin };
}

function isoOrNull(time: number): string | null {
  return Number.isFinite(time) ? iso(time) : null;
}
