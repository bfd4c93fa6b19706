import { createRequire } from 'node:module';
import { isatty } from 'node:tty';
import { styleText } from 'node:util';
import { cutDisplay, displayWidth, formatBytes, printable, wantsColour } from '../kit/text.ts';
import { formatSpan } from '../kit/time.ts';

/** More than a line of a log has to say; what strangers send is shorter already. */
const MAX_FIELD = 2_000;
/** Columns of a reason, at least: of less nothing can be understood. */
const MIN_REASON = 30;
/** Characters of a digest's value that are shown, as clients show them: enough to tell images apart. */
const DIGEST_SHOWN = 12;

/** Where words are shown. */
export interface Screen {
  /** Columns of a line; undefined where lines may be of any length. */
  readonly columns: () => number | undefined;
  readonly colours: boolean;
}

/** The terminal behind a standard stream; without columns and colours where it is none. */
export function screenOf(fd: 1 | 2, env: NodeJS.ProcessEnv = process.env): Screen {
  if (!isatty(fd)) return { columns: () => undefined, colours: false };
  const stream = fd === 1 ? process.stdout : process.stderr;
  return { columns: () => stream.columns, colours: wantsColour(env) };
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Puts lines of the JSON log into words for a person: a request into one line as wide as the screen, everything else by pino-pretty. No control
 * characters of what strangers sent are left, which a terminal would obey.
 */
export function inWords(screen: Screen): (line: string) => string {
  const pretty = prettyOf(screen.colours);
  return (line) => {
    const fields = JSON.parse(line, harmless) as Fields;
    if (fields.msg === 'request' && typeof fields.requestId === 'string') return `${requestLine(fields, screen)}\n`;
    return pretty(withoutSaid(fields));
  };
}

/** A stack keeps its lines. */
function harmless(_: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  const [first = '', ...calls] = value.split(/\n(?= +at )/);
  return [printable(first, MAX_FIELD), ...calls.map((call) => `    ${printable(call, MAX_FIELD)}`)].join('\n');
}

/** Loaded by whoever needs it: most gateways log JSON, and it takes a tenth of a second. */
function prettyOf(colorize: boolean): (fields: Fields) => string {
  const { prettyFactory } = createRequire(import.meta.url)('pino-pretty') as typeof import('pino-pretty');
  return prettyFactory({ colorize, singleLine: true, ignore: 'room', translateTime: 'SYS:HH:MM:ss' });
}

const KEPT: ReadonlySet<string> = new Set(['level', 'time', 'msg', 'err']);

/** Fields are for programs: what the sentence has said already, a person need not read twice. */
function withoutSaid(fields: Fields): Fields {
  const words = ` ${String(fields.msg ?? '')} `;
  const isSaid = (value: unknown): boolean => {
    if (Array.isArray(value)) return value.every(isSaid);
    return (typeof value === 'string' || typeof value === 'number') && standsIn(words, String(value));
  };
  const left = Object.entries(fields).filter(([name, value]) => KEPT.has(name) || !isSaid(value));
  return Object.fromEntries(left.map(([name, value]) => [name, name === 'err' ? briefly(value as Fields) : value]));
}

/** Its stack has its causes too. */
function briefly({ type, message, stack }: Fields): Fields {
  return { type, message, stack };
}

/** As a word of its own: 5 is not said by 502. */
function standsIn(words: string, value: string): boolean {
  const at = words.indexOf(value);
  if (at === -1) return false;
  return value.length > 8 || (!/\w/.test(words[at - 1] ?? '') && !/\w/.test(words[at + value.length] ?? ''));
}

type Style = Parameters<typeof styleText>[0];

/** `[22:10:01] GET  200 hit     7.1 KiB    12 ms cr.example.com quay.io/org/app:v1`; what does not fit is left out of the end, and of the middle of a name. */
function requestLine(fields: Fields, { columns, colours }: Screen): string {
  const paint = (style: Style, text: string) =>
    colours && text !== '' ? styleText(style, text, { validateStream: false }) : text;
  const { method, status, from, bytes, ms, cut, reason } = fields;
  const came = from === 'fill' || from === 'upstream' ? 'miss' : from === 'cache' ? 'hit' : String(from ?? '-');
  const head: readonly (readonly [Style, string])[] = [
    ['dim', clockTime(fields.time)],
    ['reset', String(method).slice(0, 7).padEnd(4)],
    [statusStyle(Number(status)), String(status).padStart(3)],
    [came === 'hit' ? 'green' : came === 'stale' ? 'yellow' : 'reset', came.padEnd(5)],
    ['reset', formatBytes(Number(bytes)).padStart(9)],
    ['reset', duration(Number(ms)).padStart(8)],
  ];
  const taken = head.reduce((sum, [, text]) => sum + text.length + 1, 0);
  // However narrow: something of the name is to be seen.
  const room = Math.max((columns() ?? Number.POSITIVE_INFINITY) - taken, 20);
  const failure = cut ?? (Number(status) >= 400 || from === 'stale' ? reason : undefined);
  const tail = failure === undefined ? '' : ` (${String(failure)})`;
  const shown = [String(fields.host || '-'), asked(fields)];
  // The name of what was asked for is worth the most, then the host, then the reason, which failures are logged with besides.
  while (shown.length > 1 && displayWidth(shown.join(' ')) > room) shown.shift();
  const what = cutDisplay(shown.join(' '), room);
  const left = room - displayWidth(what);
  const end = left < MIN_REASON ? '' : cutDisplay(tail, left);
  return (
    [...head.map(([style, text]) => (style === 'reset' ? text : paint(style, text))), what].join(' ') +
    paint('dim', end)
  );
}

/** The image or list as people write it; a path where it is no pull. */
function asked({ kind, registry, repository, reference, path }: Fields): string {
  if (registry === undefined) return String(path ?? '-');
  const name = `${registry}/${repository}`;
  const text = reference === undefined ? '' : shortDigest(String(reference));
  switch (kind) {
    case 'manifest':
      return text.startsWith('sha') && text.includes(':') ? `${name}@${text}` : `${name}:${text}`;
    case 'tags':
      return `${name} tags`;
    default:
      return `${name} ${kind} ${text}`;
  }
}

function shortDigest(reference: string): string {
  const [algorithm, value] = reference.split(':');
  return value === undefined ? reference : `${algorithm}:${value.slice(0, DIGEST_SHOWN)}`;
}

function statusStyle(status: number): Style {
  if (status >= 500) return 'red';
  return status >= 400 ? 'yellow' : 'green';
}

/** As the clock on the wall has it. */
function clockTime(time: unknown): string {
  return `[${new Date(String(time)).toTimeString().slice(0, 8)}]`;
}

function duration(ms: number): string {
  if (ms < 1_000) return `${ms < 10 ? ms : Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1_000).toFixed(1)} s` : formatSpan(ms);
}
