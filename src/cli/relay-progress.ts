import type { BlobEvent } from '../images/relay.ts';
import { formatBytes } from '../kit/text.ts';
import type { Bars } from './bars.ts';
import type { Output } from './output.ts';

/** Shows blobs on their way: a bar for each on a terminal, and a line for each that has arrived. */
export class RelayProgress {
  readonly #output: Output;
  readonly #bars: Bars | null;

  private constructor(output: Output, bars: Bars | null) {
    this.#output = output;
    this.#bars = bars;
  }

  static async begin(output: Output): Promise<RelayProgress> {
    return new RelayProgress(output, await output.bars());
  }

  blob({ digest, size, state, bytes }: BlobEvent): void {
    const name = digest.slice(0, 19);
    if (state === 'sending') {
      this.#bars?.set(name, bytes, size ?? bytes);
      return;
    }
    this.#bars?.done(name);
    if (state === 'pushed' || state === 'mounted')
      this.#output.step(state, size === undefined ? name : `${name}, ${formatBytes(size)}`);
  }

  end(): void {
    this.#output.progressEnd();
  }
}
