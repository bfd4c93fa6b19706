import type { KeptWarm, WarmRow, WarmRun, WarmStore } from '../../src/images/warm-store.ts';
import { SharedBacking } from './store-harness.ts';

class WarmBacking extends SharedBacking {
  readonly rows = new Map<string, WarmRow>();
  readonly runs = new Map<string, WarmRun>();
}

/** What is kept at hand, in memory. */
export class MemoryWarmStore implements WarmStore {
  readonly #backing: WarmBacking;

  constructor(backing = new WarmBacking()) {
    this.#backing = backing;
  }

  another(): MemoryWarmStore {
    return new MemoryWarmStore(this.#backing);
  }

  async load(): Promise<KeptWarm> {
    const sorted = <T>(map: Map<string, T>): T[] =>
      [...map].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, value]) => value);
    return { rows: sorted(this.#backing.rows), runs: sorted(this.#backing.runs) };
  }

  async put(row: WarmRow): Promise<void> {
    this.#backing.rows.set(row.image, row);
    this.#backing.changedBy(this);
  }

  async remove(image: string): Promise<boolean> {
    if (!this.#backing.rows.delete(image)) return false;
    for (const [key, run] of this.#backing.runs) if (run.image === image) this.#backing.runs.delete(key);
    this.#backing.changedBy(this);
    return true;
  }

  async noteRun(run: WarmRun): Promise<void> {
    if (this.#backing.rows.has(run.image)) this.#backing.runs.set(`${run.image} ${run.node}`, run);
  }

  watch(listener: () => void): () => void {
    return this.#backing.watch(this, listener);
  }
}
