import type { CounterStore } from '../access/counters.ts';
import { Users } from '../access/users.ts';
import { AliasTable } from '../aliases/alias-table.ts';
import { presetTest } from '../aliases/presets.ts';
import { seedRows } from '../aliases/yaml.ts';
import { type Certificates, createCertificates } from '../certs/create.ts';
import type { DnsZones } from '../certs/dns-01.ts';
import { shareInternalRoot } from '../certs/internal-ca.ts';
import type { CoveredHost } from '../certs/service.ts';
import { publicHostOf } from '../clients/facts.ts';
import type { Nodes } from '../cluster/nodes.ts';
import type { Config } from '../config/config.ts';
import { Lifecycle } from '../kit/process.ts';
import { pseudonymOf } from '../kit/via.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { INTERNAL_CA, openStores, type Stores, type StoresOptions } from './stores.ts';

/** How long a CA may take to hear of another address, ms. */
const CONTACT_TIMEOUT = 60_000;

/** What a data directory holds and must not be lost, opened by the one process that works on it. */
export interface State {
  readonly table: AliasTable;
  readonly users: Users;
  readonly counters: CounterStore;
  readonly locks: Stores['locks'];
  readonly objects: Stores['objects'];
  readonly history: Stores['history'];
  readonly warm: Stores['warm'];
  /** As `Via` names this gateway, or all of its fleet. */
  readonly pseudonym: string;
  /** The gateways that share this state. */
  readonly nodes: Nodes;
  /** What they share besides; null for the only one of its database. */
  readonly fleet: Stores['fleet'];
  readonly ticketKeys: Stores['ticketKeys'];
  readonly freshness: Stores['freshness'];
  readonly denials: Stores['denials'];
  readonly snapshot: Stores['snapshot'];
  /** Null with `tls.mode: off`. */
  readonly certificates: Certificates | null;
  /** Every host that is to have a certificate, by the table as it is now. */
  coveredHosts(): CoveredHost[];
  /** The table, the certificates and the CAs; see `Reconfigurable`. */
  reconfigure(config: Config): Promise<void>;
  close(): Promise<void>;
}

/**
 * Takes the data directory, opens its stores, fills a new table, and lets certificates follow the table.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, `DATABASE_NEWER` …
 */
export async function openState(options: {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly activity: StoresOptions['activity'];
  readonly serving?: StoresOptions['serving'];
  /** Resolves once every process of this gateway answers the challenges as they are now; left out where nothing is ordered. */
  readonly published?: () => Promise<void>;
}): Promise<State> {
  const { config, log, metrics, activity, serving = null } = options;
  const lifecycle = new Lifecycle();
  const close = () => lifecycle.end((what, error) => log.error({ err: error }, `${what} did not close well`));
  try {
    const stores = await openStores(config, { activity, serving, lifecycle, log });
    const { domain } = config;
    const table = await AliasTable.open({
      store: stores.aliases,
      domain,
      publicHost: publicHostOf(config),
      ports: portsOf(config),
      seed: seedRows,
      log,
    });
    lifecycle.defer('the alias table', () => table.close());
    const isPreset = presetTest(seedRows());
    const coveredHosts = (): CoveredHost[] => [
      { host: config.domain, order: true },
      ...[...table.snapshot().hosts.values()].map((alias) => ({
        host: alias.host,
        order: alias.certificate,
        // Ordered all at once, the presets would be half of what a CA gives in a week, for names that perhaps nobody uses.
        onDemand: isPreset(alias),
      })),
    ];
    const { certificates: store, challenges, locks, nodes } = stores;
    // A CA asks whichever of them the name leads to.
    const published = async () => {
      await options.published?.();
      await nodes.settled();
    };
    const { fleet } = stores;
    if (fleet !== null && config.tls.mode === 'internal') {
      const replaced = await shareInternalRoot(config.dataDir, (own) => fleet.shared(INTERNAL_CA, own));
      if (replaced)
        log.warn(
          `the local CA of ${config.dataDir} was replaced by that of the other gateways: clients have to trust ca.crt anew`,
        );
    }
    // The ACME library is a third of all code: a gateway that asks no CA never loads it.
    const issuers =
      config.tls.mode === 'acme' ? (await import('../acme/issuer.ts')).createIssuers(config.acme, store, locks) : [];
    const certificates = await createCertificates({
      config,
      store,
      challenges,
      zones: await zonesOf(config),
      published,
      locks,
      log,
      metrics,
      issuers,
    });
    if (certificates !== null) {
      lifecycle.defer('the certificates', () => certificates.close());
      table.subscribe(() => certificates.cover(coveredHosts()));
    }
    const pseudonym = pseudonymOf(stores.identity);
    const users = await Users.open(stores.users, log);
    lifecycle.defer('the users', () => users.close());
    let { email } = config.acme;
    const reconfigure = async (next: Config): Promise<void> => {
      await table.reconfigure({ publicHost: publicHostOf(next), ports: portsOf(next) });
      certificates?.reconfigure(next, await zonesOf(next));
      if (next.acme.email === email) return;
      email = next.acme.email;
      // A CA that cannot be asked now is no reason for anybody to wait.
      for (const issuer of issuers) {
        const terms = { signal: AbortSignal.timeout(CONTACT_TIMEOUT), timeout: CONTACT_TIMEOUT };
        issuer.writeTo(email, terms).catch((error: unknown) => {
          log.warn({ err: error, issuer: issuer.name }, `${issuer.name} was not told that acme.email has changed`);
        });
      }
    };
    return {
      reconfigure,
      table,
      users,
      counters: stores.counters,
      locks,
      objects: stores.objects,
      history: stores.history,
      warm: stores.warm,
      pseudonym,
      nodes,
      fleet: stores.fleet,
      ticketKeys: stores.ticketKeys,
      freshness: stores.freshness,
      denials: stores.denials,
      snapshot: stores.snapshot,
      certificates,
      coveredHosts,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Where DNS-01 challenges are answered; null where none are. What speaks to providers is loaded where one is named. */
async function zonesOf({ tls, acme }: Config): Promise<DnsZones | null> {
  if (tls.mode !== 'acme' || acme.dns.provider === null) return null;
  return (await import('../dns/zones.ts')).openZones(acme);
}

/** Where this gateway is reached: its listeners, and what stands before them. */
function portsOf({ listen, publicUrl }: Config): number[] {
  const mapped = publicUrl === null ? '' : new URL(publicUrl).port;
  return [listen.https?.port ?? 0, listen.http?.port ?? 0, Number(mapped)].filter((port) => port !== 0);
}
