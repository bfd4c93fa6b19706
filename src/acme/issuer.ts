import { isAddress } from '../certs/identifier.ts';
import { type IssueRequest, type Issuer, IssuerError, type RenewalInfo } from '../certs/issuer.ts';
import type { CertStore } from '../certs/store.ts';
import type { CertificateMaterial } from '../certs/x509.ts';
import type { IssuerConfig } from '../config/config.ts';
import { FencedError, type Locks } from '../kit/locks.ts';
import { Account, accountIsDeactivated, accountIsUnknown } from './account.ts';
import { certificateId, DirectoryReader, parseRenewalInfo } from './directory.ts';
import { OrderRun } from './order.ts';
import { type Terms, Transport } from './transport.ts';

/** The profile in which Let's Encrypt certifies addresses (160 hours); other CAs that have one of this name mean the same by it. */
const ADDRESS_PROFILE = 'shortlived';

/** A CA that speaks ACME (RFC 8555), with ARI (RFC 9773), profiles (draft-ietf-acme-profiles) and external account binding. */
export class AcmeIssuer implements Issuer {
  readonly directory: string;
  readonly name: string;
  readonly #profile: string | null;
  readonly #store: CertStore;
  readonly #transport: Transport;
  readonly #account: Account;
  readonly #reader: DirectoryReader;

  constructor(config: IssuerConfig, email: string | null, store: CertStore, locks: Locks) {
    this.directory = config.directory;
    this.name = new URL(config.directory).host;
    this.#profile = config.profile;
    this.#store = store;
    this.#transport = new Transport(config.directory, config.caFile);
    this.#account = new Account(config, email, store, locks);
    this.#reader = new DirectoryReader(this.#transport);
  }

  obtain(request: IssueRequest): Promise<CertificateMaterial> {
    const terms = { signal: request.signal, timeout: request.timeout };
    return this.#transport.run(terms, async () => {
      try {
        return await this.#orderOnce(request, terms);
      } catch (error) {
        const url = (await this.#store.account(this.directory))?.url ?? '';
        if (accountIsDeactivated(error)) return await this.#orderAnew(request, terms, url, error);
        if (!accountIsUnknown(error)) throw this.#own(error);
        request.onStep({ step: 'account', message: `${this.name} no longer knows our account: registering again` });
        try {
          await this.#account.recover(url, terms.signal);
          return await this.#orderOnce(request, terms);
        } catch (again) {
          throw this.#own(again);
        }
      }
    });
  }

  /** By another account, since this one was deactivated. The certificate that is to be replaced is the old account's, so the order does not name it. */
  async #orderAnew(request: IssueRequest, terms: Terms, closed: string, why: unknown): Promise<CertificateMaterial> {
    try {
      if (!(await this.#account.replace(closed, terms.signal))) throw why;
      const message = `warning: our account at ${this.name} was deactivated, which only somebody who has its key can ask for: a new one is registered; if it was not you, look who can read the data directory and its backups`;
      request.onStep({ step: 'account', message });
      return await this.#orderOnce({ ...request, replaces: null }, terms);
    } catch (error) {
      throw this.#own(error);
    }
  }

  /** To whom the CA writes from now on. @throws where the CA does not take it; accounts that it gives later have it all the same */
  writeTo(email: string | null, terms: Terms): Promise<void> {
    return this.#transport.run(terms, async () => {
      await this.#reader.read(terms);
      await this.#account.writeTo(email);
    });
  }

  async renewalInfo(chain: string, terms: Terms): Promise<RenewalInfo | null> {
    const { renewalInfo } = await this.#reader.read(terms);
    const id = renewalInfo === null ? null : certificateId(chain);
    if (renewalInfo === null || id === null) return null;
    const answer = await this.#transport.send('GET', `${renewalInfo.replace(/\/$/, '')}/${id}`, terms);
    try {
      return parseRenewalInfo(answer.body, answer.retryAfter);
    } catch (cause) {
      throw new IssuerError('badAnswer', `${this.name} sent renewal information that cannot be read`, {
        directory: this.directory,
        cause,
      });
    }
  }

  async reach(terms: Terms): Promise<void> {
    await this.#reader.readAnew(terms);
  }

  clockSkew(): number | null {
    return this.#transport.clockSkew;
  }

  async #orderOnce(request: IssueRequest, terms: Terms): Promise<CertificateMaterial> {
    const directory = await this.#reader.read(terms);
    const profile = this.#profileFor(request.host, directory.profiles);
    const client = await this.#account.client(terms.signal);
    const run = new OrderRun(client, this.#transport, this.#store, request);
    const replaces =
      directory.renewalInfo === null || request.replaces === null ? null : certificateId(request.replaces);
    try {
      return await run.run({ profile, replaces });
    } catch (error) {
      // Another order has replaced it already, or the CA does not count it as ours (RFC 9773 §5): order without the claim.
      const conflict = error instanceof IssuerError && (error.status === 409 || error.is('alreadyReplaced'));
      if (replaces === null || !conflict) throw error;
      request.onStep({ step: 'order', message: 'the CA counts the old certificate as replaced: ordering without it' });
      return await run.run({ profile, replaces: null });
    }
  }

  /**
   * The configured profile, else the one that the CA has for what is ordered.
   * @throws {IssuerError} where the CA does not list it: it would only refuse the order
   */
  #profileFor(host: string, offered: readonly string[] | null): string | null {
    if (this.#profile === null) return isAddress(host) && offered?.includes(ADDRESS_PROFILE) ? ADDRESS_PROFILE : null;
    if (offered?.includes(this.#profile)) return this.#profile;
    const only = offered === null || offered.length === 0 ? 'no profiles at all' : `only: ${offered.join(', ')}`;
    throw new IssuerError('invalidProfile', `${this.name} offers no profile ${this.#profile}, ${only}`, {
      directory: this.directory,
    });
  }

  /** acme-client's own errors are plain ones. */
  #own(error: unknown): unknown {
    if (
      error instanceof IssuerError ||
      error instanceof FencedError ||
      (error as { name?: unknown }).name === 'AbortError'
    )
      return error;
    const detail = error instanceof Error ? error.message : String(error);
    const ours = error instanceof TypeError || error instanceof RangeError;
    return new IssuerError(ours ? 'internal' : 'badAnswer', detail, { directory: this.directory, cause: error });
  }
}

/** The configured CAs, in their order. */
export function createIssuers(
  acme: { readonly email: string | null; readonly issuers: readonly IssuerConfig[] },
  store: CertStore,
  locks: Locks,
): AcmeIssuer[] {
  return acme.issuers.map((config) => new AcmeIssuer(config, acme.email, store, locks));
}
