import { LRUCache } from 'lru-cache';
import type { ByteSource } from '../kit/byte-source.ts';
import { steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import type { BlobHandle, OpenOptions } from './blob-cache.ts';
import { type PartialName, SharedFile } from './files.ts';
import type { Fill } from './fill.ts';
import type { Lent } from './fresh-bytes.ts';
import type { BlobRow } from './index-port.ts';
import { BlobReader, type Readable } from './reader.ts';
import { type Check, type FileView, readableFrom } from './shared-read.ts';
import type { Asked, Want } from './wishes.ts';

/** A blob that is read whole is hashed on the way where it was not checked for so long, ms: a disk forgets slowly. */
const CHECKED_FOR = 24 * 60 * 60 * 1000;

/** A blob in use, complete or growing: its one file descriptor, and the number of its users. While there are any it is not evicted. */
export class OpenBlob implements Readable {
  readonly blob: FileView;
  /** @see BlobHandle.since */
  readonly since: number;
  readonly #fill: Fill | null;
  readonly #file: SharedFile | null;
  readonly #onUnused: (blob: OpenBlob) => void;
  /** When its bytes were last seen to be right, ms; Infinity while that is being looked at. */
  #checkedAt: number;
  #users = 0;

  private constructor(options: {
    blob: FileView;
    fill: Fill | null;
    file: SharedFile | null;
    since: number;
    checkedAt: number;
    onUnused: (blob: OpenBlob) => void;
  }) {
    this.blob = options.blob;
    this.since = options.since;
    this.#fill = options.fill;
    this.#file = options.file;
    this.#checkedAt = options.checkedAt;
    this.#onUnused = options.onUnused;
  }

  /** @throws {Error} the system's error, or one that says that the file's size is not the one in the index: then the file is damaged */
  static complete(
    path: string,
    { size, created, checkedAt: checked }: Pick<BlobRow, 'size' | 'created' | 'checkedAt'>,
    rightSince: number | undefined,
    onUnused: (blob: OpenBlob) => void,
  ): OpenBlob {
    const file = SharedFile.open(path, 'r');
    const found = file.stat;
    if (found.size === size) {
      const blob = completeView(path, size);
      // A file that was written to since is no longer known to be right.
      const sure = found.mtimeMs <= checked || found.mtimeMs === rightSince;
      const checkedAt = sure ? checked : Number.NEGATIVE_INFINITY;
      return new OpenBlob({ blob, fill: null, file, since: created, checkedAt, onUnused });
    }
    file.release();
    throw new Error(`${path} has ${found.size} bytes instead of ${size}`);
  }

  static growing(fill: Fill, onUnused: (blob: OpenBlob) => void): OpenBlob {
    // Its digest is checked before anything is kept.
    const now = steadyNow();
    return new OpenBlob({ blob: fill, fill, file: null, since: now, checkedAt: now, onUnused });
  }

  /** @see BlobHandle.repository */
  get repository(): string | null {
    return this.#fill?.key.repository ?? null;
  }

  /** The check that a reader of all of it is to make; undefined where it was made not long ago, or is being made. */
  check(onRight: (at: number) => void): Check | undefined {
    const before = this.#checkedAt;
    if (this.blob.outcome?.kind !== 'complete' || steadyNow() - before < CHECKED_FOR) return undefined;
    this.#checkedAt = Number.POSITIVE_INFINITY;
    let ended = false;
    const end = (at: number): void => {
      if (ended) return;
      ended = true;
      this.#checkedAt = at;
    };
    return {
      right: () => {
        end(steadyNow());
        onRight(this.#checkedAt);
      },
      abandoned: () => end(before),
    };
  }

  get readers(): number {
    // The first user of a growing blob is its fill.
    return this.#fill?.outcome === null ? this.#users - 1 : this.#users;
  }

  get file(): SharedFile | null {
    return this.#file ?? this.#fill?.file ?? null;
  }

  lend(position: number, length: number): Lent | null {
    return this.#fill?.lend(position, length) ?? null;
  }

  sizeKnown(): Promise<number | undefined> {
    return this.#fill?.sizeKnown() ?? Promise.resolve(this.blob.size);
  }

  want(asked: Asked): Want | undefined {
    return this.#fill?.want(asked);
  }

  /** @see BlobHandle.coming */
  async coming(from: number | undefined): Promise<void> {
    if (from === undefined || this.blob.writtenFrom(from) === from) await this.#fill?.goesOn();
  }

  /** The fill goes on in this client's turn, too. */
  join(client: string): void {
    this.#fill?.askers.join(client);
  }

  retain(): void {
    this.#users++;
    // The first user of a growing blob is its fill.
    if (this.#users === 2) this.#fill?.readership.set(true);
  }

  release(): void {
    this.#users--;
    if (this.#users === 1 && this.#fill?.outcome === null) this.#fill.readership.set(false);
    if (this.#users === 0) this.#onUnused(this);
  }

  /** Closes the descriptor, once there are no users. */
  dispose(): void {
    this.file?.release();
  }
}

function completeView(path: string, size: number): FileView {
  return {
    path,
    size,
    tail: Number.POSITIVE_INFINITY,
    whole: true,
    outcome: { kind: 'complete' },
    writtenFrom: (offset) => Math.max(offset, size),
    onReadable: () => () => {},
  };
}

/** Kept blobs remembered with the time of their file; some 150 bytes each. */
const MAX_RIGHT = 10_000;

/** A file of the cache: whole and verified content is one file for each digest, growing content one for each registry that it comes from. */
export type FileId = Digest | PartialName;

/** The blobs in use, one `OpenBlob` for each file, and those whose files are being removed. */
export class OpenBlobs {
  readonly #open = new Map<FileId, OpenBlob>();
  readonly #removing = new Map<FileId, Promise<void>>();
  /** When files were last written to that were found right afterwards, ms, where the clock of the file system is not ours. */
  readonly #rightSince = new LRUCache<Digest, number>({ max: MAX_RIGHT });

  /** The kept file was read whole, and is right. */
  right(digest: Digest, blob: OpenBlob): void {
    const { file } = blob;
    if (file !== null && this.#open.get(digest) === blob) this.#rightSince.set(digest, file.stat.mtimeMs);
  }

  /** The one that the next client is given. */
  find(id: FileId): OpenBlob | null {
    return this.#open.get(id) ?? null;
  }

  /** One that is whole and in use, and found by its digest; null where there is none. */
  complete(digest: Digest): { readonly size: number | undefined; readonly since: number } | null {
    const open = this.#open.get(digest);
    return open?.blob.outcome?.kind === 'complete' ? { size: open.blob.size, since: open.since } : null;
  }

  isOpen(id: FileId): boolean {
    return this.#open.has(id);
  }

  /** In use, or being removed: nobody else may touch its file. */
  isBusy(id: FileId): boolean {
    return this.#open.has(id) || this.#removing.has(id);
  }

  /** @throws as `OpenBlob.complete` */
  openComplete(path: string, row: BlobRow): OpenBlob {
    const { digest } = row;
    const rightSince = this.#rightSince.get(digest);
    const blob = OpenBlob.complete(path, row, rightSince, (unused) => this.#close(digest, unused));
    this.#open.set(digest, blob);
    return blob;
  }

  openGrowing(fill: Fill): OpenBlob {
    const blob = OpenBlob.growing(fill, (unused) => {
      // Where it was kept meanwhile, it is found by its digest alone.
      this.detach(fill.digest, unused);
      this.#close(fill.name, unused);
    });
    this.#open.set(fill.name, blob);
    return blob;
  }

  /** A growing blob has proved right: clients of every registry that may have it find it. One that was kept before stays in its place. */
  verified(fill: Fill, blob: OpenBlob): void {
    this.detach(fill.name, blob);
    if (!this.#open.has(fill.digest)) this.#open.set(fill.digest, blob);
  }

  /** The next client does not find this one any more; its readers go on. Does nothing where another has taken its place. */
  detach(id: FileId, blob: OpenBlob): void {
    if (this.#open.get(id) === blob) this.#open.delete(id);
  }

  /** The file is being removed until `removed` settles. */
  removing(id: FileId, removed: Promise<void>): void {
    const settled = removed
      .catch(() => {})
      .then(() => {
        if (this.#removing.get(id) === settled) this.#removing.delete(id);
      });
    this.#removing.set(id, settled);
  }

  /** Resolves when the removal of the file, if there is one under way, is over. */
  async removed(id: FileId): Promise<void> {
    await this.#removing.get(id);
  }

  async allRemoved(): Promise<void> {
    await Promise.allSettled(this.#removing.values());
  }

  /** The last user has left. Where another blob has taken its place, only the descriptor is closed. */
  #close(id: FileId, blob: OpenBlob): void {
    this.detach(id, blob);
    blob.dispose();
  }
}

export interface HandleHooks {
  readonly onDamage: (reason: string) => void;
  readonly onRead: (bytes: number) => void;
  /** All of it was read, and is what its digest says. */
  readonly onChecked: (at: number) => void;
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
    return readableFrom(this.#blob.blob, 0, true);
  }

  get complete(): boolean {
    return this.#blob.blob.outcome?.kind === 'complete';
  }

  get knownSize(): number | undefined {
    return this.#blob.blob.size;
  }

  get since(): number {
    return this.#blob.since;
  }

  get repository(): string | null {
    return this.#blob.repository;
  }

  open(range: { from: number; to?: number | undefined } = { from: 0 }, options: OpenOptions = {}): ByteSource {
    if (this.#released) throw new Error('open after release');
    const { from, to } = range;
    const { openEnded = false, wholeReply, continueFrom, byAnother } = options;
    const { onChecked, ...hooks } = this.#hooks;
    const want = this.#blob.want({ from, to, openEnded });
    const all = from === 0 && (to === undefined || to === this.knownSize);
    const check = all ? this.#blob.check(onChecked) : undefined;
    return new BlobReader(this.#blob, {
      digest: this.digest,
      from,
      to,
      continueFrom,
      byAnother,
      wholeReply,
      want,
      check,
      ...hooks,
    });
  }

  coming(from: number | undefined): Promise<void> {
    return this.#blob.coming(from);
  }

  hold(): BlobHandle {
    if (this.#released) throw new Error('hold after release');
    return new OpenBlobHandle(this.digest, this.#blob, this.#hooks);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#blob.release();
  }
}
