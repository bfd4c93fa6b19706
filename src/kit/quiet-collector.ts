import { performance } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';

/** Between two looks at whether the process is quiet, ms. */
const LOOK_EVERY = 1_000;
/** A process that has worked for less than this share of the time since the last look is quiet: upkeep alone takes up to 5 %. */
const QUIET = 0.1;
/** So many looks in a row must find it quiet: between the layers of one pull is no time to pause. */
const QUIET_LOOKS = 2;
/**
 * How much more than after the last collection the heap must take, bytes, before another is worth its pause, and a second or so in which
 * everything costs a tenth more after it. Less at first: what runs for the first time leaves most.
 */
const WORTH_FIRST = 4 * 1024 * 1024;
const WORTH_MOST = 16 * 1024 * 1024;

/** What a collector sees of its process, and does to it. */
export interface Heap {
  /** Bytes that the heap takes, and the buffers that hang on it. */
  size(): number;
  /** Share of the time since it was last asked in which the process has worked. */
  utilization(): number;
  /** Frees what nobody holds. */
  collect(): void;
  /** And moves what lives together, which frees whole pages; forgets compiled code. */
  collectAll(): void;
}

/**
 * Gives back what the start, or a load that is over, has left in the heap. V8 collects when it needs room, and not because there is
 * time: a process that has become quiet would keep all of it for as long as it stays so. It takes up to 70 ms in which nothing else
 * runs, so it is for quiet moments.
 */
export class QuietCollector {
  readonly #heap: Heap;
  #left = 0;
  #worth = WORTH_FIRST;
  #quietLooks = 0;

  constructor(heap: Heap) {
    this.#heap = heap;
  }

  look(): void {
    this.#quietLooks = this.#heap.utilization() < QUIET ? this.#quietLooks + 1 : 0;
    if (this.#quietLooks < QUIET_LOOKS || this.#heap.size() < this.#left + this.#worth) return;
    // Once, what the start has left goes with all that ran only then. Later it would make every pull after a pause run cold code.
    if (this.#left === 0) {
      this.#heap.collectAll();
    } else {
      this.#heap.collect();
      this.#worth = Math.min(2 * this.#worth, WORTH_MOST);
    }
    this.#left = this.#heap.size();
    this.#quietLooks = 0;
  }
}

/** Collects whenever this process is quiet and it is worth it; nothing without `--expose-gc`. */
export function collectWhenQuiet(): void {
  const { gc } = globalThis;
  if (gc === undefined) return;
  let seen = performance.eventLoopUtilization();
  const collector = new QuietCollector({
    size() {
      const { total_heap_size: heap, external_memory: buffers } = getHeapStatistics();
      return heap + buffers;
    },
    utilization() {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, seen);
      seen = now;
      return utilization;
    },
    collect: () => gc({ type: 'major', execution: 'sync' }),
    collectAll: () => gc({ type: 'major', execution: 'sync', flavor: 'last-resort' }),
  });
  setInterval(() => collector.look(), LOOK_EVERY).unref();
}
