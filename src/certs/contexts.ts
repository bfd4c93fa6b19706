import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { LRUCache } from 'lru-cache';
import type { ContextSnapshot } from './service.ts';
import type { CertificateMaterial } from './x509.ts';

/** What the gateway speaks with clients, for every context that a handshake meets. Forward secrecy only. */
export const PROTOCOL: SecureContextOptions = {
  minVersion: 'TLSv1.2',
  maxVersion: 'TLSv1.3',
  // AES-128 first: ten rounds a block instead of fourteen, and nobody breaks either; what Go servers choose, too.
  ciphers: [
    'TLS_AES_128_GCM_SHA256',
    'TLS_AES_256_GCM_SHA384',
    'TLS_CHACHA20_POLY1305_SHA256',
    'ECDHE-ECDSA-AES128-GCM-SHA256',
    'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-RSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-CHACHA20-POLY1305',
    'ECDHE-RSA-CHACHA20-POLY1305',
  ].join(':'),
  honorCipherOrder: true,
  // A client that puts ChaCha20 first has no hardware for AES (a Raspberry Pi 4): it gets that.
  secureOptions: constants.SSL_OP_PRIORITIZE_CHACHA,
};

export type ChainAndKey = Pick<CertificateMaterial, 'chain' | 'key'>;

/**
 * Contexts that are ready at a time, those of the names that were asked for last: with a table of 10,000 aliases whose names all are asked for,
 * they would be the larger part of what a process holds. One more costs its handshake twice as much.
 */
export const MAX_READY = 1_024;
/** Contexts outlive snapshots: a swap makes only what is new. */
const built = new LRUCache<ChainAndKey, SecureContext>({ max: MAX_READY });
/** The way back, for another process that has to build the same context. */
const origin = new WeakMap<SecureContext, ChainAndKey>();

/**
 * The ready context of a certificate, built once (about 0.4 ms and 30 KiB).
 * @throws where key and certificate do not match: call it before a certificate is taken into use.
 */
export function contextOf(material: ChainAndKey): SecureContext {
  let context = built.get(material);
  if (context === undefined) {
    context = createSecureContext({ ...PROTOCOL, cert: material.chain, key: material.key });
    built.set(material, context);
    origin.set(context, material);
  }
  return context;
}

/** Chain and key (PEM) of a context that `contextOf` built. */
export function materialOf(context: SecureContext): ChainAndKey | null {
  return origin.get(context) ?? null;
}

/** A ready context, and the time in which it may be served: before `from` and from `until` on it is looked up anew. Epoch milliseconds. */
export interface ReadyContext {
  readonly context: SecureContext;
  readonly from: number;
  readonly until: number;
}

/** A context that is served as long as the snapshot that has it. */
export function always(context: SecureContext): ReadyContext {
  return { context, from: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY };
}

function isReady(ready: ReadyContext | undefined, now: number): ready is ReadyContext {
  return ready !== undefined && now >= ready.from && now < ready.until;
}

/** What handshakes read: a snapshot of all contexts, which is swapped whole after each change. */
export class ServedContexts {
  readonly #now: () => number;
  #snapshot: ContextSnapshot = { byHost: new Map(), fallback: null };

  /** @param now epoch milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Bound, so that a service can have it as its own method. */
  readonly snapshot = (): ContextSnapshot => this.#snapshot;

  /**
   * @param make the context of one of `hosts`; undefined where there is none
   * @param makeFallback the context for clients that name no host
   * @param more what else the snapshot says
   */
  swap(
    hosts: ReadonlySet<string> | ReadonlyMap<string, unknown>,
    make: (host: string) => ReadyContext | undefined,
    makeFallback: () => ReadyContext,
    more: Omit<ContextSnapshot, 'byHost' | 'fallback'> = {},
  ): void {
    const now = this.#now;
    let fallback: ReadyContext | undefined;
    this.#snapshot = {
      ...more,
      byHost: new LazyContexts(hosts, make, now),
      get fallback() {
        if (!isReady(fallback, now())) fallback = makeFallback();
        return fallback.context;
      },
    };
  }
}

/**
 * Hosts to contexts, where a context is made when its host is first asked for: ten thousand hosts must neither delay
 * a start by seconds nor hold 300 MiB for names that nobody uses. It is made anew only when its time has passed.
 */
class LazyContexts implements ReadonlyMap<string, SecureContext> {
  readonly #hosts: ReadonlySet<string> | ReadonlyMap<string, unknown>;
  readonly #make: (host: string) => ReadyContext | undefined;
  readonly #now: () => number;
  readonly #ready = new LRUCache<string, ReadyContext>({ max: MAX_READY });

  constructor(
    hosts: ReadonlySet<string> | ReadonlyMap<string, unknown>,
    make: (host: string) => ReadyContext | undefined,
    now: () => number,
  ) {
    this.#hosts = hosts;
    this.#make = make;
    this.#now = now;
  }

  get size(): number {
    return this.#hosts.size;
  }

  has(host: string): boolean {
    return this.#hosts.has(host);
  }

  get(host: string): SecureContext | undefined {
    const ready = this.#ready.get(host);
    if (isReady(ready, this.#now())) return ready.context;
    const made = this.#hosts.has(host) ? this.#make(host) : undefined;
    if (made !== undefined) this.#ready.set(host, made);
    return made?.context;
  }

  keys(): MapIterator<string> {
    return this.#hosts.keys();
  }

  *entries(): MapIterator<[string, SecureContext]> {
    for (const host of this.#hosts.keys()) {
      const context = this.get(host);
      if (context !== undefined) yield [host, context];
    }
  }

  *values(): MapIterator<SecureContext> {
    for (const [, context] of this.entries()) yield context;
  }

  forEach(visit: (value: SecureContext, key: string, map: ReadonlyMap<string, SecureContext>) => void): void {
    for (const [host, context] of this.entries()) visit(context, host, this);
  }

  [Symbol.iterator](): MapIterator<[string, SecureContext]> {
    return this.entries();
  }
}
