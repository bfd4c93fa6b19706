import type { Division } from './division.ts';
import type { Lane } from './lane.ts';
import { isSlow, MAX_HELPER_FAILURES, pieceSize } from './pieces.ts';
import type { Room } from './room.ts';

/** A connection that came to help and failed is not replaced at once; doubles from there. */
const AGAIN_MS = 250;

/** Decides when a download gets more connections, and when it has to do with one again. */
export class Help {
  readonly #room: Room;
  readonly #registry: string;
  readonly #division: Division;
  /** Ranges are honoured: the upstream says so, or a helper has got one. */
  proven = false;
  #failures = 0;
  #againAt = 0;

  constructor(room: Room, registry: string, division: Division) {
    this.#room = room;
    this.#registry = registry;
    this.#division = division;
  }

  /** Looks whether the transfer is slow, and sends help: `send` starts one more lane among `lanes`. */
  consider(lanes: ReadonlyMap<Lane, unknown>, send: () => void): void {
    const { punishments, metrics } = this.#room;
    const division = this.#division;
    if (division.mostLanes <= 1 || performance.now() < this.#againAt) return;
    const [lane] = lanes.keys();
    const host = lane?.endpoint?.host;
    if (lane === undefined || host === undefined || !punishments.allows(host)) return;
    if (lanes.size === 1) {
      const rate = lane.speed.rate();
      const slow = rate !== null && isSlow(rate, division.remainingFor(lane));
      if (!slow && !(this.proven && lane.stuck)) return;
      if (rate !== null) {
        if (division.piece === null) metrics.parallel.inc({ registry: this.#registry });
        division.shorten(lane, pieceSize(rate));
      }
      send();
    }
    // Where nothing is known one helper goes ahead to see whether ranges are honoured; the others follow.
    while (this.proven && !division.taken && lanes.size < division.mostLanes) send();
    const stuck = [...lanes.keys()].some((other) => other.stuck);
    if (this.proven && stuck && lanes.size < division.mostLanes) send();
  }

  /** One lane of several brought nothing. Where hosts punish several, or answer ranges with the whole, the download goes on over one. */
  failed(lane: Lane, error: unknown, rangeless: boolean, facts: object): void {
    this.#failures++;
    this.#againAt = performance.now() + AGAIN_MS * 2 ** this.#failures;
    const { punishments, log } = this.#room;
    const punished = lane.endpoint !== null && lane.helper && punishments.failed(lane.endpoint.host, error);
    if (!punished && !rangeless && this.#failures < MAX_HELPER_FAILURES) return;
    if (this.#division.mostLanes === 1) return;
    this.#division.undivided();
    log.info(facts, 'a download goes on over one connection');
  }
}
