import acme from 'acme-client';
import { IssuerError } from '../certs/issuer.ts';
import type { AccountRecord, CertStore } from '../certs/store.ts';
import { newKeyPair } from '../certs/x509.ts';
import type { IssuerConfig } from '../config/config.ts';
import { SingleFlight } from '../kit/async.ts';
import type { Fence, Locks } from '../kit/locks.ts';

/** How long the lock of an account outlives a node that vanished while it registered, ms. */
const LEASE = { leaseMs: 60_000 };
/** An account that was made in the place of a closed one is itself replaced no sooner than this, ms: a CA that closes each wants none, and counts them. */
const REPLACED_AGAIN = 24 * 3_600_000;

/**
 * The account at one CA. Its key is kept before the CA hears of it, so that a kill in between loses nothing: registering again with the
 * same key gives the same account (RFC 8555 §7.3.1). Many hosts start at once: one of them registers for all of this process, so that a
 * CA that refuses or hangs costs them one attempt, not one each in turn; and under a lock, for the other nodes.
 */
export class Account {
  readonly #config: IssuerConfig;
  #email: string | null;
  readonly #store: CertStore;
  readonly #locks: Locks;
  readonly #registering = new SingleFlight<AccountRecord>();
  #replacedAt = Number.NEGATIVE_INFINITY;

  constructor(config: IssuerConfig, email: string | null, store: CertStore, locks: Locks) {
    this.#config = config;
    this.#email = email;
    this.#store = store;
    this.#locks = locks;
  }

  /** A client that speaks for the account, registering it where that has not happened. To be called within a conversation. */
  async client(signal: AbortSignal): Promise<acme.Client> {
    const held = await this.#store.account(this.#config.directory);
    return this.#speakFor(held?.url == null ? await this.#alone(signal, (under) => this.#register(under)) : held);
  }

  /** To whom the CA writes from now on; an account that there is already is changed. To be called within a conversation. */
  async writeTo(email: string | null): Promise<void> {
    this.#email = email;
    const held = await this.#store.account(this.#config.directory);
    if (held?.url == null) return;
    await this.#speakFor(held).updateAccount({ contact: email === null ? [] : [`mailto:${email}`] });
  }

  /** The CA has forgotten the account (it lost its data, or is another one by now): registers once more with the same key. */
  async recover(unknown: string, signal: AbortSignal): Promise<void> {
    await this.#alone(signal, async (under) => {
      const held = await this.#store.account(this.#config.directory);
      // Another host's order has registered it again already.
      if (held?.url != null && held.url !== unknown) return held;
      if (held !== null) await this.#store.putAccount({ ...held, url: null }, under);
      return this.#register(under);
    });
  }

  /**
   * The account was deactivated, which its holder asks for and nobody can take back (RFC 8555 §7.3.6): registers another, with a new key.
   * @param closed its URL @returns false where this has been done lately, so that it is for a person to look
   */
  async replace(closed: string, signal: AbortSignal): Promise<boolean> {
    let done = true;
    await this.#alone(signal, async (under) => {
      const { directory } = this.#config;
      const held = await this.#store.account(directory);
      // Another host's order, or another node, has replaced it already.
      if (held?.url != null && held.url !== closed) return held;
      const now = performance.now();
      done = now - this.#replacedAt >= REPLACED_AGAIN;
      if (!done && held !== null) return held;
      this.#replacedAt = now;
      await this.#store.putAccount({ directory, key: newKeyPair().pem, url: null }, under);
      return this.#register(under);
    });
    return done;
  }

  #alone(signal: AbortSignal, task: (under: Fence) => Promise<AccountRecord>): Promise<AccountRecord> {
    const name = `account ${this.#config.directory}`;
    return this.#registering.do(name, async () => {
      const lock = await this.#locks.acquire(name, { ...LEASE, signal });
      try {
        return await task(lock);
      } finally {
        await lock.release();
      }
    });
  }

  async #register(under: Fence): Promise<AccountRecord> {
    const { directory } = this.#config;
    const account = (await this.#store.account(directory)) ?? { directory, key: newKeyPair().pem, url: null };
    if (account.url !== null) return account;
    await this.#store.putAccount(account, under);
    const client = this.#speakFor(account);
    const contact = this.#email === null ? {} : { contact: [`mailto:${this.#email}`] };
    try {
      await client.createAccount({ termsOfServiceAgreed: true, ...contact });
    } catch (error) {
      // Where the CA knows the key already (a kill right after registering), acme-client goes on to update the account; its URL is known by then.
      if (urlOf(client) === null) throw error;
    }
    const registered = { ...account, url: client.getAccountUrl() };
    await this.#store.putAccount(registered, under);
    return registered;
  }

  #speakFor(account: AccountRecord): acme.Client {
    const { directory, eab } = this.#config;
    return new acme.Client({
      directoryUrl: directory,
      accountKey: account.key,
      ...(account.url === null ? {} : { accountUrl: account.url }),
      ...(eab === null ? {} : { externalAccountBinding: { kid: eab.keyId, hmacKey: eab.hmacKey } }),
    });
  }
}

function urlOf(client: acme.Client): string | null {
  try {
    return client.getAccountUrl();
  } catch {
    return null;
  }
}

/**
 * Whether the CA says that the account was deactivated: by its holder, as RFC 8555 §7.1.2 has it; what a CA closes itself is `revoked`, and stays closed.
 * What a validation met is not the CA's own word.
 */
export function accountIsDeactivated(error: unknown): boolean {
  return (
    error instanceof IssuerError &&
    !error.challengeFailed &&
    error.is('unauthorized') &&
    /\baccount\b.*\bdeactivated\b/i.test(error.detail)
  );
}

/** Whether the CA says that it does not know the account. */
export function accountIsUnknown(error: unknown): boolean {
  return error instanceof IssuerError && error.is('accountDoesNotExist');
}
