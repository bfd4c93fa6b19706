import type { SharedDenials } from '../cache/facts.ts';
import type { Freshness } from '../kit/freshness.ts';
import type { Locks } from '../kit/locks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Lifecycle } from '../kit/process.ts';
import type { SecretKeys } from '../kit/sealed.ts';
import type { Logger } from '../telemetry/log.ts';
import { PostgresDenials } from './denials.ts';
import { isAway } from './failures.ts';
import type { PostgresFeed } from './feed.ts';
import { type FollowedStores, follow } from './followed-stores.ts';
import { KeptState } from './kept-state.ts';
import { KnownUntil } from './known-until.ts';
import { PostgresNodes } from './nodes.ts';
import { openPostgres, type PostgresOptions, type PostgresStores } from './open.ts';
import { type Resealed, reseal } from './sealed-columns.ts';
import { FleetSecrets, FleetTicketKeys } from './secrets.ts';
import { Uptake } from './uptake.ts';
import { readWhole, type WholeState, writeWhole } from './whole-state.ts';

export { readWhole, writeWhole };

/** Every node of a fleet can open it, or has not the keys of that fleet. */
const PROOF = 'proof';

export interface FleetOptions extends Omit<PostgresOptions, 'sealer' | 'startWithout' | 'log'> {
  readonly keys: SecretKeys;
  readonly log: Logger;
  /** Of this node's data directory, 16 hex digits. */
  readonly nodeId: string;
  /** `cluster.address`. */
  readonly address: string | null;
  readonly version: string;
}

/** The state that several gateways share, as each process that works on it has it. */
export interface Fleet {
  readonly stores: FollowedStores & { readonly locks: Locks };
  /** As `Via` names all gateways of this fleet: 16 hex digits. */
  readonly identity: string;
  readonly nodes: PostgresNodes;
  /** The secret of that name, by whichever node it was put first; null where a node that serves cannot ask, since the database is away. */
  shared(name: string, make: () => string): Promise<string | null>;
  /** The secret of that name; null where none was put. */
  find(name: string): Promise<string | null>;
  readonly database: PostgresStores['database'];
  /** All state that must not be lost, at one moment, secrets opened. */
  whole(): Promise<WholeState>;
  /** Asks the database now: ms there and back, its clock minus ours, and whether what is said is encrypted on the way. */
  measure(): Promise<{ readonly roundTrip: number; readonly clock: number; readonly encrypted: boolean }>;
  /** See `reseal`. */
  reseal(): Promise<Resealed>;
  readonly feed: PostgresFeed;
}

/** As a gateway that serves has it. */
export interface ServingFleet extends Fleet {
  /** 48 bytes that encrypt session tickets on all nodes; another buffer after each change. */
  readonly ticketKeys: () => Buffer;
  /** What registries deny to one of them. */
  readonly denials: SharedDenials;
  /** Until when this node may serve by what it knows. */
  readonly freshness: Freshness;
}

/**
 * Opens the shared state for a command: the database has to be there.
 * @throws {OperatorError} `DATABASE_UNREACHABLE`, `DATABASE_REFUSED`, `DATABASE_NEWER`, `SECRET_KEY_MISSING` …
 */
export async function openFleet(options: FleetOptions, lifecycle: Lifecycle): Promise<Fleet> {
  const postgres = await openPostgres({ ...options, sealer: options.keys });
  lifecycle.defer('the connections to the database', () => postgres.close());
  const secrets = new FleetSecrets({ database: postgres.database, sealer: options.keys });
  await proveKeys(secrets, postgres.database.where);
  const fleet = fleetOf(postgres, postgres, new Uptake(postgres.feed), await postgres.identity(), options);
  lifecycle.defer('the list of nodes', () => fleet.nodes.close());
  await fleet.nodes.observe();
  return { ...fleet, shared: (name, make) => secrets.shared(name, make) };
}

export interface ServingOptions extends FleetOptions {
  /** Where this node keeps what it serves by. */
  readonly keptFile: string;
  /** How long the keys of session tickets are used, ms. */
  readonly ticketKeysMs: number;
  /** Resolves once every process of this gateway serves by what was loaded. */
  readonly published: () => Promise<void>;
}

/**
 * Opens the shared state for a gateway that serves. Where the database is away it starts with what it kept when it last had it.
 * @throws {OperatorError} as `openFleet`; `DATABASE_UNREACHABLE` where nothing was kept
 */
export async function openServingFleet(options: ServingOptions, lifecycle: Lifecycle): Promise<ServingFleet> {
  const { keys, log, keptFile } = options;
  const kept = KeptState.open(keptFile, keys, log);
  lifecycle.defer('the state that is kept for a start without the database', () => kept.close());
  const postgres = await openPostgres({ ...options, sealer: keys, startWithout: kept.isWhole }).catch(
    (error: unknown) => {
      throw isAway(error) && error instanceof OperatorError ? nothingKept(error, keptFile) : error;
    },
  );
  lifecycle.defer('the connections to the database', () => postgres.close());
  const { database, feed, locks } = postgres;
  const secrets = new FleetSecrets({ database, sealer: keys });
  await unlessAway(() => proveKeys(secrets, database.where));
  const identity = (await unlessAway(() => postgres.identity())) ?? kept.before('identity');
  if (identity === undefined) throw new Error(`${keptFile} has no identity of the fleet`);
  kept.put('identity', identity);
  const uptake = new Uptake(feed);
  lifecycle.defer(
    'what is loaded when the database is back',
    feed.onContact(({ reachable }) => {
      if (reachable) uptake.catchUp();
    }),
  );
  const known = new KnownUntil({ feed, uptake, published: options.published, log });
  lifecycle.defer('the time until which what is known holds', () => known.close());
  const fleet = fleetOf(postgres, follow(postgres, uptake, kept), uptake, identity, options);
  lifecycle.defer('the place among the nodes', () => fleet.nodes.close());
  const ticketKeys = await FleetTicketKeys.open({ secrets, locks, feed, kept, log, everyMs: options.ticketKeysMs });
  lifecycle.defer('the keys of session tickets', () => ticketKeys.close());
  const denials = new PostgresDenials({ database, feed, node: options.nodeId, log });
  lifecycle.defer('what registries deny to other nodes', () => denials.close());
  const shared = async (name: string, make: () => string) =>
    (await unlessAway(() => secrets.shared(name, make))) ?? null;
  return { ...fleet, shared, denials, ticketKeys: ticketKeys.current, freshness: known.freshness };
}

function fleetOf(
  { database, feed, locks }: PostgresStores,
  stores: FollowedStores,
  uptake: Uptake,
  identity: string,
  { keys: sealer, log, nodeId: id, address, version }: FleetOptions,
): Omit<Fleet, 'shared'> {
  const nodes = new PostgresNodes({ database, feed, sealer, uptake, self: { id, address, version }, log });
  const { aliases, users, certificates, challenges, counters } = stores;
  return {
    stores: { aliases, users, certificates, challenges, counters, locks },
    identity,
    nodes,
    database,
    feed,
    find: async (name) => (await new FleetSecrets({ database, sealer }).find(name))?.value ?? null,
    measure: () => measure(database),
    whole: () => readWhole(database, sealer),
    reseal: () => reseal(database, sealer),
  };
}

async function measure(database: PostgresStores['database']) {
  const before = performance.now();
  const { rows } = await database.query<{ now: number; ssl: boolean }>(
    `SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS now,
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS ssl`,
  );
  const roundTrip = performance.now() - before;
  const [{ now, ssl } = { now: Date.now(), ssl: false }] = rows;
  return { roundTrip, clock: now - (Date.now() - roundTrip / 2), encrypted: ssl };
}

/** @throws {OperatorError} `SECRET_KEY_MISSING` */
async function proveKeys(secrets: FleetSecrets, where: string): Promise<void> {
  try {
    await secrets.shared(PROOF, () => 'the keys are those of this fleet');
  } catch (error) {
    if (!(error instanceof OperatorError) || error.code !== 'SECRET_KEY_MISSING') throw error;
    const { code, message, next } = error;
    const others = `the keys of this gateway are not those of the database ${where}: ${message}`;
    throw new OperatorError(code, others, { next, cause: error });
  }
}

/** @throws as `ask`, unless the database is away */
async function unlessAway<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (!isAway(error)) throw error;
    return undefined;
  }
}

function nothingKept({ message, cause }: OperatorError, keptFile: string): OperatorError {
  return new OperatorError(
    'DATABASE_UNREACHABLE',
    `${message}; and ${keptFile}, by which a gateway starts without it, is not there yet`,
    {
      next: 'bring the database back, or correct the URL, and start again: a gateway that had the database once starts without it',
      cause,
    },
  );
}
