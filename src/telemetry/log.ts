import { type Logger, pino } from 'pino';
import { iso } from '../kit/time.ts';
import { LineWriter } from './line-writer.ts';
import { inWords, screenOf } from './words.ts';

export type { Logger };

/** Header and field names whose values never reach a log, at the depths where this program logs them. */
const SECRETS = [
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'password',
  'token',
  'hmacKey',
  'privateKey',
];

/** Takes whole lines of JSON, each with its end: what `plainLog` writes to. */
export interface LineSink {
  write(line: string): void;
}

/** The log of a process. */
export interface ProcessLog {
  readonly log: Logger;
  /** Takes lines of JSON as `log` makes them, whatever form they are written in. */
  readonly lines: LineSink;
  /** A line as it stands, behind what was logged before: for the person at the terminal. */
  print(line: string): void;
  /** Takes another level, for all of its children too, and another format, for lines from now on. */
  reconfigure(config: { readonly log: LogConfig }): void;
}

interface LogConfig {
  readonly level: string;
  readonly format: 'json' | 'pretty';
}

/**
 * The process's log: JSON lines on standard output, or words on a terminal, which are made of the same lines.
 * Rooms take a child (`log.child({ room: 'edge' })`) and log facts as fields, sentences as messages.
 */
export function createLog(config: LogConfig, destination: 1 | 2 = 1): ProcessLog {
  const children: Logger[] = [];
  const writer = new LineWriter(destination, (lost, error) => {
    log.warn(
      { lines: lost, ...(error === null ? {} : { err: error }) },
      error === null
        ? 'lines of this log were lost: whatever reads it was too slow; give it a quicker reader, or set log.level to warn'
        : 'lines of this log were lost: it could not be written for a while (err); free space where it is kept, or mend its output',
    );
  });
  // Before pino's own listener, which would flush the destination with a function that can hang.
  process.prependListener('exit', () => writer.end());
  const words = (format: LogConfig['format']) => (format === 'json' ? null : inWords(screenOf(destination)));
  let toWords = words(config.format);
  const lines: LineSink = { write: (line) => writer.write(toWords === null ? line : toWords(line)) };
  const log = pino(
    {
      level: config.level,
      // Rooms have one each, for as long as the process lives. A child has a level of its own, which nobody here sets apart.
      onChild: (child: Logger) => void children.push(child),
      base: null,
      timestamp: timeField,
      formatters: { level: (label: string) => ({ level: label }) },
      redact: { paths: SECRETS.flatMap((name) => [`["${name}"]`, `*["${name}"]`, `*.*["${name}"]`]), censor: '***' },
    },
    lines,
  );
  return {
    log,
    lines,
    print: (line) => writer.write(`${line}\n`),
    reconfigure({ log: { level, format } }) {
      for (const one of [log, ...children]) one.level = level;
      toWords = words(format);
    },
  };
}

/** The part of a logger that is called with every request. */
export interface PlainLog {
  isLevelEnabled(level: PlainLevel): boolean;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
}

type PlainLevel = 'debug' | 'info';

/**
 * A log for lines that are written with every request: JSON.stringify makes them whole, in a third of the time that pino takes field
 * by field. There is no search for secrets in them and no serializer, not even for errors: for fields that are all named in one place,
 * strings and numbers. What is undefined is left out. The level and the bindings are those of `log` when this is called.
 */
export function plainLog(log: Logger, lines: LineSink | null): PlainLog {
  if (lines === null) return log;
  const bindings = JSON.stringify(log.bindings()).slice(1, -1);
  const writer = (level: PlainLevel) => {
    const start = `{"level":"${level}"`;
    const rest = bindings === '' ? '' : `,${bindings}`;
    return (fields: object, message: string) => {
      if (!log.isLevelEnabled(level)) return;
      const text = JSON.stringify(fields);
      const separator = text === '{}' ? '' : ',';
      lines.write(`${start}${timeField()}${rest},${text.slice(1, -1)}${separator}"msg":${JSON.stringify(message)}}\n`);
    };
  };
  return { isLevelEnabled: (level) => log.isLevelEnabled(level), debug: writer('debug'), info: writer('info') };
}

let time = 0;
let timeText = '';

/** ISO 8601, to the millisecond; the lines of one millisecond share it. */
function timeField(): string {
  const now = Date.now();
  if (now !== time) {
    time = now;
    timeText = `,"time":"${iso(now)}"`;
  }
  return timeText;
}

/** For tests and for commands that only print their result. */
export function silentLog(): Logger {
  return pino({ level: 'silent' });
}
