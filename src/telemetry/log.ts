import { type Logger, pino } from 'pino';
import { LineWriter } from './line-writer.ts';

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

/**
 * The process's log: JSON lines on standard output, or readable ones on a terminal.
 * Rooms take a child (`log.child({ room: 'edge' })`) and log facts as fields, sentences as messages.
 */
export function createLog(
  config: { readonly level: string; readonly format: 'json' | 'pretty' },
  destination: 1 | 2 = 1,
): Logger {
  const options = {
    level: config.level,
    base: null,
    timestamp: isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: SECRETS.flatMap((name) => [`["${name}"]`, `*["${name}"]`, `*.*["${name}"]`]), censor: '***' },
  };
  if (config.format === 'pretty') {
    return pino({
      ...options,
      transport: { target: 'pino-pretty', options: { destination, ignore: 'room', translateTime: 'SYS:HH:MM:ss' } },
    });
  }
  const lines = new LineWriter(destination, (lost, error) => {
    log.warn(
      { lines: lost, ...(error === null ? {} : { err: error }) },
      error === null
        ? 'lines of this log were lost: whatever reads it was too slow; give it a quicker reader, or set log.level to warn'
        : 'lines of this log were lost: it could not be written for a while (err); free space where it is kept, or mend its output',
    );
  });
  process.on('exit', () => lines.flushSync());
  const log = pino(options, lines);
  return log;
}

let time = 0;
let timeText = '';

/** ISO 8601, to the millisecond; the lines of one millisecond share it. */
function isoTime(): string {
  const now = Date.now();
  if (now !== time) {
    time = now;
    timeText = `,"time":"${new Date(now).toISOString()}"`;
  }
  return timeText;
}

/** For tests and for commands that only print their result. */
export function silentLog(): Logger {
  return pino({ level: 'silent' });
}
