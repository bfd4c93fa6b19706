import type { SecureContext } from 'node:tls';
import { sleep } from '../kit/time.ts';
import type { ManagedHosts } from './managed-hosts.ts';
import type { RunningOrder } from './order-manager.ts';
import { wildcardDomain } from './wildcard.ts';

/** A client that asks for a name waits so long for its certificate, ms: an order takes a few seconds, and a handshake may take ten. */
const FIRST_USE_WAIT = 8_000;

export interface OnDemandParts {
  readonly hosts: Pick<ManagedHosts, 'isOnDemand' | 'contexts' | 'released'>;
  readonly orders: { startOrJoin(host: string): Pick<RunningOrder, 'done'> };
  /** Ends every wait. */
  readonly signal: AbortSignal;
  /** ms; for tests that must not wait for long. */
  readonly wait?: number;
}

/**
 * Certificates that are ordered when a client first asks for their host. Whoever sends server names is a stranger: only hosts of the table that
 * are on demand are ordered, one at a time, each once; a failure is repeated by the table of waits, whoever asks meanwhile. So strangers can
 * bring about as many orders as there are such hosts, and no more.
 */
export class OnDemandOrders {
  readonly #parts: OnDemandParts;
  readonly #queued = new Map<string, Promise<void>>();
  #last: Promise<void> = Promise.resolve();

  constructor(parts: OnDemandParts) {
    this.#parts = parts;
  }

  /** The context of a host that has none yet, once its order has brought it; null where none is ordered now, or it takes too long. */
  readonly find = async (host: string): Promise<SecureContext | null> => {
    const { hosts, signal, wait = FIRST_USE_WAIT } = this.#parts;
    const done = this.#queued.get(host) ?? (hosts.isOnDemand(host) ? this.#enqueue(host) : null);
    if (done !== null) {
      const over = new AbortController();
      await Promise.race([done, sleep(wait, AbortSignal.any([signal, over.signal])).catch(() => {})]);
      over.abort();
    }
    const { byHost, wildcard } = hosts.contexts();
    return byHost.get(host) ?? wildcard?.(wildcardDomain(host)) ?? hosts.released(host);
  };

  #enqueue(host: string): Promise<void> {
    const { hosts, orders, signal } = this.#parts;
    const done = this.#last.then(async () => {
      try {
        // It may have one by now: a person has ordered it, or another node.
        if (hosts.isOnDemand(host) && !signal.aborted) await orders.startOrJoin(host).done;
      } catch {
        // Recorded and told where it happened.
      } finally {
        this.#queued.delete(host);
      }
    });
    this.#queued.set(host, done);
    this.#last = done;
    return done;
  }
}
