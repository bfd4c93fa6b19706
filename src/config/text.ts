import { redactUrl } from '../kit/http.ts';
import { imageRulesText, parseImagePatterns, parseImageRules } from './images.ts';
import { Key, type KeyList } from './keys.ts';
import {
  type ListenAddress,
  parseDatabase,
  parseDuration,
  parseListen,
  parseProxy,
  parseScrub,
  parseSecret,
  parseSize,
  wrapped,
} from './values.ts';

/** Largest first: a value is written in the largest unit of which it is a whole number. */
const SIZES = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
] as const;
const TIMES = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const;

/** What a person is shown in place of a secret. */
const HIDDEN = '***';

/** How values are written whose own text is not what the file would have; by what reads them. */
const WRITERS: ReadonlyMap<unknown, (value: never) => string> = new Map<unknown, (value: never) => string>([
  [parseSize, sizeText],
  [parseDuration, timeText],
  [parseScrub, (value: number | null) => (value === null ? 'off' : timeText(value))],
  [parseListen, listenText],
  [parseProxy, redactUrl],
  [parseDatabase, redactUrl],
  [parseSecret, () => HIDDEN],
  [parseImageRules, imageRulesText],
  [parseImagePatterns, imageRulesText],
]);

/** A value in use, as the configuration file writes it: `20GiB`, `1m`, `off`; `none` where nothing is set. No secret is in it. */
// biome-ignore lint/suspicious/noExplicitAny: whatever the types of a key are, it is a key
export function valueText(key: Key<any, any> | KeyList<any, any>, value: unknown): string {
  if (!(key instanceof Key)) return listText(value);
  const write = WRITERS.get(wrapped(key.parse)) as ((value: unknown) => string) | undefined;
  if (write !== undefined && (value !== null || key.parse === parseListen || key.parse === parseScrub)) {
    return write(value);
  }
  return listText(value);
}

function listText(value: unknown): string {
  if (value === null || value === undefined) return 'none';
  if (!Array.isArray(value)) return String(value);
  return value.length === 0 ? 'none' : value.map(itemText).join(', ');
}

function itemText(item: unknown): string {
  if (typeof item !== 'object' || item === null) return String(item);
  return JSON.stringify(item, (name, value: unknown) => (name === 'hmacKey' ? HIDDEN : (value ?? undefined)));
}

function sizeText(bytes: number): string {
  const [unit, size] = SIZES.find((one) => bytes >= one[1] && bytes % one[1] === 0) ?? ['', 1];
  return `${bytes / size}${unit}`;
}

function timeText(ms: number): string {
  if (ms === 0) return '0';
  const [unit, size] = TIMES.find((one) => ms % one[1] === 0) ?? ['ms', 1];
  return `${ms / size}${unit}`;
}

function listenText(at: ListenAddress | null): string {
  if (at === null) return 'off';
  const { host = '', port } = at;
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
