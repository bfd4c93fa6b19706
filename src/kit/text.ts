/**
 * A stranger's words, made fit for a log, a header or a person's terminal: on one line, without control, format and bidirectional characters
 * (which terminals obey), and no longer than `max` characters.
 */
export function printable(text: string, max: number): string {
  // Cut first: there may be megabytes of it, and no character becomes more than one.
  const line = text
    .slice(0, 4 * max)
    .replace(/[\p{C}\p{Z}]+/gu, ' ')
    .trim();
  return line.length > max ? `${line.slice(0, max - 1)}…` : line;
}
