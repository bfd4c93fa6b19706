import { generateKeyPairSync } from 'node:crypto';
import acme from 'acme-client';
import { IssuerError } from '../certs/issuer.ts';
import type { AccountRecord, CertStore } from '../certs/store.ts';
import type { IssuerConfig } from '../config/config.ts';
import { SingleFlight } from '../kit/single-flight.ts';

/**
 * The account at one CA. Its key is kept before the CA hears of it, so that a kill in between loses nothing: registering again with the
 * same key gives the same account (RFC 8555 §7.3.1).
 */
export class Account {
  readonly #config: IssuerConfig;
  readonly #email: string | null;
  readonly #store: CertStore;
  /** Many hosts start at once; the CA sees one registration. */
  readonly #registering = new SingleFlight<AccountRecord>();

  constructor(config: IssuerConfig, email: string | null, store: CertStore) {
    this.#config = config;
    this.#email = email;
    this.#store = store;
  }

  /** A client that speaks for the account, registering it where that has not happened. To be called within a conversation. */
  async client(): Promise<acme.Client> {
    const held = this.#store.account(this.#config.directory);
    const account = held?.url == null ? await this.#registering.do('', () => this.#register()) : held;
    return this.#speakFor(account);
  }

  /** The CA has forgotten the account (it lost its data, or is another one by now): registers once more with the same key. */
  async recover(unknown: string): Promise<void> {
    await this.#registering.do('', async () => {
      const held = this.#store.account(this.#config.directory);
      // Another host's order has been here already.
      if (held?.url != null && held.url !== unknown) return held;
      if (held !== null) this.#store.putAccount({ ...held, url: null });
      return this.#register();
    });
  }

  async #register(): Promise<AccountRecord> {
    const { directory } = this.#config;
    const account = this.#store.account(directory) ?? { directory, key: newKey(), url: null };
    if (account.url !== null) return account;
    this.#store.putAccount(account);
    const client = this.#speakFor(account);
    const contact = this.#email === null ? {} : { contact: [`mailto:${this.#email}`] };
    try {
      await client.createAccount({ termsOfServiceAgreed: true, ...contact });
    } catch (error) {
      // Where the CA knows the key already (a kill right after registering), acme-client goes on to update the account; its URL is known by then.
      if (urlOf(client) === null) throw error;
    }
    const registered = { ...account, url: client.getAccountUrl() };
    this.#store.putAccount(registered);
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

/** P-256, PKCS#8 PEM. */
export function newKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function urlOf(client: acme.Client): string | null {
  try {
    return client.getAccountUrl();
  } catch {
    return null;
  }
}

/** Whether the CA says that it does not know the account. */
export function accountIsUnknown(error: unknown): boolean {
  return error instanceof IssuerError && error.is('accountDoesNotExist');
}
