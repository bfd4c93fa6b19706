import { randomBytes, randomInt } from 'node:crypto';
import { connect } from 'node:net';
import type { DnsPlace, DnsRecord } from '../certs/dns-01.ts';
import { IssuerError } from '../certs/issuer.ts';
import {
  encodeUpdate,
  MalformedMessage,
  readAnswer,
  sign,
  type TsigAlgorithm,
  type TsigKey,
  type TxtUpdate,
} from './message.ts';
import { type DnsProvider, type Secret, TTL } from './provider.ts';

/** A primary answers once the change is on its disk, ms. */
const ANSWER_TIMEOUT = 20_000;

/** RFC 1035 §4.1.1, RFC 2136 §2.2: what a server answers in place of doing it. */
const REFUSALS: Readonly<Record<number, string>> = {
  1: 'FORMERR: it cannot read the update',
  2: 'SERVFAIL: it has a fault of its own; its log says more',
  4: 'NOTIMP: it takes no updates',
  5: 'REFUSED: it takes the key, but the key may not change this name (allow-update, update-policy)',
  9: 'NOTAUTH: it is not in charge of the zone',
  10: 'NOTZONE: the name is not in its zone',
};

export interface Rfc2136Options {
  readonly host: string;
  readonly port: number;
  readonly keyName: string;
  readonly algorithm: TsigAlgorithm;
  readonly secret: Secret;
  /** Epoch milliseconds; the machine's without it. */
  readonly now?: () => number;
}

/** Dynamic updates (RFC 2136) over TCP, signed with a TSIG key (RFC 8945). BIND, Knot, PowerDNS and Windows take them. */
export class Rfc2136 implements DnsProvider {
  readonly kind = 'rfc2136';
  readonly name: string;
  readonly #options: Rfc2136Options;
  readonly #server: string;

  constructor(options: Rfc2136Options) {
    const { host, port, keyName } = options;
    this.#options = options;
    this.#server = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    this.name = `rfc2136 (${this.#server}, key ${keyName})`;
  }

  async add(record: DnsRecord, signal: AbortSignal): Promise<void> {
    await this.#update({ ...record, ttl: TTL }, signal);
  }

  async remove(record: DnsRecord, signal: AbortSignal): Promise<void> {
    await this.#update({ ...record, ttl: null }, signal);
  }

  /** Removes a value that is not there: the server looks at the key and at what it may change, and has nothing to do. */
  async check({ zone, name }: DnsPlace, signal: AbortSignal): Promise<void> {
    await this.#update({ zone, name, value: randomBytes(32).toString('base64url'), ttl: null }, signal);
  }

  async #update(update: TxtUpdate, signal: AbortSignal): Promise<void> {
    const { now = Date.now } = this.#options;
    const key = await this.#key();
    const id = randomInt(0x10000);
    const signed = sign(encodeUpdate(id, update), key, now());
    const answer = await this.#exchange(signed.message, signal);
    const { code, tsigError, genuine } = this.#read(() => readAnswer(answer, key, signed.mac));
    if (tsigError !== 0) throw this.#refused(this.#aboutKey(tsigError));
    // What says no may come from anybody; what says yes may not.
    if (code !== 0) throw this.#refused(`${update.name} in ${update.zone}: ${REFUSALS[code] ?? `code ${code}`}`);
    if (!genuine || answer.readUInt16BE(0) !== id)
      throw this.#refused('its answer is not signed with the key: something else answered');
  }

  async #key(): Promise<TsigKey> {
    const { keyName, algorithm, secret } = this.#options;
    return { name: keyName, algorithm, secret: Buffer.from(await secret(), 'base64') };
  }

  #aboutKey(error: number): string {
    const { keyName, algorithm } = this.#options;
    switch (error) {
      case 16:
        return `BADSIG: it knows the key ${keyName}, and the secret is another one (acme.dns.secret)`;
      case 17:
        return `BADKEY: it knows no key ${keyName} of ${algorithm} (acme.dns.keyId, acme.dns.algorithm)`;
      case 18:
        return 'BADTIME: its clock and the one of this machine are more than five minutes apart: set them by NTP';
      default:
        return `it does not take the signature (TSIG error ${error})`;
    }
  }

  #read<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      throw this.#refused(`its answer cannot be read: ${error.message}`, error);
    }
  }

  /** One message and its answer, each behind its length (RFC 1035 §4.2.2). */
  async #exchange(message: Buffer, stop: AbortSignal): Promise<Buffer> {
    const { host, port } = this.#options;
    const signal = AbortSignal.any([stop, AbortSignal.timeout(ANSWER_TIMEOUT)]);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    const socket = connect({ host, port, signal });
    try {
      socket.write(Buffer.concat([length, message]));
      let received = Buffer.alloc(0);
      for await (const chunk of socket) {
        received = Buffer.concat([received, chunk as Buffer]);
        const whole = received.length < 2 ? Number.POSITIVE_INFINITY : 2 + received.readUInt16BE(0);
        if (received.length >= whole) return received.subarray(2, whole);
      }
      throw new Error('it closed the connection without an answer');
    } catch (error) {
      stop.throwIfAborted();
      if (signal.aborted) throw this.#refused(`it gave no answer within ${ANSWER_TIMEOUT / 1000} s`, error);
      throw this.#refused((error as Error).message, error);
    } finally {
      socket.destroy();
    }
  }

  #refused(detail: string, cause?: unknown): IssuerError {
    return new IssuerError('dnsProvider', `the DNS server ${this.#server} does not take the update: ${detail}`, {
      cause,
    });
  }
}
