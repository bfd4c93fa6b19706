import { Claim } from './claim.ts';
import { Speed } from './pieces.ts';

/** No byte for so long while others work is not waited out to the stall timeout: whoever has nothing to do takes over. */
const STUCK_MS = 3_000;

/** One connection's worth of a download; lives as long as there is something to fetch for it. */
export class Lane {
  /** The first lane of a download; the others are there to help it. */
  readonly helper: boolean;
  claim = new Claim([]);
  /** Offset of the next byte of the body that is read, and of its end. */
  at = 0;
  end = 0;
  speed = new Speed();
  /** Bytes handed to the sink. */
  written = 0;
  /** Queueing for a socket. */
  waiting = false;
  /** Its answer has begun: what breaks now is the body. */
  opened = false;
  /** When the last bytes came, or the answer began (performance.now()). */
  lastAt = 0;
  /** The disk makes it wait. */
  held = false;
  /** Ends its body. */
  leave: () => void = () => {};
  endpoint: URL | null = null;

  constructor(helper: boolean) {
    this.helper = helper;
  }

  /** Its answer begins to arrive. */
  open(leave: () => void): void {
    this.opened = true;
    this.held = false;
    this.lastAt = performance.now();
    this.leave = leave;
    this.speed = new Speed();
  }

  /** Bytes came. Returns the offset of the first. */
  advance(bytes: number): number {
    const start = this.at;
    this.at += bytes;
    this.speed.add(bytes);
    this.lastAt = performance.now();
    return start;
  }

  get stuck(): boolean {
    return this.opened && !this.held && !this.claim.done && performance.now() - this.lastAt > STUCK_MS;
  }
}
