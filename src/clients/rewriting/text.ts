import type { Rewriting } from '../rewrite.ts';

/** A place in a file where an image is named. */
export interface Spot {
  /** Offsets of the text that is replaced; the same where something is put in. */
  readonly start: number;
  readonly end: number;
  /** What is written there in its place. */
  readonly text: string;
  readonly rewriting: Rewriting;
  /** The whole reference, where the text in this place is a part of it: a registry beside a repository, the default of a variable. */
  readonly whole?: string;
}

/** A reference of a file and what became of it. */
export interface Found extends Pick<Spot, 'rewriting' | 'whole'> {
  /** From 1. */
  readonly line: number;
}

export interface RewrittenText {
  readonly text: string;
  readonly found: readonly Found[];
  /** What whoever reads the result should know of the whole file. */
  readonly notes: readonly string[];
}

/** The text with its spots replaced and every other byte as it was. */
export function spliced(text: string, spots: readonly Spot[], notes: readonly string[] = []): RewrittenText {
  const once = new Map(spots.map((spot) => [`${spot.start}:${spot.end}`, spot]));
  const ordered = [...once.values()].sort((one, other) => one.start - other.start || one.end - other.end);
  let result = '';
  let at = 0;
  for (const { start, end, text: replacement, rewriting } of ordered) {
    if (rewriting.kind === 'kept') continue;
    result += text.slice(at, start) + replacement;
    at = end;
  }
  let line = 1;
  let lineEnd = text.indexOf('\n');
  const found = ordered.map(({ start, rewriting, whole }) => {
    // On from the one before: an export of a cluster names thousands.
    for (; lineEnd >= 0 && lineEnd < start; lineEnd = text.indexOf('\n', lineEnd + 1)) line += 1;
    return { line, rewriting, ...(whole === undefined ? {} : { whole }) };
  });
  return { text: result + text.slice(at), found, notes };
}

/** A reference in a place where it stands alone. */
export function spotOf(start: number, from: string, rewriting: Rewriting): Spot {
  const text = rewriting.kind === 'rewritten' ? rewriting.to : from;
  return { start, end: start + from.length, text, rewriting };
}
