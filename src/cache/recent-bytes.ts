/** How many bytes are remembered: readers at the tip of a growing blob want them next, and are spared the way through a thread. */
const SIZE = 128 * 1024;

/**
 * The bytes that were appended last, copied into memory of its own: what came from the network hangs on nothing then, and its memory is
 * free again as soon as it is written.
 */
export class RecentBytes {
  #ring: Buffer | null = null;
  /** What is remembered; a byte lies at its offset modulo the size of the ring. */
  #from = 0;
  #to = 0;

  /** Bytes that do not follow on the last ones take their place. */
  append(offset: number, bytes: Uint8Array): void {
    this.#ring ??= Buffer.allocUnsafeSlow(SIZE);
    if (offset !== this.#to) this.#from = offset;
    this.#to = offset + bytes.length;
    this.#from = Math.max(this.#from, this.#to - SIZE);
    for (let at = Math.max(offset, this.#from); at < this.#to; ) {
      const place = at % SIZE;
      const part = bytes.subarray(at - offset, at - offset + SIZE - place);
      this.#ring.set(part, place);
      at += part.length;
    }
  }

  /** Copies what it can of the bytes at `position`; 0 where they are not remembered. */
  copy(into: Uint8Array, length: number, position: number): number {
    if (this.#ring === null || position < this.#from) return 0;
    const end = Math.min(position + length, this.#to);
    let at = position;
    while (at < end) {
      const place = at % SIZE;
      const part = this.#ring.subarray(place, place + Math.min(end - at, SIZE - place));
      into.set(part, at - position);
      at += part.length;
    }
    return at - position;
  }

  forget(): void {
    this.#ring = null;
  }
}
