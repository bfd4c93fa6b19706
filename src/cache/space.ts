import type { Digest } from '../oci/digest.ts';

/** Room on the disk that a fill has taken before it writes. */
export interface Reservation {
  readonly bytes: number;
  /** Resolves when the room is there; rejects with a `CacheError` (`too-large`, `no-room`, `min-free`) where it will not be. */
  readonly ready: Promise<void>;
  /** Takes more, for a blob whose size nobody said. @throws {CacheError} */
  grow(bytes: number): Promise<void>;
  /** That so many of its bytes are on the disk now, and so no longer free there. */
  wrote(bytes: number): void;
  /** Gives it back: the blob is in the index now, or gone. */
  release(): void;
}

/** Who decides whether there is room, and makes it. */
export interface Space {
  reserve(digest: Digest, bytes: number): Reservation;
  /** That a fill left so many bytes of a growing file, to be taken up later; they may be dropped when room is needed. */
  left(digest: Digest, bytes: number): void;
}
