import type { ByteSource } from '../../src/kit/byte-source.ts';

/** Bytes in memory as a source. */
export function sourceOf(bytes: Uint8Array): ByteSource {
  let at = 0;
  return {
    length: bytes.length,
    pull: async (into) => {
      const count = Math.min(into.length, bytes.length - at);
      into.set(bytes.subarray(at, at + count));
      at += count;
      return count;
    },
    close: async () => {},
  };
}
