import type { SecureContext } from 'node:tls';
import { Reloader } from '../kit/async.ts';
import type { Fence } from '../kit/locks.ts';
import { type Clock, systemClock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { type ChainAndKey, contextOf, materialOf } from './contexts.ts';
import type { ChallengeResponder } from './issuer.ts';

/**
 * Port: the answers to challenges that CAs may ask for now. A CA asks whichever node of a fleet the name leads to, so every node reads
 * them all. Every method is atomic, and durable when it resolves. test/conformance/challenges.ts is its contract.
 */
export interface Challenges {
  /**
   * Replaces the one of the same type and token, host, or name and value. `under`: the lock of the order that it is for; where that was granted to
   * another since, it rejects with a `FencedError` and nothing is written.
   */
  put(challenge: Challenge, under?: Fence): Promise<void>;
  /** Does nothing where it is gone already, or where another has taken its place. */
  remove(challenge: Challenge): Promise<void>;
  /** Those that have not expired by then (epoch milliseconds); the store may forget the others. */
  list(now: number): Promise<Challenge[]>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}

export type Challenge = HttpChallenge | AlpnChallenge | DnsChallenge;

/** RFC 8555 §8.3: `http://<host>/.well-known/acme-challenge/<token>` answers the key authorization. */
export interface HttpChallenge {
  readonly type: 'http-01';
  readonly token: string;
  readonly keyAuthorization: string;
  readonly expiresAt: number;
}

/** RFC 8737 §3: a handshake for the host (of an address, its reverse name) that offers `acme-tls/1` is answered with this certificate. */
export interface AlpnChallenge extends ChainAndKey {
  readonly type: 'tls-alpn-01';
  readonly host: string;
  readonly expiresAt: number;
}

/**
 * RFC 8555 §8.4: a TXT record in DNS, which stands there until it is removed. It is put here before it is put there, so that a process that is
 * killed in between leaves no record that nobody knows of.
 */
export interface DnsChallenge {
  readonly type: 'dns-01';
  /** Whose order it is for: while one runs, the record is that order's to remove. */
  readonly host: string;
  readonly zone: string;
  /** What put it there, as `DnsZones.kind`; no other can remove it. Records of before this was kept have none, and whoever there is tries. */
  readonly provider?: string;
  /** Of the TXT record, without a dot at the end; several values may stand side by side. */
  readonly name: string;
  readonly value: string;
  readonly expiresAt: number;
}

/**
 * Longer than any order waits for its validation, ms. A challenge is removed when its order is done; only a process that was killed
 * leaves one behind.
 */
const LIFETIME = 600_000;

interface Snapshot {
  readonly http: ReadonlyMap<string, string>;
  readonly alpn: ReadonlyMap<string, SecureContext>;
}

interface PendingChallengesOptions {
  readonly clock?: Clock;
  /** Resolves once every process of this gateway answers the challenges as they are now. */
  readonly published?: (() => Promise<void>) | undefined;
  readonly log: Logger;
}

/** What the listeners answer to CAs: a snapshot of the challenges, read synchronously, loaded again whenever they change. */
export class PendingChallenges implements Pick<ChallengeResponder, 'http' | 'alpn'> {
  readonly #challenges: Challenges;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #published: () => Promise<void>;
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  #snapshot: Snapshot = { http: new Map(), alpn: new Map() };
  #cancelExpiry: () => void = () => {};

  /** Loads what is pending. */
  static async open(challenges: Challenges, options: PendingChallengesOptions): Promise<PendingChallenges> {
    const pending = new PendingChallenges(challenges, options);
    await pending.#reloader.now();
    return pending;
  }

  private constructor(challenges: Challenges, options: PendingChallengesOptions) {
    const { clock = systemClock, published = async () => {}, log } = options;
    this.#challenges = challenges;
    this.#clock = clock;
    this.#published = published;
    this.#log = log;
    this.#reloader = new Reloader(
      () => this.#load(),
      (error) => log.error({ err: error }, 'pending challenges could not be read; it is tried again'),
    );
    this.#unwatch = challenges.watch(this.#reloader.request);
  }

  http(token: string, keyAuthorization: string, under?: Fence): Promise<() => Promise<void>> {
    return this.#putUp({ type: 'http-01', token, keyAuthorization, expiresAt: this.#clock.now() + LIFETIME }, under);
  }

  alpn(host: string, { chain, key }: ChainAndKey, under?: Fence): Promise<() => Promise<void>> {
    return this.#putUp({ type: 'tls-alpn-01', host, chain, key, expiresAt: this.#clock.now() + LIFETIME }, under);
  }

  /** Null where no such token is pending. */
  keyAuthorization(token: string): string | null {
    return this.#snapshot.http.get(token) ?? null;
  }

  /** Contexts by host; another map after each change. */
  get alpnContexts(): ReadonlyMap<string, SecureContext> {
    return this.#snapshot.alpn;
  }

  async close(): Promise<void> {
    this.#unwatch();
    await this.#reloader.close();
    // Last: a load that was still running has set it anew.
    this.#cancelExpiry();
  }

  /** In the store, and answered by every process of this gateway, when it resolves. */
  async #putUp(challenge: Challenge, under: Fence | undefined): Promise<() => Promise<void>> {
    await this.#challenges.put(challenge, under);
    await this.#reloader.now();
    await this.#published();
    return async () => {
      try {
        await this.#challenges.remove(challenge);
        await this.#reloader.now();
      } catch (error) {
        // It expires by itself; how the order went matters more.
        this.#log.warn({ err: error }, 'an answered challenge could not be removed');
      }
    };
  }

  async #load(): Promise<void> {
    const now = this.#clock.now();
    const pending = await this.#challenges.list(now);
    const http = new Map<string, string>();
    const alpn = new Map<string, SecureContext>();
    for (const challenge of pending) {
      if (challenge.type === 'http-01') http.set(challenge.token, challenge.keyAuthorization);
      else if (challenge.type === 'tls-alpn-01') {
        const context = this.#contextFor(challenge);
        if (context !== null) alpn.set(challenge.host, context);
      }
    }
    this.#snapshot = { http, alpn };
    this.#cancelExpiry();
    const next = Math.min(...pending.map(({ expiresAt }) => expiresAt));
    if (Number.isFinite(next)) this.#cancelExpiry = this.#clock.after(next - now, this.#reloader.request);
  }

  /** Null where TLS does not accept the certificate: one bad challenge must not hide the others. */
  #contextFor(challenge: AlpnChallenge): SecureContext | null {
    const known = this.#snapshot.alpn.get(challenge.host);
    if (known !== undefined && materialOf(known)?.chain === challenge.chain) return known;
    try {
      return contextOf(challenge);
    } catch (error) {
      this.#log.warn({ err: error, host: challenge.host }, 'a pending challenge has a certificate that cannot be used');
      return null;
    }
  }
}
