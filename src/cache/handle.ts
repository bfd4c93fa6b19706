import type { ByteSource } from '../kit/byte-source.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobHandle, OpenOptions } from './blob-cache.ts';
import { BlobReader } from './reader.ts';
import type { Resident } from './resident.ts';

export interface HandleHooks {
  readonly onDamage: (reason: string) => void;
  readonly onRead: (bytes: number) => void;
}

/** One user's hold on a blob. */
export class Handle implements BlobHandle {
  readonly digest: Digest;
  readonly #resident: Resident;
  readonly #hooks: HandleHooks;
  #released = false;

  constructor(digest: Digest, resident: Resident, hooks: HandleHooks) {
    this.digest = digest;
    this.#resident = resident;
    this.#hooks = hooks;
    resident.retain();
  }

  size(): Promise<number | undefined> {
    return this.#resident.sizeKnown();
  }

  get available(): number {
    return this.#resident.blob.available;
  }

  get complete(): boolean {
    return this.#resident.blob.outcome?.kind === 'complete';
  }

  open(range: { from: number; to?: number | undefined } = { from: 0 }, options: OpenOptions = {}): ByteSource {
    if (this.#released) throw new Error('open after release');
    return new BlobReader(this.#resident, {
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
    this.#resident.release();
  }
}
