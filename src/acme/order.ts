import acme from 'acme-client';
import { alpnServerName, identifierOf } from '../certs/identifier.ts';
import { type IssueRequest, IssuerError } from '../certs/issuer.ts';
import type { CertStore, OrderRecord } from '../certs/store.ts';
import { type CertificateMaterial, coversHost, newKeyPair, readMaterial } from '../certs/x509.ts';
import { bracketed } from '../kit/networks.ts';
import { sleep } from '../kit/time.ts';
import { describeProblem, type Transport } from './transport.ts';

/** A CA validates within seconds; after more than this the order is left to the next attempt, which resumes it, ms. */
const POLL_TOTAL = 90_000;
const POLL_FIRST = 200;
const POLL_LONGEST = 5_000;
const POLL_GROWTH = 1.5;

type Order = acme.Order;
type OfferedChallenge = acme.Authorization['challenges'][number];

/** One order for one host (RFC 8555 §7.4), driven step by step, so that each can be reported, and resumed after a kill. */
export class OrderRun {
  readonly #client: acme.Client;
  readonly #transport: Transport;
  readonly #store: CertStore;
  readonly #request: IssueRequest;

  constructor(client: acme.Client, transport: Transport, store: CertStore, request: IssueRequest) {
    this.#client = client;
    this.#transport = transport;
    this.#store = store;
    this.#request = request;
  }

  /** @throws {IssuerError} and what acme-client throws */
  async run(extras: { profile: string | null; replaces: string | null }): Promise<CertificateMaterial> {
    const { order: start, key } = (await this.#resume()) ?? (await this.#place(extras));
    let order = start;
    try {
      if (order.status === 'pending') {
        await this.#authorise(order);
        order = await this.#poll(order, 'pending');
      }
      if (order.status === 'ready') order = await this.#finalise(order, key);
      if (order.status === 'processing') order = await this.#poll(order, 'processing');
    } catch (error) {
      // A refusal ends the order; a broken connection does not.
      if (error instanceof IssuerError && isFinal(error)) await this.#forget();
      throw error;
    }
    if (order.status !== 'valid') {
      await this.#forget();
      throw this.#refused(order.error, `the order ended as ${order.status}`);
    }
    return this.#download(order, key);
  }

  /** The order that an earlier run left, if the CA still has it and it can still lead somewhere. */
  async #resume(): Promise<{ order: Order; key: string } | null> {
    const record = await this.#store.order(this.#request.host, this.#transport.directory);
    if (record === null) return null;
    let order: Order;
    try {
      order = await this.#client.getOrder({ url: record.url } as Order);
    } catch (error) {
      if (error instanceof IssuerError && isFinal(error) && !error.is('accountDoesNotExist')) {
        await this.#forget();
        return null;
      }
      throw error;
    }
    if (order.status === 'invalid') {
      await this.#forget();
      return null;
    }
    this.#report('order', `taking up the order that was left ${order.status}`);
    return { order, key: record.key };
  }

  async #place(extras: { profile: string | null; replaces: string | null }): Promise<{ order: Order; key: string }> {
    const { host, names } = this.#request;
    const order = await this.#client.createOrder({
      identifiers: names.map(identifierOf),
      ...(extras.profile === null ? {} : { profile: extras.profile }),
      ...(extras.replaces === null ? {} : { replaces: extras.replaces }),
    } as acme.Order);
    // With the key of the certificate to be: whenever we are killed from here on, what the CA signs can be used.
    const record: OrderRecord = {
      host,
      directory: this.#transport.directory,
      url: order.url,
      key: newKeyPair().pem,
      createdAt: Date.now(),
    };
    await this.#store.putOrder(record, this.#request.under);
    await this.#request.onOrder();
    this.#report('order', `ordered from ${new URL(this.#transport.directory).host}`);
    return { order, key: record.key };
  }

  async #authorise(order: Order): Promise<void> {
    const all = await this.#client.getAuthorizations(order);
    const pending = all
      .filter(({ status }) => status !== 'valid')
      .map((authorization) => ({ authorization, challenge: this.#challengeOf(authorization) }));
    // All answers before the CA looks at any: the records of a domain and its wildcard have one name, which a resolver of the CA remembers.
    const published = await Promise.allSettled(
      pending.map(({ authorization, challenge }) => this.#publish(authorization, challenge)),
    );
    try {
      const failed = published.find(({ status }) => status === 'rejected');
      if (failed?.status === 'rejected') throw failed.reason;
      for (const { challenge } of pending) await this.#client.completeChallenge(challenge);
      if (pending.length > 0) this.#report('validate', 'waiting for the CA to look');
      for (const { authorization } of pending) await this.#pollAuthorization(authorization, this.#request.challenge);
    } finally {
      for (const one of published) if (one.status === 'fulfilled') await one.value();
    }
  }

  #challengeOf(authorization: acme.Authorization): OfferedChallenge {
    const { challenge: type, host } = this.#request;
    const challenge = authorization.challenges.find((offered) => (offered.type as string) === type);
    if (challenge !== undefined) return challenge;
    const offered = authorization.challenges.map((other) => other.type).join(', ') || 'none';
    throw new IssuerError('challengeUnavailable', `the CA offers no ${type} challenge for ${host}, only: ${offered}`, {
      directory: this.#transport.directory,
      challengeFailed: true,
    });
  }

  /** Resolves once the CA may look; the function withdraws the answer. */
  async #publish(authorization: acme.Authorization, challenge: OfferedChallenge): Promise<() => Promise<void>> {
    const { challenge: type, host, responder, onStep, signal, under } = this.#request;
    const keyAuthorization = await this.#client.getChallengeKeyAuthorization(challenge);
    // For this kind acme-client gives what the record has to say, which is the digest.
    if (type === 'dns-01') {
      const { value: name } = authorization.identifier;
      return responder.dns({ order: host, host: name, value: keyAuthorization, under, onStep, signal });
    }
    if (type === 'http-01') {
      const withdraw = await responder.http(challenge.token, keyAuthorization, under);
      this.#report(
        'challenge',
        `http-01: answering at http://${bracketed(host)}/.well-known/acme-challenge/${challenge.token}`,
      );
      return withdraw;
    }
    const [key, chain] = await acme.crypto.createAlpnCertificate(authorization, keyAuthorization, newKeyPair().pem);
    const serverName = alpnServerName(host);
    const withdraw = await responder.alpn(serverName, { chain: chain.toString(), key: key.toString() }, under);
    this.#report('challenge', `tls-alpn-01: answering acme-tls/1 handshakes for ${serverName}`);
    return withdraw;
  }

  async #pollAuthorization(authorization: acme.Authorization, type: string): Promise<void> {
    const polled = await this.#repeat(
      async () => (await this.#client.getAuthorizations({ authorizations: [authorization.url] } as Order))[0],
      (current) => current?.status === 'pending',
      'its validation',
    );
    if (polled?.status === 'valid') return;
    const failed = polled?.challenges.find((challenge) => (challenge.type as string) === type);
    throw this.#refused(failed?.error, `the authorization ended as ${polled?.status}`, true);
  }

  async #finalise(order: Order, key: string): Promise<Order> {
    this.#report('finalise', 'validated; asking for the certificate');
    const [, csr] = await acme.crypto.createCsr({ altNames: [...this.#request.names] }, key);
    return this.#client.finalizeOrder(order, csr);
  }

  #poll(order: Order, while_: Order['status']): Promise<Order> {
    return this.#repeat(
      () => this.#client.getOrder(order),
      (current) => current.status === while_,
      'the order',
    );
  }

  async #download(order: Order, key: string): Promise<CertificateMaterial> {
    const chain = await this.#client.getCertificate(order);
    const { names } = this.#request;
    const wrong = async (detail: string, cause?: unknown) => {
      await this.#forget();
      return new IssuerError('badAnswer', detail, { directory: this.#transport.directory, cause });
    };
    let material: CertificateMaterial;
    try {
      material = readMaterial(chain, key);
    } catch (error) {
      throw await wrong(error instanceof Error ? error.message : String(error), error);
    }
    if (!names.every((name) => coversHost(material.names, name))) {
      throw await wrong(`the certificate is for ${material.names.join(', ')} instead of ${names.join(', ')}`);
    }
    return material;
  }

  /** Asks again and again, as the CA's Retry-After says or at growing intervals, while it is not done. */
  async #repeat<T>(ask: () => Promise<T>, unfinished: (value: T) => boolean, what: string): Promise<T> {
    const end = performance.now() + POLL_TOTAL;
    for (let wait = POLL_FIRST; ; wait = Math.min(POLL_LONGEST, wait * POLL_GROWTH)) {
      const value = await ask();
      if (!unfinished(value)) return value;
      const left = end - performance.now();
      if (left <= 0) {
        throw new IssuerError('timeout', `the CA has not finished ${what} within ${POLL_TOTAL / 1000} s`, {
          directory: this.#transport.directory,
        });
      }
      await sleep(Math.min(left, this.#transport.retryAfter ?? wait), this.#request.signal);
    }
  }

  #refused(problem: unknown, otherwise: string, challengeFailed = false): IssuerError {
    const { type, detail } = describeProblem(problem) ?? { type: 'badAnswer', detail: otherwise };
    return new IssuerError(type, detail, { directory: this.#transport.directory, challengeFailed });
  }

  async #forget(): Promise<void> {
    await this.#store.removeOrder(this.#request.host, this.#transport.directory, this.#request.under);
  }

  #report(step: string, message: string): void {
    this.#request.onStep({ step, message });
  }
}

/** The CA has answered, and will answer the same again for this order. */
function isFinal(error: IssuerError): boolean {
  if (error.challengeFailed) return true;
  if (error.unanswered) return false;
  if (['network', 'timeout'].includes(error.type)) return false;
  if (error.is('rateLimited') || error.is('serverInternal')) return false;
  return error.status === null || (error.status >= 400 && error.status < 500 && error.status !== 429);
}
