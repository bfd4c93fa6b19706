import { getServers } from 'node:dns';

/** Where doctor looks at the machine; tests put other places there. */
export interface Surroundings {
  /** DNS servers of this machine, `address` or `address:port`. */
  readonly servers: () => readonly string[];
  /** Names that need no DNS server. */
  readonly hostsFile: string;
  /** proc(5). */
  readonly proc: string;
  /** cgroups(7), version 2. */
  readonly cgroup: string;
  /** Where clients and CAs connect to a public name. */
  readonly ports: { readonly http: number; readonly https: number };
  readonly now: () => number;
}

export const THIS_MACHINE: Surroundings = {
  servers: getServers,
  hostsFile: '/etc/hosts',
  proc: '/proc',
  cgroup: '/sys/fs/cgroup',
  ports: { http: 80, https: 443 },
  now: Date.now,
};

/** What does not answer is given up after so many ms, and told by itself. */
export const TIME = 7_500;
/** A whole part of the examination that has not ended by then is told as one, ms: the examination ends within ten seconds. */
export const LATEST = 8_500;

/** What was promised, or `late` once the signal is aborted; a rejection is `late` of its error. Nothing goes on holding up the caller. */
export function inTime<T>(promise: Promise<T>, signal: AbortSignal, late: (error: unknown) => T): Promise<T> {
  return new Promise((resolve) => {
    const abort = () => resolve(late(signal.reason));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    promise
      .then(resolve, (error: unknown) => resolve(late(error)))
      .finally(() => signal.removeEventListener('abort', abort));
  });
}
