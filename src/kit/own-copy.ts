/**
 * A copy in memory of its own. A small `Buffer.from` is a part of Node's pool, and whoever keeps it keeps the whole slab: thousands of small ones
 * that are kept for long would hold many times what they are.
 */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
