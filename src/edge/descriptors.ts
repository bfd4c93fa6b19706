import { close, open } from 'node:fs';
import { devNull } from 'node:os';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** How often it is looked whether a descriptor can be had, ms. */
const LOOK_EVERY = 1_000;
/** How often it is logged at most, ms. */
const LOG_EVERY = 60_000;
/** Causes of causes that are looked at. */
const MAX_CAUSES = 8;

/** Whether a failure is, or was caused by, a lack of file descriptors: of this process (EMFILE) or of the machine (ENFILE). */
export function isOutOfDescriptors(error: unknown): boolean {
  let at: unknown = error;
  for (let depth = 0; at instanceof Error && depth < MAX_CAUSES; depth++) {
    const { code } = at as NodeJS.ErrnoException;
    if (code === 'EMFILE' || code === 'ENFILE') return true;
    at = at.cause;
  }
  return false;
}

/**
 * Notices that no descriptor is left. Node does not tell: its listeners then close new connections unseen, and go on. So one is opened
 * from time to time, to see whether that can be done.
 */
export class DescriptorWatch {
  readonly #log: Pick<Logger, 'error'>;
  readonly #exhausted;
  readonly #timer: NodeJS.Timeout;
  #loggedAt = Number.NEGATIVE_INFINITY;

  constructor(metrics: Pick<Metrics, 'counter'>, log: Pick<Logger, 'error'>) {
    this.#log = log;
    this.#exhausted = metrics.counter(
      'descriptors_exhausted_total',
      'Times that a process was found without a file descriptor left; it is looked at each second',
    );
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY).unref();
  }

  #report(error: unknown): void {
    this.#exhausted.inc();
    const now = performance.now();
    if (now - this.#loggedAt < LOG_EVERY) return;
    this.#loggedAt = now;
    this.#log.error(
      { err: error },
      'no file descriptor is left: new connections are closed unseen, and pulls fail; raise the limit of open files (LimitNOFILE, ulimit -n, sysctl fs.file-max)',
    );
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    open(devNull, 'r', (error, descriptor) => {
      if (error === null) close(descriptor, () => {});
      else if (isOutOfDescriptors(error)) this.#report(error);
    });
  }
}
