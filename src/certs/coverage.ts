import type { Holdings } from './holdings.ts';
import type { ContextSnapshot, CoveredHost } from './service.ts';

/** The hosts that are to have certificates, and the contexts that the edge serves them under, swapped whole. */
export class Coverage {
  readonly #holdings: Holdings;
  readonly #domain: string;
  #hosts: ReadonlyMap<string, CoveredHost> = new Map();
  #contexts: ContextSnapshot;

  constructor(holdings: Holdings, domain: string) {
    this.#holdings = holdings;
    this.#domain = domain;
    this.#contexts = holdings.publish([], domain);
  }

  get hosts(): Iterable<string> {
    return this.#hosts.keys();
  }

  get contexts(): ContextSnapshot {
    return this.#contexts;
  }

  find(host: string): CoveredHost | null {
    return this.#hosts.get(host) ?? null;
  }

  set(hosts: readonly CoveredHost[]): void {
    this.#hosts = new Map(hosts.map((covered) => [covered.host, covered]));
    this.publish();
  }

  add(covered: CoveredHost): void {
    this.set([...this.#hosts.values(), covered]);
  }

  /** After a change of what is held. */
  publish(): void {
    this.#contexts = this.#holdings.publish(this.#hosts.keys(), this.#domain);
  }
}
