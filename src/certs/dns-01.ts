import { Mutex } from '../kit/async.ts';
import type { Locks } from '../kit/locks.ts';
import type { Clock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Challenges, DnsChallenge } from './challenges.ts';
import { type DnsAnswer, IssuerError } from './issuer.ts';
import { hostLock, ORDER_LEASE } from './order-manager.ts';

/** Port: the zones of DNS in which this gateway may put records, through one provider. src/dns/ implements it. */
export interface DnsZones {
  /** What puts records there, as `acme.dns.provider` has it. */
  readonly kind: string;
  /** For people: `rfc2136 (192.0.2.53:53)`. */
  readonly provider: string;
  /** Where the answers for a host have to stand: the CNAMEs of `_acme-challenge` followed, its zone found. @throws {IssuerError} `dnsZone` */
  find(host: string, signal: AbortSignal): Promise<DnsPlace>;
  /** Adds a TXT record beside others of its name; does nothing where it is there. @throws {IssuerError} `dnsProvider` */
  add(record: DnsRecord, signal: AbortSignal): Promise<void>;
  /** Removes this one value; does nothing where it is gone. @throws {IssuerError} `dnsProvider` */
  remove(record: DnsRecord, signal: AbortSignal): Promise<void>;
  /**
   * Waits until the zone's own servers all have the record. Resolves to what is worth a word all the same, such as a server that does not
   * answer at all. `onWait` is told once whom is waited for. @throws {IssuerError} `dnsPropagation`
   */
  settle(record: DnsRecord, signal: AbortSignal, onWait: (message: string) => void): Promise<readonly string[]>;
  /** Whether records could be put there now, as far as that can be seen without leaving any. @throws {IssuerError} */
  check(place: DnsPlace, signal: AbortSignal): Promise<void>;
}

/** Names in lower case, without a dot at the end. */
export interface DnsPlace {
  readonly zone: string;
  readonly name: string;
  /** The names that led there, `_acme-challenge.<host>` first; it alone where it is no CNAME. */
  readonly via: readonly string[];
}

export type DnsRecord = Pick<DnsChallenge, 'zone' | 'name' | 'value'>;

/**
 * How long it is remembered that a record may still stand somewhere, ms: a provider whose credentials were lost may get new ones. Then
 * whoever looks after the zone has to remove it.
 */
const REMEMBERED = 30 * 24 * 3_600_000;
/** For one change, ms: a hook that calls an API several times is done long before. */
const CHANGE_TIMEOUT = 60_000;

export interface DnsChallengesParts {
  readonly challenges: Challenges;
  /** Null where none is configured. */
  readonly zones: DnsZones | null;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly log: Logger;
  /** Ends a sweep. */
  readonly signal: AbortSignal;
}

/**
 * Answers DNS-01 challenges (RFC 8555 §8.4). Each record is kept in the store before it is put into its zone, and until it is gone from
 * there: what a process that was killed has left is removed at the next start, or by the next order for the same host.
 */
export class DnsChallenges {
  readonly #parts: DnsChallengesParts;
  /** One change at a time: hooks are rarely written to run beside themselves, and APIs count calls. */
  readonly #mutex = new Mutex();
  #zones: DnsZones | null;
  #sweeping: Promise<void> = Promise.resolve();
  /** Records of other providers that were told of. */
  readonly #told = new Set<string>();

  constructor(parts: DnsChallengesParts) {
    this.#parts = parts;
    this.#zones = parts.zones;
  }

  /** For challenges from now on. */
  use(zones: DnsZones | null): void {
    this.#zones = zones;
  }

  /** Puts up one answer; a CA may look when it resolves. To be called by the holder of the order's lock. @throws {IssuerError} */
  async put({ order, host, value, under, onStep, signal }: DnsAnswer): Promise<() => Promise<void>> {
    const zones = this.#zones;
    if (zones === null) throw new IssuerError('challengeUnavailable', 'acme.dns names no provider');
    const { zone, name, via } = await zones.find(host, signal);
    const expiresAt = this.#parts.clock.now() + REMEMBERED;
    const provider = zones.kind;
    const challenge: DnsChallenge = { type: 'dns-01', host: order, zone, provider, name, value, expiresAt };
    await this.#parts.challenges.put(challenge, under);
    const withdraw = () => this.#withdraw(zones, challenge);
    try {
      await this.#change(() => zones.add(challenge, within(signal)));
      const way = via.length > 1 ? ` (${via.join(' → ')})` : '';
      onStep({ step: 'challenge', message: `dns-01: put a TXT record at ${name} in the zone ${zone}${way}` });
      const remarks = await zones.settle(challenge, signal, (message) => onStep({ step: 'challenge', message }));
      for (const remark of remarks) onStep({ step: 'challenge', message: `warning: ${remark}` });
      return withdraw;
    } catch (error) {
      await withdraw();
      throw error;
    }
  }

  /** Removes what an earlier run left of this order. To be called by the holder of its lock, before it puts up answers. */
  async clear(order: string): Promise<void> {
    const zones = this.#zones;
    for (const challenge of await this.#left()) {
      if (challenge.host === order && zones !== null && isOf(zones, challenge)) await this.#withdraw(zones, challenge);
    }
  }

  /** Begins to remove what earlier runs left, of every order that does not run now. */
  sweep(): void {
    this.#sweeping = this.#sweep().catch((error: unknown) => {
      this.#parts.log.warn({ err: error }, 'records that were left in DNS could not be looked at');
    });
  }

  async idle(): Promise<void> {
    await this.#sweeping;
  }

  async #sweep(): Promise<void> {
    const { locks, signal, log } = this.#parts;
    const zones = this.#zones;
    const left = await this.#left();
    for (const challenge of left) if (zones === null || !isOf(zones, challenge)) this.#tellOfAnothers(challenge);
    if (zones === null) return;
    for (const order of new Set(left.filter((one) => isOf(zones, one)).map(({ host }) => host))) {
      if (signal.aborted) return;
      // Held: the order runs, here or on another node, and removes its own.
      const lock = await locks.tryAcquire(hostLock(order), ORDER_LEASE);
      if (lock === null) continue;
      try {
        await this.clear(order);
        log.info({ host: order }, 'records that an earlier run had left in DNS were looked after');
      } finally {
        await lock.release();
      }
    }
  }

  async #left(): Promise<DnsChallenge[]> {
    const all = await this.#parts.challenges.list(this.#parts.clock.now());
    return all.filter((challenge) => challenge.type === 'dns-01');
  }

  /** Never rejects: how the order went matters more. What could not be removed stays in the store, for the next one who looks. */
  async #withdraw(zones: DnsZones, challenge: DnsChallenge): Promise<void> {
    try {
      // Whoever stops the order wants the record gone, too: it has a time limit of its own.
      await this.#change(() => zones.remove(challenge, AbortSignal.timeout(CHANGE_TIMEOUT)));
      await this.#parts.challenges.remove(challenge);
    } catch (error) {
      const { zone, name } = challenge;
      this.#parts.log.warn(
        { err: error, zone, name },
        'a record could not be removed from DNS; it is tried again later',
      );
    }
  }

  /** Once: whoever knows the other provider's credentials has to decide. */
  #tellOfAnothers({ zone, name, value, provider }: DnsChallenge): void {
    const key = `${name} ${value}`;
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#parts.log.warn(
      { zone, name, value, provider },
      'a record that an earlier run put into DNS stands there still, and acme.dns.provider is another now: remove it by hand',
    );
  }

  #change(task: () => Promise<void>): Promise<void> {
    return this.#mutex.run(task);
  }
}

function isOf(zones: DnsZones, { provider }: DnsChallenge): boolean {
  return provider === undefined || provider === zones.kind;
}

function within(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(CHANGE_TIMEOUT)]);
}
