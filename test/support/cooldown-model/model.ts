/** What a tag was seen to stand for: each answer of the registry is one. */
interface Answer {
  readonly digest: string;
  readonly at: number;
  /** It is certain that the gateway has not lost it. */
  sure: boolean;
}

/** What is known of one repository. */
class Known {
  /** When its registry first showed it: at the earliest that the gateway may know, and at the earliest that it has to know. */
  readonly mayBe = new Map<string, number>();
  readonly mustBe = new Map<string, number>();
  readonly answers = new Map<string, Answer[]>();
  /** Parents of each digest: all there ever were, and those whose names the gateway has to know. */
  readonly parents = new Map<string, Set<string>>();
  readonly learnt = new Map<string, Set<string>>();
}

/** How the rules stand. */
export interface ModelRules {
  readonly cooldown: number | null;
  /** Repositories, tags and digests that the cooldown is not for. */
  readonly excepts: (repository: string, tag: string | null) => boolean;
  /** Repositories and tags that may not pass. */
  readonly refuses: (repository: string, tag: string | null) => boolean;
  /** Something is refused by tags, so that digests pass by tags alone. */
  readonly refusesTags: boolean;
}

/**
 * What a gateway with a cooldown may give, and what it has to give: the rules written down a second time, over a list of all that its registry answered, without
 * store, memory or order of writing. Between both lies what depends on what the gateway happens to have learnt; there either is right.
 */
export class CooldownModel {
  readonly #repositories = new Map<string, Known>();
  /** What a crash would lose, to be made unsure by one. */
  #unwritten: (() => void)[] = [];

  /** Names of what was pushed, whether the gateway ever sees it or not. */
  pushed(repository: string, parent: string, children: readonly string[]): void {
    for (const child of children) addTo(this.#of(repository).parents, child, parent);
  }

  /** Its registry has shown this to the gateway. @param sure the gateway has to remember it */
  shown(repository: string, digest: string, at: number, sure: boolean): void {
    const known = this.#of(repository);
    if (at < (known.mayBe.get(digest) ?? Number.POSITIVE_INFINITY)) known.mayBe.set(digest, at);
    if (!sure || known.mustBe.has(digest)) return;
    known.mustBe.set(digest, at);
    this.#unwritten.push(() => known.mustBe.delete(digest));
  }

  tagShown(repository: string, tag: string, digest: string, at: number, sure: boolean): void {
    const { answers } = this.#of(repository);
    const answer = { digest, at, sure };
    answers.set(tag, [...(answers.get(tag) ?? []), answer]);
    this.#unwritten.push(() => {
      answer.sure = false;
    });
  }

  /** The gateway has read what this manifest names, and wants to know it. */
  learnt(repository: string, parent: string, children: readonly string[]): void {
    const { learnt } = this.#of(repository);
    for (const child of children) {
      if (learnt.get(child)?.has(parent) === true) continue;
      addTo(learnt, child, parent);
      this.#unwritten.push(() => learnt.get(child)?.delete(parent));
    }
  }

  /** All that was seen is on the disk. */
  written(): void {
    this.#unwritten = [];
  }

  crashed(): void {
    for (const undo of this.#unwritten.splice(0)) undo();
  }

  /** Whether this may be given for its digest. */
  mayGive(rules: ModelRules, repository: string, digest: string, now: number): boolean {
    if (rules.refuses(repository, null)) return false;
    const tags = this.#tagsOf(repository, digest);
    if (rules.refusesTags && !tags.some((tag) => !rules.refuses(repository, tag))) return false;
    if (rules.excepts(repository, null) || tags.some((tag) => rules.excepts(repository, tag))) return true;
    return this.#age(repository, digest, now, 'mayBe', 'parents') >= (rules.cooldown ?? 0);
  }

  /** Whether it is wrong to call it too young. */
  mustBeOld(rules: ModelRules, repository: string, digest: string, now: number): boolean {
    if (rules.excepts(repository, null)) return true;
    return this.#age(repository, digest, now, 'mustBe', 'learnt') >= (rules.cooldown ?? 0);
  }

  /** Whether the tag that stands for `current` may be answered with this one. */
  mayStandFor(rules: ModelRules, of: TagOf, digest: string, now: number): boolean {
    const { repository, tag, current } = of;
    if (rules.refuses(repository, tag)) return false;
    if (rules.excepts(repository, tag)) return digest === current;
    const age = this.#age(repository, digest, now, 'mayBe', 'parents');
    const cooldown = rules.cooldown ?? 0;
    if (digest === current) return age >= cooldown;
    if (rules.cooldown === null || age < cooldown) return false;
    return this.#stays(repository, tag, now).some(
      (stay) => stay.digest === digest && isMatured(age, now - stay.surelyLeft, cooldown),
    );
  }

  /** What must be given for the tag in place of `current`, where something must: the digest that it was surely seen to have, old enough, last. */
  mustStandFor(rules: ModelRules, { repository, tag, current }: TagOf, now: number): string | null {
    if (rules.excepts(repository, tag)) return current;
    const cooldown = rules.cooldown ?? 0;
    const age = (digest: string) => this.#age(repository, digest, now, 'mustBe', 'learnt');
    if (age(current) >= cooldown) return current;
    const stays = this.#stays(repository, tag, now).filter(
      ({ digest, sure, left }) => sure && digest !== current && isMatured(age(digest), now - left, cooldown),
    );
    return stays.at(-1)?.digest ?? null;
  }

  /**
   * The spans in which the tag had one digest, in their order. `sure`: the gateway has to know of it; `left`: when the tag was first seen to have left it, at the
   * earliest that the gateway may know, and at the latest.
   */
  #stays(repository: string, tag: string, now: number) {
    const stays: { digest: string; sure: boolean; left: number; surelyLeft: number }[] = [];
    for (const { digest, at, sure } of this.#of(repository).answers.get(tag) ?? []) {
      if (at > now) continue;
      for (const stay of stays) {
        if (stay.digest === digest) continue;
        stay.left = Math.min(stay.left, at);
        if (sure) stay.surelyLeft = Math.min(stay.surelyLeft, at);
      }
      const last = stays.at(-1);
      if (last?.digest !== digest) stays.push({ digest, sure, left: now, surelyLeft: now });
      else last.sure ||= sure;
    }
    return stays;
  }

  #tagsOf(repository: string, digest: string): string[] {
    const { answers, parents } = this.#of(repository);
    const naming = reachable(digest, parents);
    return [...answers].filter(([, list]) => list.some((answer) => naming.has(answer.digest))).map(([tag]) => tag);
  }

  #age(
    repository: string,
    digest: string,
    now: number,
    sights: 'mayBe' | 'mustBe',
    names: 'parents' | 'learnt',
  ): number {
    const known = this.#of(repository);
    const times = [...reachable(digest, known[names])].map(
      (each) => known[sights].get(each) ?? Number.POSITIVE_INFINITY,
    );
    return now - Math.min(...times);
  }

  #of(repository: string): Known {
    let known = this.#repositories.get(repository);
    if (known === undefined) {
      known = new Known();
      this.#repositories.set(repository, known);
    }
    return known;
  }
}

/** A tag, and what it stands for at its registry. */
export interface TagOf {
  readonly repository: string;
  readonly tag: string;
  readonly current: string;
}

/** Old enough before the tag was seen to have left it, or twice as old. @param since how long ago that was, ms */
function isMatured(age: number, since: number, cooldown: number): boolean {
  return age >= cooldown && (age - since >= cooldown || age >= 2 * cooldown);
}

function addTo(sets: Map<string, Set<string>>, key: string, value: string): void {
  const set = sets.get(key) ?? new Set();
  sets.set(key, set.add(value));
}

/** It, and all by which it is named. */
function reachable(digest: string, parents: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
  const found = new Set([digest]);
  for (const each of found) for (const parent of parents.get(each) ?? []) found.add(parent);
  return found;
}
