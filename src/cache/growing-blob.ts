import type { FileView } from '../kit/byte-source.ts';

export type { Outcome } from '../kit/byte-source.ts';
/** A blob that may still be growing, as its readers see it. */
export type GrowingBlob = FileView;

/** A blob that lies in the cache whole. */
export function wholeBlob(path: string, size: number): GrowingBlob {
  return { path, size, available: size, outcome: { kind: 'complete' }, onAdvance: () => {} };
}
