import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../telemetry/log.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import type { Layout } from './layout.ts';
import type { Room } from './room.ts';

/** What the work besides pulls (reconciliation, prune, verify) needs of the cache. */
export interface Upkeep {
  readonly layout: Layout;
  readonly index: CacheIndex;
  readonly room: Room;
  readonly log: Logger;
  /** Read, filled or being removed right now: leave its files alone. */
  readonly busy: (digest: Digest) => boolean;
  /** Removes a kept blob that is not what it should be, in use or not. Who reads it now goes on past the cache. */
  readonly condemn: (row: BlobRow, reason: string) => Promise<void>;
  /** Removes what an ended fill left, unless a new one has taken it up. */
  readonly dropPartial: (digest: Digest) => Promise<void>;
  /** Brings the index up to date with what is only in memory yet. */
  readonly flush: () => void;
  /** Forgets answers that are only in memory, after rows were dropped behind its back. */
  readonly forget: () => void;
}
