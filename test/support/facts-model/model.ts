import type { Event, ScriptedRegistry } from './registry.ts';

interface Known {
  said: boolean;
  /** Given without a credential, or with one. */
  gave: 'open' | 'credential' | null;
}

/**
 * What a gateway may at most know after what its registries have done: the rule of facts (DESIGN, *What a registry says is proof for that
 * registry alone*), written down a second time without index, files or memory. It errs on the side of knowing: a GET of a part counts as given.
 */
export class FactsModel {
  readonly #facts = new Map<string, Map<string, Known>>();
  /** Registries whose row is marked `--public` now. */
  readonly public = new Set<string>();

  learn(registry: ScriptedRegistry, events: readonly Event[]): void {
    for (const event of events) {
      const facts = this.#of(registry.host, event.repository);
      if (event.kind === 'denied') {
        if (event.digest === null) facts.clear();
        else facts.delete(event.digest);
        continue;
      }
      if (event.kind === 'claimed') {
        known(facts, event.digest).said = true;
        continue;
      }
      const fact = known(facts, event.item.digest);
      if (!event.credential) fact.gave = 'open';
      else fact.gave ??= 'credential';
      for (const digest of event.item.manifest?.names ?? []) known(facts, digest).said = true;
    }
  }

  /** Whether kept content may be given through this repository to a client that may use the registry at all. */
  mayServe(registry: string, repository: string, digest: string): boolean {
    const fact = this.#of(registry, repository).get(digest);
    if (fact === undefined || (!fact.said && fact.gave === null)) return false;
    return this.#isOpen(digest) || this.#gave(registry, digest);
  }

  /** Whether the repository said or gave it: enough for what a HEAD tells. */
  knows(registry: string, repository: string, digest: string): boolean {
    return this.#of(registry, repository).has(digest);
  }

  #isOpen(digest: string): boolean {
    return [...this.#facts].some(([key, facts]) => {
      const gave = facts.get(digest)?.gave ?? null;
      return gave === 'open' || (gave === 'credential' && this.public.has(registryOf(key)));
    });
  }

  #gave(registry: string, digest: string): boolean {
    return [...this.#facts].some(
      ([key, facts]) => registryOf(key) === registry && (facts.get(digest)?.gave ?? null) !== null,
    );
  }

  #of(registry: string, repository: string): Map<string, Known> {
    const key = `${registry} ${repository}`;
    let facts = this.#facts.get(key);
    if (facts === undefined) {
      facts = new Map();
      this.#facts.set(key, facts);
    }
    return facts;
  }
}

function known(facts: Map<string, Known>, digest: string): Known {
  let fact = facts.get(digest);
  if (fact === undefined) {
    fact = { said: false, gave: null };
    facts.set(digest, fact);
  }
  return fact;
}

function registryOf(key: string): string {
  return key.slice(0, key.indexOf(' '));
}
