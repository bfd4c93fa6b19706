import { lookup } from 'node:dns/promises';
import { connect, isIP, type Socket } from 'node:net';
import { bareHost, mayReach, type Reach } from './addresses.ts';

/** RFC 8305 §5: how long one address has the field to itself before the next is tried beside it. */
const ATTEMPT_DELAY_MS = 250;
/** Addresses tried of one name. */
const MAX_ADDRESSES = 8;
/** TCP keep-alive finds a peer that vanished while a connection lies idle in the pool. */
const KEEP_ALIVE_MS = 60_000;

/** A host that nothing public answers for, though something public pointed to it. */
export class ForbiddenAddressError extends Error {
  override readonly name = 'ForbiddenAddressError';
  readonly code = 'EADDRFORBIDDEN';
}

/** The addresses of a host that may be connected to, in the order to try: families alternate (RFC 8305 §4). */
export async function resolveHost(host: string, reach: Reach): Promise<string[]> {
  const name = bareHost(host);
  const all = isIP(name) !== 0 ? [name] : (await lookup(name, { all: true, order: 'verbatim' })).map((a) => a.address);
  const allowed = all.filter((address) => mayReach(reach, address));
  if (allowed.length === 0) {
    throw new ForbiddenAddressError(
      `${name} is ${all[0] ?? 'nothing'}, an address that a public registry may not point to`,
    );
  }
  return alternate(allowed).slice(0, MAX_ADDRESSES);
}

function alternate(addresses: readonly string[]): string[] {
  const first = isIP(addresses[0] ?? '');
  const one = addresses.filter((address) => isIP(address) === first);
  const other = addresses.filter((address) => isIP(address) !== first);
  return one.flatMap((address, i) => [address, ...other.slice(i, i + 1)]).concat(other.slice(one.length));
}

/** Connects to the first address that answers: each further one is tried `ATTEMPT_DELAY_MS` later or when the one before failed (RFC 8305). */
export function dialAny(addresses: readonly string[], port: number, timeout: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const trying = new Set<Socket>();
    let next = 0;
    let settled = false;
    let lastError: Error | undefined;
    let stagger: NodeJS.Timeout | undefined;

    const finish = (winner: Socket | null, error?: Error): void => {
      settled = true;
      clearTimeout(deadline);
      clearTimeout(stagger);
      for (const socket of trying) if (socket !== winner) socket.destroy();
      if (winner === null) reject(error);
      else resolve(winner);
    };
    const attempt = (): void => {
      clearTimeout(stagger);
      const host = addresses[next++];
      if (host === undefined || settled) return;
      const socket = connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS });
      trying.add(socket);
      socket.once('connect', () => {
        // Whoever takes the socket listens for errors; until then one must not end the process.
        socket.off('error', onError).on('error', () => {});
        finish(socket);
      });
      const onError = (error: Error): void => {
        lastError = error;
        trying.delete(socket);
        if (settled) return;
        if (next < addresses.length) attempt();
        else if (trying.size === 0) finish(null, error);
      };
      socket.once('error', onError);
      if (next < addresses.length) stagger = setTimeout(attempt, ATTEMPT_DELAY_MS);
    };
    const deadline = setTimeout(() => finish(null, timedOut(addresses, port, timeout, lastError)), timeout);
    attempt();
  });
}

function timedOut(addresses: readonly string[], port: number, timeout: number, cause: unknown): Error {
  const error = new Error(`no connection to ${addresses.join(', ')} port ${port} within ${timeout} ms`, { cause });
  return Object.assign(error, { code: 'ETIMEDOUT' });
}
