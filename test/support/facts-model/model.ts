import type { Event, ScriptedRegistry } from './registry.ts';
import { ModelRows } from './rows.ts';

/** To whom something was shown: to anybody, or to credentials (`ModelCredentials.instance`). */
type Shown = string;
const ANYONE: Shown = 'anyone';

interface Known {
  readonly said: Set<Shown>;
  readonly gave: Set<Shown>;
}

/**
 * What a gateway may at most know after what its registries have done: the rule of facts (DESIGN, *What a registry says is proof for that
 * registry alone*), written down a second time without index, files or memory. It errs on the side of knowing: a GET of a part counts as given, and
 * what one account opened is remembered beside what another did.
 */
export class FactsModel {
  readonly rows = new ModelRows();
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
      const shown = this.#shownTo(registry.host, event.repository, event.user);
      if (event.kind === 'claimed') {
        known(facts, event.digest).said.add(shown);
        continue;
      }
      known(facts, event.item.digest).gave.add(shown);
      for (const digest of event.item.manifest?.names ?? []) known(facts, digest).said.add(shown);
    }
  }

  /** Whether kept content may be given through this repository to a client that may use the registry at all. */
  mayServe(registry: string, repository: string, digest: string): boolean {
    const fact = this.#of(registry, repository).get(digest);
    if (fact === undefined) return false;
    const opener = this.rows.opener(registry, repository)?.instance;
    if (counts(fact.gave, opener)) return true;
    return counts(fact.said, opener) && (this.#isOpen(digest) || this.#gave(registry, digest, opener));
  }

  /** Whether the repository said or gave it: enough for what a HEAD tells. */
  knows(registry: string, repository: string, digest: string): boolean {
    const fact = this.#of(registry, repository).get(digest);
    const opener = this.rows.opener(registry, repository)?.instance;
    return fact !== undefined && (counts(fact.said, opener) || counts(fact.gave, opener));
  }

  /** The account of a user that a repository was asked for with: the one that it has, else another of that user. */
  #shownTo(registry: string, repository: string, user: string | null): Shown {
    if (user === null) return ANYONE;
    const opener = this.rows.opener(registry, repository);
    if (opener?.username === user) return opener.instance;
    return this.rows.of(registry).find(({ username }) => username === user)?.instance ?? 'gone';
  }

  #isOpen(digest: string): boolean {
    return [...this.#facts].some(([key, facts]) => {
      const registry = registryOf(key);
      return [...(facts.get(digest)?.gave ?? [])].some(
        (shown) => shown === ANYONE || (this.public.has(registry) && this.rows.has(registry, shown)),
      );
    });
  }

  #gave(registry: string, digest: string, opener: string | undefined): boolean {
    return [...this.#facts].some(
      ([key, facts]) =>
        registryOf(key) === registry && opener !== undefined && facts.get(digest)?.gave.has(opener) === true,
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

function counts(shown: ReadonlySet<Shown>, opener: string | undefined): boolean {
  return shown.has(ANYONE) || (opener !== undefined && shown.has(opener));
}

function known(facts: Map<string, Known>, digest: string): Known {
  let fact = facts.get(digest);
  if (fact === undefined) {
    fact = { said: new Set(), gave: new Set() };
    facts.set(digest, fact);
  }
  return fact;
}

function registryOf(key: string): string {
  return key.slice(0, key.indexOf(' '));
}
