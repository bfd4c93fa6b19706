/** The candidate a person most likely meant: at most a third of the letters differ, or two, of those before what both names end in. */
export function didYouMean(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const [from, to] = withoutSharedDomain(word.toLowerCase(), candidate.toLowerCase());
    const distance = editDistance(from, to);
    // A word of two letters with both replaced is another word.
    const most = Math.min(from.length - 1, Math.max(2, Math.floor(from.length / 3)));
    if (distance <= most && distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Hosts under one domain have all of that in common, however little else. */
function withoutSharedDomain(one: string, other: string): readonly [string, string] {
  const [ones, others] = [one.split('.'), other.split('.')];
  while (ones.length > 1 && others.length > 1 && ones.at(-1) === others.at(-1)) {
    ones.pop();
    others.pop();
  }
  return [ones.join('.'), others.join('.')];
}

/** What to do about an unknown name: the one that was most likely meant, else what helps in any case. */
export function orNearest(otherwise: string, word: string, candidates: Iterable<string>): string {
  const near = didYouMean(word, candidates);
  return near === undefined ? otherwise : `did you mean ${near}? Else ${otherwise}`;
}

/** Insertions, deletions and replacements that turn one into the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
