import { createHash, type Hash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { type Digest, digestAlgorithm, digestHex } from '../oci/names.ts';
import { VerifiedSource } from '../oci/transfer.ts';
import { CacheError } from './blob-cache.ts';
import type { SharedFile } from './files.ts';
import type { Lent } from './fresh-bytes.ts';
import {
  type Check,
  type FilePlace,
  type FileSource,
  type FileView,
  readableFrom,
  type SharedRead,
} from './shared-read.ts';
import type { Want } from './wishes.ts';

/** What a reader reads: a blob of this process's cache, or the view of one that another process fills. */
export interface Readable {
  readonly blob: FileView;
  /** Those who read it, or are about to: bytes are shared among them. A fill is none of them. */
  readonly readers: number;
  /** Open as soon as any byte is available. */
  readonly file: SharedFile | null;
  /** At most `length` of the bytes at `position`, from memory; null where they are not there (any more). Left out where none are kept there. */
  lend?(position: number, length: number): Lent | null;
  /** Counts one more user, for whom the file stays open. */
  retain(): void;
  release(): void;
}

/** How much of the file is read at once when what was read from it has to be hashed. */
const HASH_STEP = 256 * 1024;

export interface ReaderOptions {
  /** To verify the rest by, should it come from the upstream; undefined where it is not known. */
  readonly digest: Digest | undefined;
  readonly from: number;
  readonly to: number | undefined;
  readonly continueFrom: ((offset: number) => Promise<ByteSource>) | undefined;
  /** What fails the fill says nothing of this reader's repository: see `OpenOptions`. */
  readonly byAnother?: boolean | undefined;
  /** Called where the file is not what was put there. */
  readonly onDamage: (reason: string) => void;
  readonly onRead: (bytes: number) => void;
  /** One reply carries the whole content; left out where `from` and `to` say so. */
  readonly wholeReply?: boolean | undefined;
  /** The blob was not checked for long: it is hashed as it is read, and its end given only if it is what it was. For a reader of all of it. */
  readonly check?: Check | undefined;
  /** Says to the fill what is read; undefined where there is none, or it fetches everything in order. */
  readonly want?: Want | undefined;
}

/**
 * Reads a blob from an offset of its own, as far as its bytes are there, and waits for more. Where the cache fails (not the upstream), it continues
 * from the upstream at the same offset.
 */
export class BlobReader implements FileSource {
  readonly #readable: Readable;
  readonly #options: ReaderOptions;
  readonly #want: Want | undefined;
  /** Null where nothing is checked, or no longer. */
  #hash: Hash | null;
  #offset: number;
  /** Ends the wait for bytes. */
  #wake: (() => void) | null = null;
  /** The upstream's body, once the cache has failed. */
  #continuation: ByteSource | null = null;
  #closed = false;

  constructor(readable: Readable, options: ReaderOptions) {
    this.#readable = readable;
    this.#options = options;
    this.#offset = options.from;
    this.#want = options.want;
    const { check, digest } = options;
    this.#hash = check === undefined || digest === undefined ? null : createHash(digestAlgorithm(digest));
    readable.retain();
  }

  get length(): number | undefined {
    const end = this.#end();
    return end === undefined ? undefined : Math.max(0, end - this.#options.from);
  }

  async pull(into: Uint8Array): Promise<number> {
    const { blob } = this.#readable;
    for (;;) {
      if (this.#closed) throw new TruncatedError('the source is closed');
      const end = this.#end();
      if (end !== undefined && this.#offset >= end) return 0;
      if (this.#continuation !== null) return this.#pullContinuation(this.#continuation, into, end);
      const readable = readableFrom(blob, this.#offset, this.#wholeReply);
      const length = Math.min(into.length, Math.min(readable, end ?? readable) - this.#offset);
      if (length > 0) {
        const count = await this.#read(into, length);
        if (count > 0) return count;
      } else if (blob.outcome === null) await this.ready();
      else if (blob.outcome.kind === 'complete') return 0;
      else await this.#continueFromUpstream(blob.outcome.error);
    }
  }

  async ready(): Promise<boolean> {
    const { blob } = this.#readable;
    while (!this.#closed && this.#continuation === null && this.#offset !== this.#end()) {
      if (readableFrom(blob, this.#offset, this.#wholeReply) > this.#offset) return true;
      if (blob.outcome !== null) return false;
      this.#want?.waits(this.#offset);
      await this.#wait();
    }
    return false;
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => {
      const end = this.#readable.blob.onReadable(this.#offset, this.#wholeReply, resolve);
      this.#wake = () => {
        end();
        resolve();
      };
    });
  }

  place(): FilePlace | null {
    // What is checked has to come through here.
    if (this.#continuation !== null || this.#closed || this.#hash !== null) return null;
    const { blob, readers } = this.#readable;
    const readable = readableFrom(blob, this.#offset, this.#wholeReply);
    const end = Math.min(readable, this.#end() ?? readable);
    return { file: this.#readable, position: this.#offset, end, shared: readers > 1 };
  }

  lend(most: number): Lent | null {
    const place = this.place();
    if (place === null) return null;
    const lent = this.#readable.lend?.(place.position, Math.min(most, place.end - place.position)) ?? null;
    if (lent !== null) this.#advance(lent.bytes.length);
    return lent;
  }

  pass(count: number): void {
    this.#advance(count);
  }

  share(): SharedRead | null {
    if (this.#continuation !== null || this.#closed) return null;
    const wholeReply = this.#wholeReply;
    // Whoever reads it checks it.
    this.#hash = null;
    return { ...this.#options, view: this.#readable.blob, from: this.#offset, wholeReply, want: this.#want };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.check?.abandoned();
    this.#hash = null;
    this.#want?.close();
    this.#wake?.();
    this.#readable.release();
    await this.#continuation?.close();
  }

  #end(): number | undefined {
    const { to } = this.#options;
    const { size } = this.#readable.blob;
    return to === undefined ? size : Math.min(to, size ?? to);
  }

  /** The end of what one reply carries from the first byte on waits for the digest. */
  get #wholeReply(): boolean {
    const { wholeReply, from, to } = this.#options;
    if (wholeReply !== undefined) return wholeReply;
    return from === 0 && (to === undefined || to >= (this.#readable.blob.size ?? Number.POSITIVE_INFINITY));
  }

  #advance(count: number): void {
    this.#offset += count;
    this.#options.onRead(count);
    this.#want?.moved(this.#offset);
  }

  async #read(into: Uint8Array, length: number): Promise<number> {
    const { file } = this.#readable;
    let reason = 'it is shorter than it was';
    try {
      const count = (await file?.read(into, length, this.#offset)) ?? 0;
      if (count > 0) {
        if (this.#hash === null || this.#areRight(this.#hash, into.subarray(0, count))) {
          this.#advance(count);
          return count;
        }
        reason = 'its bytes are not what they were';
      }
    } catch (error) {
      reason = (error as Error).message;
    }
    this.#options.onDamage(reason);
    await this.#continueFromUpstream(new CacheError('damaged', `${this.#readable.blob.path}: ${reason}`));
    return 0;
  }

  /** False where these are the last bytes, and the blob is not what it was: the client must not get the end of it. */
  #areRight(hash: Hash, bytes: Uint8Array): boolean {
    hash.update(bytes);
    const { digest, check } = this.#options;
    if (digest === undefined || this.#offset + bytes.length !== this.#end()) return true;
    this.#hash = null;
    const right = hash.digest('hex') === digestHex(digest);
    if (right) check?.right();
    return right;
  }

  /**
   * Where the cache failed, or the fill through another repository, the upstream gives the rest. Where it failed this repository, there is nothing to
   * go on with.
   */
  async #continueFromUpstream(error: Error): Promise<void> {
    const { continueFrom, byAnother = false } = this.#options;
    if (continueFrom === undefined || !(byAnother || error instanceof CacheError)) {
      throw new TruncatedError(`the rest will not come: ${error.message}`, { cause: error });
    }
    let source: ByteSource;
    try {
      source = await this.#openUpstream(continueFrom);
    } catch (cause) {
      throw new TruncatedError('the upstream would not go on where the cache failed', { cause });
    }
    this.#hash = null;
    if (this.#closed) await source.close();
    else this.#continuation = source;
  }

  /** A reader of the whole blob gets the end of it only if the digest is right, from the upstream too. */
  async #openUpstream(continueFrom: (offset: number) => Promise<ByteSource>): Promise<ByteSource> {
    const { digest, from, to } = this.#options;
    const all = from === 0 && (to === undefined || to === this.#readable.blob.size);
    if (digest === undefined || !all) return continueFrom(this.#offset);
    const hash = createHash(digestAlgorithm(digest));
    const buffer = this.#offset === 0 ? null : Buffer.allocUnsafe(HASH_STEP);
    for (let at = 0; buffer !== null && at < this.#offset; ) {
      const count = (await this.#readable.file?.read(buffer, Math.min(HASH_STEP, this.#offset - at), at)) ?? 0;
      if (count === 0) throw new Error('what came from the cache cannot be read again');
      hash.update(buffer.subarray(0, count));
      at += count;
    }
    return new VerifiedSource(await continueFrom(this.#offset), digest, { before: hash });
  }

  async #pullContinuation(source: ByteSource, into: Uint8Array, end: number | undefined): Promise<number> {
    const target = end === undefined ? into : into.subarray(0, Math.min(into.length, end - this.#offset));
    const count = await source.pull(target);
    if (count === 0 && end !== undefined) throw new TruncatedError('the upstream ended early');
    this.#offset += count;
    return count;
  }
}
