import { LRUCache } from 'lru-cache';
import type { ByteSource } from '../kit/byte-source.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { type BlobHandle, CacheError, type Fetch, type OpenOptions } from './blob-cache.ts';
import { SharedFile } from './files.ts';
import { Fill, type FillContext } from './fill.ts';
import { BlobReader, type Readable } from './reader.ts';
import type { FileView } from './shared-read.ts';

/** A blob in use, complete or growing: its one file descriptor, and the number of its users. While there are any it is not evicted. */
export class OpenBlob implements Readable {
  readonly blob: FileView;
  readonly #fill: Fill | null;
  readonly #file: SharedFile | null;
  readonly #onUnused: (blob: OpenBlob) => void;
  #users = 0;

  private constructor(blob: FileView, fill: Fill | null, file: SharedFile | null, onUnused: (blob: OpenBlob) => void) {
    this.blob = blob;
    this.#fill = fill;
    this.#file = file;
    this.#onUnused = onUnused;
  }

  /** @throws {Error} the system's error, or one that says that the file's size is not the one in the index: then the file is damaged */
  static complete(path: string, size: number, onUnused: (blob: OpenBlob) => void): OpenBlob {
    const file = SharedFile.open(path, 'r');
    if (file.size === size) return new OpenBlob(completeView(path, size), null, file, onUnused);
    const found = file.size;
    file.release();
    throw new Error(`${path} has ${found} bytes instead of ${size}`);
  }

  static growing(fill: Fill, onUnused: (blob: OpenBlob) => void): OpenBlob {
    return new OpenBlob(fill, fill, null, onUnused);
  }

  get users(): number {
    return this.#users;
  }

  get file(): SharedFile | null {
    return this.#file ?? this.#fill?.file ?? null;
  }

  /** The bytes come from the second-level cache, so that no upstream has shown that the repository holds the blob. */
  get fromTier(): boolean {
    return this.#fill?.fromTier ?? false;
  }

  copyRecent(into: Uint8Array, length: number, position: number): number {
    return this.#fill?.copyRecent(into, length, position) ?? 0;
  }

  sizeKnown(): Promise<number | undefined> {
    return this.#fill?.sizeKnown() ?? Promise.resolve(this.blob.size);
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0) this.#onUnused(this);
  }

  /** Closes the descriptor, once there are no users. */
  dispose(): void {
    this.file?.release();
  }
}

function completeView(path: string, size: number): FileView {
  return { path, size, available: size, outcome: { kind: 'complete' }, onAdvance: () => {} };
}

/** The blobs in use, one `OpenBlob` for each digest, and those whose files are being removed. */
export class OpenBlobs {
  readonly #open = new Map<Digest, OpenBlob>();
  readonly #removing = new Map<Digest, Promise<void>>();

  /** The one that the next client is given. */
  find(digest: Digest): OpenBlob | null {
    return this.#open.get(digest) ?? null;
  }

  isOpen(digest: Digest): boolean {
    return this.#open.has(digest);
  }

  /** In use, or being removed: nobody else may touch its files. */
  isBusy(digest: Digest): boolean {
    return this.#open.has(digest) || this.#removing.has(digest);
  }

  /** @throws as `OpenBlob.complete` */
  openComplete(digest: Digest, path: string, size: number): OpenBlob {
    const blob = OpenBlob.complete(path, size, (unused) => this.#close(digest, unused));
    this.#open.set(digest, blob);
    return blob;
  }

  openGrowing(fill: Fill): OpenBlob {
    const blob = OpenBlob.growing(fill, (unused) => this.#close(fill.digest, unused));
    this.#open.set(fill.digest, blob);
    return blob;
  }

  /** The next client does not find this one any more; its readers go on. Does nothing where another has taken its place. */
  detach(digest: Digest, blob: OpenBlob): void {
    if (this.#open.get(digest) === blob) this.#open.delete(digest);
  }

  /** The blob's files are being removed until `removed` settles. */
  removing(digest: Digest, removed: Promise<void>): void {
    const settled = removed
      .catch(() => {})
      .then(() => {
        if (this.#removing.get(digest) === settled) this.#removing.delete(digest);
      });
    this.#removing.set(digest, settled);
  }

  /** Resolves when the removal of the blob's files, if there is one under way, is over. */
  async removed(digest: Digest): Promise<void> {
    await this.#removing.get(digest);
  }

  async allRemoved(): Promise<void> {
    await Promise.allSettled(this.#removing.values());
  }

  /** The last user has left. Where another blob has taken its place, only the descriptor is closed. */
  #close(digest: Digest, blob: OpenBlob): void {
    this.detach(digest, blob);
    blob.dispose();
  }
}

export interface HandleHooks {
  readonly onDamage: (reason: string) => void;
  readonly onRead: (bytes: number) => void;
}

/** One user's hold on an open blob. */
export class OpenBlobHandle implements BlobHandle {
  readonly digest: Digest;
  readonly #blob: OpenBlob;
  readonly #hooks: HandleHooks;
  #released = false;

  constructor(digest: Digest, blob: OpenBlob, hooks: HandleHooks) {
    this.digest = digest;
    this.#blob = blob;
    this.#hooks = hooks;
    blob.retain();
  }

  size(): Promise<number | undefined> {
    return this.#blob.sizeKnown();
  }

  get available(): number {
    return this.#blob.blob.available;
  }

  get complete(): boolean {
    return this.#blob.blob.outcome?.kind === 'complete';
  }

  get fromTier(): boolean {
    return this.#blob.fromTier;
  }

  open(range: { from: number; to?: number | undefined } = { from: 0 }, options: OpenOptions = {}): ByteSource {
    if (this.#released) throw new Error('open after release');
    return new BlobReader(this.#blob, {
      digest: this.digest,
      from: range.from,
      to: range.to,
      continueFrom: options.continueFrom,
      ...this.#hooks,
    });
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#blob.release();
  }
}

/** Digests remembered as too large to keep, so that only the first pull of each starts a fill in vain. */
const MAX_TOO_LARGE = 1_000;

export interface FillsOptions {
  readonly context: FillContext;
  readonly openBlobs: OpenBlobs;
  readonly log: Logger;
  /** Whether the blob is in the index. */
  readonly isKept: (digest: Digest) => boolean;
  readonly ended: (outcome: string) => void;
}

/** The fills under way, one for each digest, and what is remembered of those that ended. */
export class Fills {
  readonly #options: FillsOptions;
  readonly #running = new Map<Digest, { readonly fill: Fill; readonly ended: Promise<void> }>();
  readonly #tooLarge = new LRUCache<Digest, true>({ max: MAX_TOO_LARGE });
  /** Fills that no client has been given yet. */
  readonly #unclaimed = new Set<Digest>();

  constructor(options: FillsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#running.size;
  }

  isTooLarge(digest: Digest): boolean {
    return this.#tooLarge.has(digest);
  }

  /** True once for each fill: for the client that caused it, which has been counted as a miss already. */
  claim(digest: Digest): boolean {
    return this.#unclaimed.delete(digest);
  }

  /** The fill counts as a user of its blob, so that the file stays open when every client has left. */
  start(key: BlobKey, fetch: Fetch): OpenBlob {
    const fill = new Fill(key, this.#options.context);
    const blob = this.#options.openBlobs.openGrowing(fill);
    this.#unclaimed.add(key.digest);
    blob.retain();
    const ended = this.#run(fill, blob, fetch);
    this.#running.set(key.digest, { fill, ended });
    return blob;
  }

  /** Ends one that is still fetching; false where there is none. */
  stop(digest: Digest, reason: Error): boolean {
    const running = this.#running.get(digest);
    if (running === undefined || running.fill.outcome !== null) return false;
    running.fill.stop(reason);
    return true;
  }

  async stopAll(reason: Error): Promise<void> {
    const running = [...this.#running.values()];
    for (const { fill } of running) fill.stop(reason);
    await Promise.allSettled(running.map(({ ended }) => ended));
  }

  async #run(fill: Fill, blob: OpenBlob, fetch: Fetch): Promise<void> {
    const { openBlobs, isKept } = this.#options;
    const { digest } = fill;
    try {
      await openBlobs.removed(digest);
      const running = fill.run(fetch);
      fill.onEnd(() => this.#ended(fill, blob, running));
      await running;
    } finally {
      if (this.#running.get(digest)?.fill === fill) {
        this.#running.delete(digest);
        this.#unclaimed.delete(digest);
      }
      // Complete but not kept: the next client must not find it.
      if (!isKept(digest)) openBlobs.detach(digest, blob);
      blob.release();
    }
  }

  /** Once a fill is known to have failed, the next client starts a new one, which waits until the old one's work on the files is over. */
  #ended(fill: Fill, blob: OpenBlob, running: Promise<void>): void {
    const { openBlobs, log, ended } = this.#options;
    const { digest, outcome } = fill;
    ended(outcome?.kind ?? 'failed');
    if (outcome?.kind !== 'failed') return;
    openBlobs.detach(digest, blob);
    openBlobs.removing(digest, running);
    if (outcome.error instanceof CacheError && outcome.error.reason === 'too-large') {
      this.#tooLarge.set(digest, true);
    } else if (!(outcome.error instanceof CacheError)) {
      log.warn({ digest, err: outcome.error }, 'a fill failed');
    }
  }
}
