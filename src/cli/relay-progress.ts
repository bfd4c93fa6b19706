import type { BlobEvent } from '../images/relay.ts';
import { formatBytes } from '../kit/text.ts';
import type { Output } from './output.ts';

/** Shows blobs on their way: a bar for all of them on a terminal, elsewhere a line for each that has arrived. */
export class RelayProgress {
  readonly #output: Output;
  /** By digest, those that are or were sent. */
  readonly #blobs = new Map<string, BlobEvent>();

  constructor(output: Output) {
    this.#output = output;
  }

  blob(event: BlobEvent): void {
    if (event.state === 'there') return;
    this.#blobs.set(event.digest, event);
    const size = event.size === undefined ? '' : `, ${formatBytes(event.size)}`;
    if (event.state === 'pushed' || event.state === 'mounted')
      this.#output.step(event.state, `${event.digest.slice(0, 19)}${size}`);
    const all = [...this.#blobs.values()].filter(({ state }) => state !== 'failed');
    const done = all.reduce((sum, { bytes }) => sum + bytes, 0);
    const total = all.reduce((sum, { size: whole, bytes }) => sum + (whole ?? bytes), 0);
    const left = all.filter(({ state }) => state === 'sending').length;
    this.#output.progress(`${formatBytes(done)} of ${formatBytes(total)}, ${left} blobs on their way`, done, total);
  }

  end(): void {
    this.#output.progressEnd();
  }
}
