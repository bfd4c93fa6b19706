import { sleep, steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import { hashFile } from './files.ts';
import type { BlobRow, ManifestRow } from './index-port.ts';
import type { MaintenanceContext } from './maintenance.ts';

/** What is looked at next waits no longer than this, ms, however little there is. */
const LONGEST_PAUSE = 60_000;
/** … and no shorter, so that a short period does not take the disk for itself. */
const SHORTEST_PAUSE = 10;
/** Between two steps of one file, ms; 256 KiB each, so some 50 MB/s at the most … */
const STEP_PAUSE = 5;
/** … and while clients are served or blobs fetched. */
const BUSY_PAUSE = 50;
/** Manifests looked at in one go: a few KiB each. */
const MANIFESTS = 16;
/** Where looking failed for a reason that says nothing about the content (too many open files), it is tried again after this, ms. */
const AFTER_FAILURE = 60_000;

/**
 * Looks at everything that is kept, over and over: whether its bytes are still those of its digest. Paced so that all is seen once in
 * `period` ms and something every minute; how far it has come is kept in the index. What is damaged is dropped, and fetched anew when it
 * is asked for.
 */
export class Scrub {
  readonly #context: MaintenanceContext;
  readonly #period: number;
  readonly #abort = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  constructor(context: MaintenanceContext, period: number) {
    this.#context = context;
    this.#period = period;
  }

  start(): void {
    this.#running = Promise.all([this.#walk(() => this.#nextBlob()), this.#walk(async () => this.#nextManifests())]);
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  /** One step after the other; each looks at something and returns its share of all that there is, and the pause after it is that share of the period. */
  async #walk(step: () => Promise<number>): Promise<void> {
    const { signal } = this.#abort;
    let pause = Math.min(LONGEST_PAUSE, this.#period);
    while (!signal.aborted) {
      try {
        await sleep(pause, signal, { ref: false });
        const share = await step();
        pause = Math.max(SHORTEST_PAUSE, Math.min(LONGEST_PAUSE, this.#period * share));
      } catch (error) {
        if (signal.aborted) return;
        this.#context.log.warn({ err: error }, 'looking for damage in the cache failed; it is tried again');
        pause = AFTER_FAILURE;
      }
    }
  }

  async #nextBlob(): Promise<number> {
    const { index, busy } = this.#context;
    const [row] = index.blobsAfter(index.scrubPlace('blobs'), 1);
    const { blobs, bytes } = index.totals();
    if (row === undefined) {
      index.putScrubPlace('blobs', null);
      return blobs === 0 ? 1 : 0;
    }
    if (!busy(row.digest)) await checkBlob(this.#context, row, this.#abort.signal, () => this.#pause());
    index.putScrubPlace('blobs', row.digest);
    // Half by number, half by bytes: neither a million small ones nor a few large ones come all at once.
    return (1 / Math.max(1, blobs) + row.size / Math.max(1, bytes)) / 2;
  }

  #nextManifests(): number {
    const { index } = this.#context;
    const rows = index.manifestsAfter(index.scrubPlace('manifests'), MANIFESTS);
    checkManifests(this.#context, rows);
    const last = rows.length < MANIFESTS ? null : (rows.at(-1)?.digest ?? null);
    index.putScrubPlace('manifests', last);
    return MANIFESTS / Math.max(MANIFESTS, index.totals().manifests);
  }

  /** Leaves the disk to the clients. */
  async #pause(): Promise<void> {
    const { traffic } = this.#context;
    const before = traffic();
    await sleep(STEP_PAUSE, this.#abort.signal);
    if (traffic() !== before) await sleep(BUSY_PAUSE, this.#abort.signal);
  }
}

/**
 * Reads a kept blob whole. One that is damaged or missing is dropped; returns why, or null where it is right, or was dropped or replaced meanwhile.
 * @throws where reading failed for a reason that says nothing about the blob
 */
export async function checkBlob(
  { layout, index, dropDamaged }: MaintenanceContext,
  row: BlobRow,
  signal: AbortSignal,
  pause?: () => Promise<void>,
): Promise<string | null> {
  const reason = await wrongWith(layout.blob(row.digest), row, signal, pause);
  const now = index.blob(row.digest);
  if (now === null || now.created !== row.created) return null;
  if (reason === null) index.markChecked(row.digest, steadyNow());
  else await dropDamaged(now, reason);
  return reason;
}

/** Drops the manifests whose bytes are not those of their digest; returns their digests. */
export function checkManifests(
  { index, manifestsDamaged }: MaintenanceContext,
  rows: readonly ManifestRow[],
): Digest[] {
  const wrong = rows.filter(({ digest, body }) => !isManifestDigest(body, digest)).map(({ digest }) => digest);
  if (wrong.length === 0) return [];
  index.removeManifests(wrong);
  manifestsDamaged(wrong);
  return wrong;
}

async function wrongWith(
  path: string,
  row: BlobRow,
  signal: AbortSignal,
  pause?: () => Promise<void>,
): Promise<string | null> {
  try {
    const { right, size } = await hashFile(path, row.digest, signal, pause);
    if (size !== row.size) return `it has ${size} bytes instead of ${row.size}`;
    return right ? null : 'its bytes are wrong';
  } catch (error) {
    signal.throwIfAborted();
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'its file is gone';
    // A blob that the disk cannot read is lost. Any other failure (such as too many open files) says nothing about the blob.
    if (code === 'EIO') return message;
    throw error;
  }
}
