import { eastAsianWidth } from 'get-east-asian-width';

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

const segments = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** Columns that a text takes on a terminal: two for a Chinese character, none for what combines with another. */
export function displayWidth(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let width = 0;
  for (const { segment } of segments.segment(text)) width += eastAsianWidth(segment.codePointAt(0) ?? 0);
  return width;
}

/** With spaces behind it, up to this many columns. */
export function padDisplay(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - displayWidth(text)));
}

/**
 * Lines of at most `width` columns, broken between words where that can be done. Spaces at the beginning are kept, and lines after the first have
 * two more.
 */
export function wrapDisplay(text: string, width: number): string[] {
  const first = /^ */.exec(text)?.[0] ?? '';
  // So narrow that there is no room for one.
  const margin = first.length + 4 > width ? '' : `${first}  `;
  const lines: string[] = [];
  let line = first;
  for (const word of text.slice(first.length).split(' ')) {
    const joined = line.trim() === '' ? line + word : `${line} ${word}`;
    if (displayWidth(joined) <= width || line.trim() === '') line = joined;
    else {
      lines.push(line);
      line = margin + word;
    }
    while (displayWidth(line) > width) {
      const head = headOf(line, width);
      lines.push(head);
      line = margin + line.slice(head.length);
    }
  }
  return [...lines, line];
}

/** The beginning that fits into so many columns; at least one character, so that there is an end to it. */
function headOf(text: string, width: number): string {
  let [head, taken] = ['', 0];
  for (const { segment } of segments.segment(text)) {
    taken += displayWidth(segment);
    if (taken > width && head.trim() !== '') break;
    head += segment;
  }
  return head;
}

/** Whether a terminal is to be shown colours (https://no-color.org). */
export function wantsColour({ NO_COLOR = '', TERM }: NodeJS.ProcessEnv): boolean {
  return NO_COLOR === '' && TERM !== 'dumb';
}

/** Of at most so many columns, without what is in its middle where it has more. */
export function cutDisplay(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  const head = headOf(text, Math.ceil((width - 1) / 2));
  const backwards = Array.from(segments.segment(text), ({ segment }) => segment).reverse();
  let [tail, taken] = ['', displayWidth(head) + 1];
  for (const segment of backwards) {
    taken += displayWidth(segment);
    if (taken > width) break;
    tail = segment + tail;
  }
  return `${head}…${tail}`;
}

/** `1.5 GiB`; binary units, one decimal where it says something. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits).replace(/\.0$/, '')} ${units[unit]}`;
}
