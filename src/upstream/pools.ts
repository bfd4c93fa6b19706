import { type AcquireOptions, FairPool, type PoolLimits, type Release } from '../kit/fair-pool.ts';
import { busyError, type RegistryError } from '../oci/errors.ts';

/**
 * What a connection is used for, each with a pool of its own, so that no kind of work waits for another kind:
 * - `document`: what is small and read at once: manifests, lists, tokens, HEADs;
 * - `fill`: a download that is kept, which comes at its upstream's pace; one permit for the whole of it;
 * - `passing`: a body that is not kept, which comes at its client's pace;
 * - `segment`: an additional connection of a fill, which only makes it faster.
 */
export type Purpose = 'document' | 'fill' | 'passing' | 'segment';

export const PURPOSES: readonly Purpose[] = ['document', 'fill', 'passing', 'segment'];

/** The longest wait for a permit, ms: clients wait 30 s for headers, and the request itself takes its time too. */
export const MAX_WAIT_MS = 15_000;

/** In words, what a pool is busy with. */
const WORK: Readonly<Record<Purpose, string>> = {
  document: 'requests',
  fill: 'downloads',
  passing: 'downloads that are not kept',
  segment: 'downloads',
};

/** Permits for connections to registries, by purpose. */
export class Pools {
  readonly #pools: Readonly<Record<Purpose, FairPool>>;

  constructor(limits: Readonly<Record<Purpose, PoolLimits>>, maxWait: number) {
    const pool = (purpose: Purpose): FairPool => {
      const refusal = (registry: string, own: boolean): RegistryError =>
        busyError(`${WORK[purpose]} from ${own ? registry : 'other registries'}`);
      return new FairPool({ limits: limits[purpose], maxWait, refusal });
    };
    this.#pools = {
      document: pool('document'),
      fill: pool('fill'),
      passing: pool('passing'),
      segment: pool('segment'),
    };
  }

  /**
   * Resolves when a permit is granted; rejects with the signal's reason where that comes first.
   * @param registry the row of the table: all hosts of a pattern are one registry here
   * @throws {RegistryError} gatewayBusy, where none became free in time
   */
  acquire(purpose: Purpose, registry: string, signal: AbortSignal, options: AcquireOptions = {}): Promise<Release> {
    return this.#pools[purpose].acquire(registry, signal, options);
  }

  inUse(purpose: Purpose): number {
    return this.#pools[purpose].inUse;
  }

  waiting(purpose: Purpose): number {
    return this.#pools[purpose].waiting;
  }
}
