import { type Logger, pino } from 'pino';
import { TurnLines } from './turn-lines.ts';

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
 * Bytes of one write of whole lines. The processes of a gateway share their output, and a pipe takes so much in one piece
 * (PIPE_BUF on Linux): with more, a line of one process could land in the middle of another's.
 */
const MAX_WRITE = 4096;

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
  const output = pino.destination({ dest: destination, sync: false, minLength: 0, maxWrite: MAX_WRITE });
  const lines = new TurnLines(output, MAX_WRITE);
  process.on('exit', () => lines.flushSync());
  return pino(options, lines);
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
