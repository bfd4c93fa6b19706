/** Bytes that are sent from where they lie, without a copy; they stay as they are until released. */
export interface Lent {
  readonly bytes: Uint8Array;
  /** To be called once, when nothing reads from them any more. */
  release(): void;
}

/** A reader is sent so much at a time, and the disk as much: large against what a write or a wake-up costs, little enough for hundreds of fills. */
const BLOCK_BYTES = 128 * 1024;
/** Blocks that readers find: the one that is being filled, and those for readers that are a little behind. */
const MOST_FOUND = 3;
/** Blocks beside those that wait for the disk or for slow readers: as many as may be queued for the disk. Where readers hold them all, whoever comes reads the file. */
const MOST_BUSY = 4;

interface Block {
  readonly memory: Buffer;
  /** The bytes `[from, to)` of the file are there. */
  from: number;
  to: number;
  /** Readers that send from it. */
  readers: number;
}

/**
 * The bytes of a growing file that came last without a gap, each copied once, out of the network's buffer: it is written to the disk from here, and
 * readers at the end of the file are given it from here, by reference. The network's buffers are free again at once; kept as they are, they
 * would outlive two young generations, and only a full collection would free them.
 */
export class FreshBytes {
  /** Without a gap, the last one being filled. */
  readonly #blocks: Block[] = [];
  /** Those that nobody finds any more: they are filled anew once they are written and no reader sends from them. */
  #busy: Block[] = [];
  readonly #isWritten: (from: number, to: number) => boolean;

  /** @param isWritten whether bytes of the file are on the disk, and their block may be filled anew */
  constructor(isWritten: (from: number, to: number) => boolean) {
    this.#isWritten = isWritten;
  }

  /** Takes a copy; bytes that do not continue the last ones replace them. @returns where it lies, in order, until it is written */
  append(offset: number, bytes: Uint8Array): Uint8Array[] {
    if (offset !== this.#blocks.at(-1)?.to) this.free();
    const copies: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; ) {
      const block = this.#open(offset + at);
      const start = block.to - block.from;
      const copy = block.memory.subarray(start, Math.min(BLOCK_BYTES, start + bytes.length - at));
      copy.set(bytes.subarray(at, at + copy.length));
      block.to += copy.length;
      at += copy.length;
      copies.push(copy);
    }
    return copies;
  }

  /** At most `length` of the bytes at `position`; null where none of them are here. */
  lend(position: number, length: number): Lent | null {
    const block = this.#blocks.find(({ from, to }) => position >= from && position < to);
    if (block === undefined || length <= 0 || this.#heldByReaders() >= MOST_BUSY) return null;
    const start = position - block.from;
    const bytes = block.memory.subarray(start, Math.min(block.to - block.from, start + length));
    block.readers++;
    return {
      bytes,
      release: () => {
        block.readers--;
      },
    };
  }

  /** Lets go of all; what readers hold stays theirs. */
  free(): void {
    this.#busy = [...this.#busy, ...this.#blocks.splice(0)].filter(({ readers }) => readers > 0);
  }

  /** The block with room for the byte at an offset. */
  #open(offset: number): Block {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.to - last.from < BLOCK_BYTES) return last;
    if (this.#blocks.length >= MOST_FOUND) this.#busy.push(...this.#blocks.splice(0, 1));
    const free = this.#busy.findIndex(({ from, to, readers }) => readers === 0 && this.#isWritten(from, to));
    const [again] = free === -1 ? [] : this.#busy.splice(free, 1);
    // Of more than are to be kept the oldest is left to the disk, and its memory freed with what is queued for it.
    const waiting = this.#busy.length > MOST_BUSY ? this.#busy.findIndex(({ readers }) => readers === 0) : -1;
    if (waiting !== -1) this.#busy.splice(waiting, 1);
    const memory = again?.memory ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
    const block = { memory, from: offset, to: offset, readers: 0 };
    this.#blocks.push(block);
    return block;
  }

  #heldByReaders(): number {
    return this.#busy.filter(({ readers }) => readers > 0).length;
  }
}
