import type { Digest } from '../oci/names.ts';
import type { FillAccounts } from './allowance.ts';
import type { FillFileContext } from './fill-file.ts';
import type { SecondLevel } from './second-level.ts';

/** What the cache around a fill has to know of it. */
export interface FillState {
  readonly digest: Digest;
  /** The second level gave the last of the bytes: it has the blob. */
  readonly fromTier: boolean;
  /** Ends it where it has nothing to do and no reader. */
  endRest(): void;
}

/** What a fill needs of the cache around it. */
export interface FillContext extends FillFileContext, FillAccounts {
  readonly limits: FillLimits;
  /** Asked before the upstream; null where there is no second level. */
  readonly secondLevel: SecondLevel | null;
  /** The blob is in the cache already: another registry's fill brought it, or it was closed to this one. */
  readonly isKept: (fill: FillState, size: number) => Promise<boolean>;
  /** The blob is complete, verified, and at its final path. */
  readonly kept: (fill: FillState, size: number) => Promise<void>;
  /** Bytes that came from the upstream. */
  readonly fetched: (bytes: number) => void;
  /** A fill has all that is wanted of it for now, or goes on. */
  readonly rests: (fill: FillState, resting: boolean) => void;
  /** Nothing is fetched at the moment. */
  readonly idle: () => boolean;
}

export type FillLimits = FillFileContext['limits'] & {
  /** A fill that has all that was wanted waits so long, ms, for another wish; then it goes on with the whole, if nothing else is fetched, or ends. */
  readonly linger: number;
};

export const FILL_LIMITS: FillLimits = {
  tail: 64 * 1024,
  // Lazy pullers (stargz, nydus, SOCI) read in bursts of a few seconds.
  linger: 15_000,
  // A restart loses at most so many bytes of a fast transfer, or so many ms of a slow one …
  recordBytes: 8 * 1024 * 1024,
  recordInterval: 2_000,
  // … and a power cut so many ms.
  syncInterval: 30_000,
};
