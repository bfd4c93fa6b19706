/** An image that is kept at hand: fetched by a schedule, pinned, or both. */
export interface WarmRow {
  /** Its name in full, by which it is known: `docker.io/library/alpine:3.20`. */
  readonly image: string;
  /** Of an index, the images for these (`linux/arm64`); null for all. */
  readonly platforms: readonly string[] | null;
  /** With what refers to it. */
  readonly referrers: boolean;
  /** What it consists of is not dropped. */
  readonly pin: boolean;
  /** A cron expression, in UTC; null for one that was pinned and is not fetched again by the clock. */
  readonly schedule: string | null;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** How the last run of a row went on one node. Times in ISO 8601. */
export interface WarmRun {
  readonly image: string;
  /** Of the gateway that ran it: its id. */
  readonly node: string;
  readonly startedAt: string;
  readonly endedAt: string;
  /** Null where it went well. */
  readonly error: string | null;
  /** Until when it is not tried again, as the registry says; null where nobody does. */
  readonly retryAt: string | null;
  /** When it went well for the last time; null for never. */
  readonly succeededAt: string | null;
  /** What it was then; null where nothing is known. */
  readonly digest: string | null;
  /** Of the image then, and what of it had to be fetched. */
  readonly bytes: number;
  readonly fetched: number;
}

export interface KeptWarm {
  /** By image. */
  readonly rows: readonly WarmRow[];
  /** One for each row and node at most, by image and node. */
  readonly runs: readonly WarmRun[];
}

/**
 * Port: what is kept at hand, and how that goes. Several gateways may share it. Every method is atomic, and what it changed is durable when its promise
 * resolves. test/conformance/warm-store.ts is its contract.
 */
export interface WarmStore {
  load(): Promise<KeptWarm>;
  /** Adds the row, or puts it in place of the one of that image, whose runs stay. */
  put(row: WarmRow): Promise<void>;
  /** Takes the row and its runs away. False where there is none. */
  remove(image: string): Promise<boolean>;
  /** Puts it in place of that node's run before. Nothing is kept for an image without a row, and nobody is told by `watch`. */
  noteRun(run: WarmRun): Promise<void>;
  /** Calls `listener` after another holder's change of rows; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}
