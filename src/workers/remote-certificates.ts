import type { SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { contextOf, MAX_READY } from '../certs/contexts.ts';
import type { ContextSnapshot } from '../certs/service.ts';
import { wildcardDomain } from '../certs/wildcard.ts';
import { SingleFlight } from '../kit/async.ts';
import type { Channel } from './channel.ts';
import type { CertificateMessage, StateMessage } from './protocol.ts';

/** A context is asked for anew after this, ms: the local CA renews its leaves when they are asked for. */
const KEPT_FOR = 10 * 60_000;

/**
 * What a worker's handshakes read. A context is built here when its host is first asked for, from the certificate that the owner then
 * sends; challenges come with the state, since a CA's validation may meet any process.
 */
export class RemoteCertificates {
  readonly #channel: Channel;
  readonly #ready = new LRUCache<string, SecureContext>({ max: MAX_READY, ttl: KEPT_FOR });
  #hosts: ReadonlySet<string> = new Set();
  #waiting: ReadonlySet<string> = new Set();
  #wildcards: ReadonlySet<string> = new Set();
  readonly #asked = new SingleFlight<SecureContext | null>();
  #version = -1;
  #snapshot: ContextSnapshot = { byHost: new Map(), fallback: null };
  #challenges: ReadonlyMap<string, SecureContext> = new Map();

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Resolves once nothing older is shown. */
  async update({ certificates, challenges }: StateMessage): Promise<void> {
    this.#challenges = new Map(challenges.map((challenge) => [challenge.host, contextOf(challenge)]));
    if (certificates === null || certificates.version === this.#version) return;
    const fallback = await this.#fetch(null);
    this.#hosts = new Set(certificates.hosts);
    this.#waiting = new Set(certificates.waiting);
    this.#wildcards = new Set(certificates.wildcards);
    this.#version = certificates.version;
    this.#ready.clear();
    this.#snapshot = { byHost: new Map(), fallback, find: (host) => this.#find(host) };
  }

  contexts(): ContextSnapshot {
    return this.#snapshot;
  }

  get alpnChallenges(): ReadonlyMap<string, SecureContext> {
    return this.#challenges;
  }

  /** The port for HTTP-01 is the owner's alone. */
  httpChallenge(): null {
    return null;
  }

  async #find(name: string): Promise<SecureContext | null> {
    const domain = wildcardDomain(name);
    const isCovered = !this.#hosts.has(name) && !this.#waiting.has(name) && this.#wildcards.has(domain);
    const host = isCovered ? `*.${domain}` : name;
    // Its certificate may have come since this process was told of any, or be ordered now: only the owner knows.
    if (this.#waiting.has(host)) return this.#asked.do(host, () => this.#fetch(host));
    if (!isCovered && !this.#hosts.has(host)) return null;
    const ready = this.#ready.get(host);
    if (ready !== undefined) return ready;
    const version = this.#version;
    const context = await this.#fetch(host);
    // What was asked for before a swap may be older than it.
    if (context !== null && version === this.#version) this.#ready.set(host, context);
    return context;
  }

  async #fetch(host: string | null): Promise<SecureContext | null> {
    const material = await this.#channel.call<CertificateMessage | null>('certificate', { host });
    return material === null ? null : contextOf(material);
  }
}
