import type { Writable } from 'node:stream';
import { styleText } from 'node:util';
import { OperatorError } from '../kit/operator-error.ts';
import { displayWidth, padDisplay, wantsColour } from '../kit/text.ts';
import { formatSpan } from '../kit/time.ts';
import type { Bars } from './bars.ts';

/** A stream that may be a terminal. */
export type Stream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

export interface OutputOptions {
  readonly stdout: Stream;
  readonly stderr: Stream;
  readonly env: NodeJS.ProcessEnv;
  /** Standard output is for one JSON value: the result, or `{"error": {"code", "message", "next"}}`. */
  readonly json?: boolean;
}

export type Tone = 'good' | 'warn' | 'bad' | 'dim' | 'plain';

/** A cell of a table: text, or text with a tone for terminals. */
export type Cell = string | { readonly text: string; readonly tone: Tone };

const STYLES = { good: 'green', warn: 'yellow', bad: 'red', dim: 'dim' } as const;

/** Width of the bar itself; the rest of its line is figures. */
const BAR_WIDTH = 30;

/**
 * The only place that writes to a person's terminal. Results go to standard output, so that they can be piped;
 * notes, bars and errors go to standard error. Colour only on a terminal, and never with NO_COLOR (https://no-color.org).
 */
export class Output {
  readonly #stdout: Stream;
  readonly #stderr: Stream;
  readonly #env: NodeJS.ProcessEnv;
  readonly #json: boolean;
  #barShown = false;
  #bars: Bars | null = null;
  /** Standard output has the result, JSON or bytes, and takes nothing after it. */
  #taken = false;

  constructor(options: OutputOptions) {
    this.#stdout = options.stdout;
    this.#stderr = options.stderr;
    this.#env = options.env;
    this.#json = options.json === true;
    // A reader that left (`| head`) is no failure: whatever comes later is for nobody.
    for (const stream of [this.#stdout, this.#stderr]) stream.on('error', () => {});
  }

  /** One line of result. */
  line(text = ''): void {
    this.#write(this.#stdout, `${text}\n`);
  }

  /** Text that is a result as it stands (YAML, PEM, a configuration). */
  text(text: string): void {
    this.#write(this.#stdout, text.endsWith('\n') || text === '' ? text : `${text}\n`);
  }

  /** Whether results go to a person's screen. */
  get isTerminal(): boolean {
    return this.#stdout.isTTY === true;
  }

  /** A result that is no text. Resolves when it was taken. @throws where the reader has left: what it has is not whole */
  bytes(bytes: Uint8Array): Promise<void> {
    this.#taken = true;
    return new Promise((resolve, reject) => {
      this.#stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Columns that a line may have, on a terminal; 80 elsewhere. */
  get columns(): number {
    return this.#stdout.columns ?? 80;
  }

  /** Empties the screen of a terminal, for what is shown again and again. */
  clear(): void {
    if (this.#stdout.isTTY === true) this.#stdout.write('\u001b[H\u001b[2J');
  }

  json(value: unknown): void {
    this.#taken = true;
    this.text(JSON.stringify(value, null, 2));
  }

  /** Columns as wide as their widest cell; no rule lines, so that awk can read it too. */
  table(head: readonly string[], rows: readonly (readonly Cell[])[]): void {
    const text = (cell: Cell | undefined) => (cell === undefined ? '' : typeof cell === 'string' ? cell : cell.text);
    const widths = head.map((title, i) =>
      Math.max(displayWidth(title), ...rows.map((row) => displayWidth(text(row[i])))),
    );
    const write = (cells: readonly Cell[]) =>
      this.line(
        cells
          .map((cell, i) => {
            const padded = i === cells.length - 1 ? text(cell) : padDisplay(text(cell), widths[i] ?? 0);
            return typeof cell === 'string' ? padded : this.paint(cell.tone, padded);
          })
          .join('  ')
          .trimEnd(),
      );
    write(head.map((title) => ({ text: title.toUpperCase(), tone: 'dim' as const })));
    for (const row of rows) write(row);
  }

  /** `name: value` lines, the values aligned; a list takes a line each. */
  facts(rows: readonly (readonly [string, Cell | readonly string[]])[]): void {
    const width = Math.max(...rows.map(([name]) => name.length)) + 1;
    for (const [name, value] of rows) {
      const lines: Cell[] = Array.isArray(value) ? (value.length === 0 ? ['none'] : [...value]) : [value as Cell];
      lines.forEach((cell, i) => {
        const painted = typeof cell === 'string' ? cell : this.paint(cell.tone, cell.text);
        this.line(`${(i === 0 ? `${name}:` : '').padEnd(width)} ${painted}`.trimEnd());
      });
    }
  }

  /** A step of an operation as it happens. */
  step(step: string, message: string): void {
    const stream = this.#json ? this.#stderr : this.#stdout;
    this.#write(stream, `${this.#paintFor(stream, 'dim', step.padEnd(9))} ${message}\n`);
  }

  /** What is worth knowing but is no result. */
  note(text: string): void {
    this.#write(this.#stderr, `gateway: ${text}\n`);
  }

  /** `gateway: <what happened>`, and what to do next on a line of its own; as JSON too where that was asked for. */
  error(error: unknown): void {
    this.#clearBar();
    this.errorJson(error);
    const next = error instanceof OperatorError ? error.next : undefined;
    const message = error instanceof Error ? error.message : String(error);
    this.#write(this.#stderr, `${this.#paintFor(this.#stderr, 'bad', 'gateway:')} ${message}\n`);
    if (next !== undefined) this.#write(this.#stderr, `  ${next}\n`);
  }

  /** Only the JSON of an error that people are told otherwise. */
  errorJson(error: unknown): void {
    if (!this.#json || this.#taken) return;
    const { code, message, next } =
      error instanceof OperatorError ? error : new OperatorError('INTERNAL', String(error));
    this.json({ error: { code, message, next } });
  }

  /** Text for standard error that is complete as it stands (usage). */
  errorText(text: string): void {
    this.#clearBar();
    this.#stderr.write(text);
  }

  /** A bar for each of several things that go on at once, on a terminal; null elsewhere. Everything else is written above them until they are ended. */
  async bars(): Promise<Bars | null> {
    if (this.#stderr.isTTY !== true) return null;
    const { Bars } = await import('./bars.ts');
    this.#bars = new Bars(this.#stderr, () => {
      this.#bars = null;
    });
    return this.#bars;
  }

  /** A bar on a terminal, nothing elsewhere; `total` 0 shows the count alone. */
  progress(label: string, done: number, total: number): void {
    if (this.#stderr.isTTY !== true) return;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const filled = Math.round(share * BAR_WIDTH);
    const bar = total > 0 ? `[${'#'.repeat(filled).padEnd(BAR_WIDTH, '.')}] ${Math.floor(share * 100)} % ` : '';
    const line = `${bar}${label}`.slice(0, (this.#stderr.columns ?? 80) - 1);
    this.#stderr.write(`\r\u001b[2K${line}`);
    this.#barShown = true;
  }

  /** Ends the bars, if any are shown. */
  progressEnd(): void {
    this.#bars?.end();
    this.#clearBar();
  }

  paint(tone: Tone, text: string): string {
    return this.#paintFor(this.#stdout, tone, text);
  }

  #paintFor(stream: Stream, tone: Tone, text: string): string {
    if (tone === 'plain' || stream.isTTY !== true || !wantsColour(this.#env)) return text;
    return styleText(STYLES[tone], text, { validateStream: false });
  }

  /** Whole lines, above the bars where these are on the same screen: a line among them would be drawn over. */
  #write(stream: Stream, lines: string): void {
    this.#clearBar();
    if (this.#bars !== null && stream.isTTY === true && lines !== '') this.#bars.above(lines);
    else stream.write(lines);
  }

  #clearBar(): void {
    if (!this.#barShown) return;
    this.#barShown = false;
    this.#stderr.write('\r\u001b[2K');
  }
}

/** `in 3 d 4 h` or `2 h ago`, seen from `now`; `-` for none. */
export function formatWhen(iso: string | null, now: number = Date.now()): string {
  if (iso === null) return '-';
  const distance = Date.parse(iso) - now;
  if (Number.isNaN(distance)) return iso;
  if (Math.abs(distance) < 1000) return 'now';
  return distance > 0 ? `in ${formatSpan(distance)}` : `${formatSpan(-distance)} ago`;
}
