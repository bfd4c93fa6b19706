import { createCipheriv, createHash } from 'node:crypto';
import type { Digest } from '../../src/oci/names.ts';

/** Bytes that can be read at any offset: given ones, or generated ones that are never held whole. */
export interface Content {
  readonly size: number;
  readonly digest: Digest;
  /** Bytes `[from, to)`. */
  read(from: number, to: number): Buffer;
}

export function contentOf(bytes: Uint8Array | string): Content {
  const buffer = Buffer.from(bytes as Uint8Array);
  return {
    size: buffer.length,
    digest: sha256(buffer),
    read: (from, to) => buffer.subarray(from, to),
  };
}

const STEP = 1 << 20;
const ZEROS = Buffer.alloc(STEP + 16);

/** `size` bytes that follow from `seed`: the AES-CTR key stream, so any part is made from its offset alone and none repeats. */
export function generated(size: number, seed: number | string = 1): Content {
  const key = createHash('sha256').update(`fake blob ${seed}`).digest().subarray(0, 16);
  const read = (from: number, to: number): Buffer => {
    const parts: Buffer[] = [];
    for (let at = from; at < to; ) {
      const skip = at % 16;
      const length = Math.min(to - at, STEP);
      const counter = Buffer.alloc(16);
      counter.writeBigUInt64BE(BigInt((at - skip) / 16), 8);
      const cipher = createCipheriv('aes-128-ctr', key, counter);
      parts.push(cipher.update(ZEROS.subarray(0, skip + length)).subarray(skip));
      at += length;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  };
  return withDigest(size, read);
}

/** A tar archive (ustar, POSIX 1003.1) of one generated file: a layer that real clients unpack. `size` is the file's. */
export function generatedLayer(size: number, seed: number | string = 1): Content {
  const head = Buffer.alloc(512);
  const field = (text: string, at: number): void => {
    head.write(text, at, 'latin1');
  };
  field(`file-${seed}`, 0);
  field('0000644\0' + '0000000\0' + '0000000\0', 100);
  field(`${size.toString(8).padStart(11, '0')}\x00${'0'.repeat(11)}\x00        0`, 124);
  field('ustar\x0000', 257);
  field(
    `${head
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  const file = generated(size, seed);
  // The file is filled up to a block, and two empty blocks are the end.
  const whole = 512 + Math.ceil(size / 512) * 512 + 1024;
  const read = (from: number, to: number): Buffer => {
    const parts: Buffer[] = [];
    if (from < 512) parts.push(head.subarray(from, Math.min(to, 512)));
    const [start, end] = [Math.max(from, 512), Math.min(to, 512 + size)];
    if (start < end) parts.push(file.read(start - 512, end - 512));
    if (to > 512 + size) parts.push(Buffer.alloc(to - Math.max(from, 512 + size)));
    return Buffer.concat(parts);
  };
  return withDigest(whole, read);
}

function withDigest(size: number, read: (from: number, to: number) => Buffer): Content {
  let digest: Digest | undefined;
  return {
    size,
    get digest() {
      if (digest === undefined) {
        const hash = createHash('sha256');
        for (let at = 0; at < size; at += STEP) hash.update(read(at, Math.min(size, at + STEP)));
        digest = `sha256:${hash.digest('hex')}` as Digest;
      }
      return digest;
    },
    read,
  };
}

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}
