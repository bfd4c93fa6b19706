import { createHash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { type Digest, digestAlgorithm } from '../oci/digest.ts';
import { VerifiedSource } from '../oci/verified-source.ts';
import { CacheError } from './cache-error.ts';
import type { SharedFile } from './shared-file.ts';
import type { FilePlace, FileSource, FileView, SharedRead } from './shared-read.ts';

/** What a reader reads: a blob of this process's cache, or the view of one that another process fills. */
export interface Readable {
  readonly blob: FileView;
  /** Who reads it, or is about to. */
  readonly users: number;
  /** Open as soon as anything is available. */
  readonly file: SharedFile | null;
  /** Copies what it can of the bytes at `position` from memory; left out where none are kept there. */
  copyRecent?(into: Uint8Array, length: number, position: number): number;
  /** Keeps both for one more user. */
  retain(): void;
  release(): void;
}

/** How much of the file is read back at once, when what came from it has to be hashed. */
const BACK_STEP = 256 * 1024;

export interface ReaderOptions {
  /** Undefined where nothing is known to check the rest by, should it come past the cache. */
  readonly digest: Digest | undefined;
  readonly from: number;
  readonly to: number | undefined;
  readonly continueFrom: ((offset: number) => Promise<ByteSource>) | undefined;
  /** The kept file is not what was kept. */
  readonly onDamage: (reason: string) => void;
  readonly onRead: (bytes: number) => void;
}

/** Reads a blob from its own offset, behind its watermark; goes on past the cache where the cache fails it. */
export class BlobReader implements FileSource {
  readonly #resident: Readable;
  readonly #options: ReaderOptions;
  #offset: number;
  #past: ByteSource | null = null;
  #closed = false;

  constructor(resident: Readable, options: ReaderOptions) {
    this.#resident = resident;
    this.#options = options;
    this.#offset = options.from;
    resident.retain();
  }

  get length(): number | undefined {
    const end = this.#end();
    return end === undefined ? undefined : Math.max(0, end - this.#options.from);
  }

  async pull(into: Uint8Array): Promise<number> {
    const { blob } = this.#resident;
    for (;;) {
      if (this.#closed) throw new TruncatedError('the source is closed');
      const end = this.#end();
      if (end !== undefined && this.#offset >= end) return 0;
      if (this.#past !== null) return this.#pullPast(this.#past, into, end);
      const length = Math.min(into.length, Math.min(blob.available, end ?? blob.available) - this.#offset);
      if (length > 0) {
        const count = await this.#read(into, length);
        if (count > 0) return count;
      } else if (blob.outcome === null) await this.ready();
      else if (blob.outcome.kind === 'complete') return 0;
      else await this.#goPast(blob.outcome.error);
    }
  }

  async ready(): Promise<boolean> {
    const { blob } = this.#resident;
    while (!this.#closed && this.#past === null && this.#offset !== this.#end()) {
      if (this.#offset < blob.available) return true;
      if (blob.outcome !== null) return false;
      await new Promise<void>((resolve) => blob.onAdvance(resolve));
    }
    return false;
  }

  place(): FilePlace | null {
    if (this.#past !== null || this.#closed) return null;
    const { blob, users } = this.#resident;
    const end = Math.min(blob.available, this.#end() ?? blob.available);
    return { file: this.#resident, position: this.#offset, end, shared: users > 1 };
  }

  pass(count: number): void {
    this.#offset += count;
    this.#options.onRead(count);
  }

  share(): SharedRead | null {
    if (this.#past !== null || this.#closed) return null;
    return { ...this.#options, view: this.#resident.blob, from: this.#offset };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#resident.release();
    await this.#past?.close();
  }

  #end(): number | undefined {
    const { to } = this.#options;
    const { size } = this.#resident.blob;
    return to === undefined ? size : Math.min(to, size ?? to);
  }

  async #read(into: Uint8Array, length: number): Promise<number> {
    const { file } = this.#resident;
    let reason = 'it is shorter than it was';
    try {
      const near = this.#resident.copyRecent?.(into, length, this.#offset) ?? 0;
      const count = near > 0 ? near : ((await file?.read(into, length, this.#offset)) ?? 0);
      if (count > 0) {
        this.#offset += count;
        this.#options.onRead(count);
        return count;
      }
    } catch (error) {
      reason = (error as Error).message;
    }
    this.#options.onDamage(reason);
    await this.#goPast(new CacheError('damaged', `${this.#resident.blob.path}: ${reason}`));
    return 0;
  }

  /** The cache failed, so the upstream gives the rest. What the upstream itself broke off, nobody can go on with. */
  async #goPast(error: Error): Promise<void> {
    const { continueFrom } = this.#options;
    if (!(error instanceof CacheError) || continueFrom === undefined) {
      throw new TruncatedError(`the rest will not come: ${error.message}`, { cause: error });
    }
    let source: ByteSource;
    try {
      source = await this.#checked(continueFrom);
    } catch (cause) {
      throw new TruncatedError('the upstream would not go on where the cache failed', { cause });
    }
    if (this.#closed) await source.close();
    else this.#past = source;
  }

  /** Who reads the whole blob gets the end of it only if the digest is right, this way too. */
  async #checked(continueFrom: (offset: number) => Promise<ByteSource>): Promise<ByteSource> {
    const { digest, from, to } = this.#options;
    if (digest === undefined || from !== 0 || to !== undefined) return continueFrom(this.#offset);
    const hash = createHash(digestAlgorithm(digest));
    const buffer = this.#offset === 0 ? null : Buffer.allocUnsafe(BACK_STEP);
    for (let at = 0; buffer !== null && at < this.#offset; ) {
      const count = (await this.#resident.file?.read(buffer, Math.min(BACK_STEP, this.#offset - at), at)) ?? 0;
      if (count === 0) throw new Error('what came from the cache cannot be read again');
      hash.update(buffer.subarray(0, count));
      at += count;
    }
    return new VerifiedSource(await continueFrom(this.#offset), digest, hash);
  }

  async #pullPast(source: ByteSource, into: Uint8Array, end: number | undefined): Promise<number> {
    const room = end === undefined ? into : into.subarray(0, Math.min(into.length, end - this.#offset));
    const count = await source.pull(room);
    if (count === 0 && end !== undefined) throw new TruncatedError('the upstream ended early');
    this.#offset += count;
    return count;
  }
}
