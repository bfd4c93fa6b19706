import { randomBytes } from 'node:crypto';
import { Reloader } from '../kit/async.ts';
import type { Fence, Locks } from '../kit/locks.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { Logger } from '../telemetry/log.ts';
import type { PostgresDatabase } from './database.ts';
import { isAway } from './failures.ts';
import type { PostgresFeed } from './feed.ts';
import type { KeptState } from './kept-state.ts';

const TOPIC = 'secrets';
const TICKET_KEYS = 'ticket-keys';
/** Bytes of the keys of session tickets, as `tls.Server.setTicketKeys` takes them. */
const TICKET_KEY_BYTES = 48;
/** How often the age of the ticket keys is looked at, ms. */
const LOOK = 60_000;
/** The lease of whoever replaces them, ms: two statements. */
const LEASE = 10_000;

interface SecretsOptions {
  readonly database: PostgresDatabase;
  readonly sealer: Sealer;
}

/** Secrets that the nodes of a fleet share, each under a name, sealed. */
export class FleetSecrets {
  readonly #database: PostgresDatabase;
  readonly #sealer: Sealer;

  constructor({ database, sealer }: SecretsOptions) {
    this.#database = database;
    this.#sealer = sealer;
  }

  /** Null where there is none. `age` in ms, by the clock of the database. */
  async find(name: string): Promise<{ readonly value: string; readonly age: number } | null> {
    const { rows } = await this.#database.query<{ sealed_value: string; age: number }>(
      `SELECT sealed_value, extract(epoch FROM clock_timestamp() - made_at)::float8 * 1000 AS age FROM secrets WHERE name = $1`,
      [name],
    );
    const [row] = rows;
    return row === undefined ? null : { value: this.#sealer.open(row.sealed_value, contextOf(name)), age: row.age };
  }

  /** The secret of that name, by whichever node it was put first. */
  async shared(name: string, make: () => string): Promise<string> {
    const found = await this.find(name);
    if (found !== null) return found.value;
    await this.#put(name, make(), false);
    return (await this.find(name))?.value ?? this.shared(name, make);
  }

  /** Replaces it. @throws {FencedError} */
  replace(name: string, value: string, under: Fence): Promise<void> {
    return this.#put(name, value, true, under);
  }

  #put(name: string, value: string, replace: boolean, under?: Fence): Promise<void> {
    return this.#database.write({ by: this, topic: TOPIC, under }, async (query) => {
      const { rowCount } = await query(
        `INSERT INTO secrets (name, sealed_value, made_at) VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (name) DO ${replace ? 'UPDATE SET sealed_value = $2, made_at = clock_timestamp()' : 'NOTHING'}`,
        [name, this.#sealer.seal(value, contextOf(name))],
      );
      return { result: undefined, changed: rowCount === 1 };
    });
  }
}

export interface FleetTicketKeysOptions {
  readonly secrets: FleetSecrets;
  readonly locks: Locks;
  readonly feed: PostgresFeed;
  readonly kept: KeptState;
  readonly log: Logger;
  /** How long keys are used, ms. */
  readonly everyMs: number;
}

/**
 * The keys that encrypt session tickets on all nodes of a fleet, so that a client goes on at any of them with what another has given it. They are
 * replaced by one node, under a lock. While the database is away they are used for twice as long; then each node makes its own.
 */
export class FleetTicketKeys {
  readonly #options: FleetTicketKeysOptions;
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  readonly #timer: NodeJS.Timeout;
  #current: Buffer;
  /** By the monotonic clock, ms. */
  #madeAt = performance.now();

  private constructor(options: FleetTicketKeysOptions) {
    this.#options = options;
    const kept = options.kept.before('secrets')?.[TICKET_KEYS];
    this.#current = kept === undefined ? randomBytes(TICKET_KEY_BYTES) : Buffer.from(kept, 'base64');
    this.#reloader = new Reloader(
      () => this.#load(),
      (error) => {
        // That it is away was said, and this is tried for as long.
        const level = isAway(error) ? 'debug' : 'warn';
        options.log[level]({ err: error }, 'the keys of session tickets could not be read; it is tried again');
      },
    );
    this.#unwatch = options.feed.watch(TOPIC, this, this.#reloader.request);
    this.#timer = setInterval(() => this.#look(), Math.min(LOOK, options.everyMs / 4)).unref();
  }

  /** With those of the fleet, where the database is there: else with those that were kept. */
  static async open(options: FleetTicketKeysOptions): Promise<FleetTicketKeys> {
    const keys = new FleetTicketKeys(options);
    try {
      await keys.#reloader.now();
    } catch (error) {
      if (isAway(error)) return keys;
      await keys.close();
      throw error;
    }
    return keys;
  }

  /** 48 bytes, another buffer after each change. */
  readonly current = (): Buffer => this.#current;

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#unwatch();
    await this.#reloader.close();
  }

  async #load(): Promise<void> {
    const { secrets, locks, everyMs } = this.#options;
    let found = await secrets.find(TICKET_KEYS);
    if (found === null || found.age >= everyMs) {
      const lock = await locks.tryAcquire(TICKET_KEYS, { leaseMs: LEASE });
      // Null: another node is about to replace them, and says so.
      if (lock !== null) {
        try {
          found = await secrets.find(TICKET_KEYS);
          if (found === null || found.age >= everyMs) {
            await secrets.replace(TICKET_KEYS, randomBytes(TICKET_KEY_BYTES).toString('base64'), lock);
            found = await secrets.find(TICKET_KEYS);
          }
        } finally {
          await lock.release();
        }
      }
    }
    if (found !== null) this.#take(found.value, found.age);
  }

  #take(value: string, age: number): void {
    this.#madeAt = performance.now() - age;
    const keys = Buffer.from(value, 'base64');
    if (!keys.equals(this.#current)) this.#current = keys;
    this.#options.kept.put('secrets', { [TICKET_KEYS]: value });
  }

  #look(): void {
    const age = performance.now() - this.#madeAt;
    const { everyMs } = this.#options;
    if (age >= 2 * everyMs) {
      this.#current = randomBytes(TICKET_KEY_BYTES);
      this.#madeAt = performance.now();
    }
    if (age >= everyMs) this.#reloader.request();
  }
}

/** What a secret is sealed for. */
function contextOf(name: string): string {
  return `secrets.sealed_value:${name}`;
}
