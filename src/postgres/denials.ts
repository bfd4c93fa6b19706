import { LRUCache } from 'lru-cache';
import type { Denial, SharedDenials } from '../cache/facts.ts';
import { Reloader } from '../kit/async.ts';
import { contentId, type Digest, repositoryId } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'denials';
/** What was told a moment ago is not told again, ms: whoever asks for what is denied can make the database write no more than this. */
const TOLD_FOR = 60_000;
const MAX_TOLD = 10_000;
/** Denials that wait for the database, of each kind; beyond them the oldest are told by whichever node is denied next. */
const MAX_WAITING = 10_000;
/**
 * Denials of what this node knew nothing of that it tells in a minute, of one registry; the rest waits. Clients can make names up without end, and each
 * is a row that lies for long. A registry that closes repositories closes few in a minute; and another node that hears of one late gives meanwhile only
 * what it would have given if nobody had asked here.
 */
const UNKNOWN_IN_MINUTE = 60;
const MINUTE = 60_000;
/** Read in one go. */
const BATCH = 1_000;
/** How long one is kept, days: a node that was away for longer is to be started with an empty cache. */
const KEPT_DAYS = 90;

interface DenialRow {
  readonly seq: number;
  readonly node: string;
  readonly registry: string;
  readonly repository: string;
  readonly digest: string;
}

export interface PostgresDenialsOptions {
  readonly database: Pick<PostgresDatabase, 'query' | 'write'>;
  readonly feed: Pick<PostgresFeed, 'watch' | 'onContact'>;
  /** `Node.id`. */
  readonly node: string;
  readonly log: Pick<Logger, 'warn'>;
}

/** Denials that the nodes of a fleet tell each other through their database: each applies those of the others in the order in which they were told. */
export class PostgresDenials implements SharedDenials {
  readonly #options: PostgresDenialsOptions;
  readonly #told = new LRUCache<string, true>({ max: MAX_TOLD, ttl: TOLD_FOR });
  readonly #waiting = new Map<string, Denial>();
  /** The same, of what this node knew nothing of. */
  readonly #unknown = new Map<string, Denial>();
  /** By registry: how many of those were told in this minute. */
  readonly #toldUnknown = new Map<string, number>();
  #minute: NodeJS.Timeout | undefined;
  readonly #listeners = new Set<(denial: Denial) => void>();
  readonly #reloader: Reloader;
  readonly #ends: readonly (() => void)[];
  /** The last that this node has applied; null until the database has said it. */
  #seen: number | null = null;

  constructor(options: PostgresDenialsOptions) {
    this.#options = options;
    const failed = (error: unknown) =>
      options.log.warn({ err: error }, 'what registries denied was not told between the nodes; it is tried again');
    this.#reloader = new Reloader(() => this.#exchange(), failed);
    this.#ends = [
      options.feed.watch(TOPIC, this, this.#reloader.request),
      options.feed.onContact(({ reachable }) => {
        if (reachable) this.#reloader.request();
      }),
    ];
  }

  announce(denial: Denial, known: boolean): void {
    const { digest } = denial;
    const id = digest === undefined ? repositoryId(denial) : contentId(denial, digest);
    // One that waits its turn may turn out to be of something known.
    if (this.#told.has(id) && !(known && this.#unknown.delete(id))) return;
    this.#told.set(id, true);
    const waiting = known ? this.#waiting : this.#unknown;
    const [oldest] = waiting.keys();
    if (waiting.size >= MAX_WAITING && oldest !== undefined) waiting.delete(oldest);
    waiting.set(id, denial);
    this.#reloader.request();
  }

  watch(listener: (denial: Denial) => void): () => void {
    this.#listeners.add(listener);
    this.#reloader.request();
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when this node has told its own, and applied those of the others until now. */
  settled(): Promise<void> {
    return this.#reloader.now();
  }

  async close(): Promise<void> {
    for (const end of this.#ends) end();
    clearTimeout(this.#minute);
    await this.#reloader.close();
  }

  async #exchange(): Promise<void> {
    for (const [id, denial] of [...this.#waiting]) {
      await this.#tell(denial);
      this.#waiting.delete(id);
    }
    for (const [id, denial] of [...this.#unknown]) {
      const told = this.#toldUnknown.get(denial.registry) ?? 0;
      if (told >= UNKNOWN_IN_MINUTE) continue;
      await this.#tell(denial);
      this.#unknown.delete(id);
      this.#toldUnknown.set(denial.registry, told + 1);
      this.#minute ??= setTimeout(() => this.#nextMinute(), MINUTE).unref();
    }
    // What nobody here would hear of is left for whoever listens.
    if (this.#listeners.size > 0) await this.#hear();
  }

  #nextMinute(): void {
    this.#minute = undefined;
    this.#toldUnknown.clear();
    if (this.#unknown.size > 0) this.#reloader.request();
  }

  #tell({ registry, repository, digest = '' as Digest }: Denial): Promise<void> {
    const { database, node } = this.#options;
    return database.write({ by: this, topic: TOPIC }, async (query) => {
      // The row that makes those who tell wait for each other, so that numbers are in the order of the commits.
      const { rows } = await query<{ revision: number }>('SELECT revision FROM revisions WHERE topic = $1 FOR UPDATE', [
        TOPIC,
      ]);
      await query(
        `INSERT INTO denials (seq, node, registry, repository, digest, at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
         ON CONFLICT (registry, repository, digest) DO UPDATE SET seq = $1, node = $2, at = clock_timestamp()`,
        [(rows[0]?.revision ?? 0) + 1, node, registry, repository, digest],
      );
      await query(`DELETE FROM denials WHERE at < clock_timestamp() - make_interval(days => $1)`, [KEPT_DAYS]);
      return { result: undefined, changed: true };
    });
  }

  async #hear(): Promise<void> {
    const { database, node } = this.#options;
    this.#seen ??= await seenBy(database.query.bind(database), node);
    for (;;) {
      const before: number = this.#seen;
      const { rows } = await database.query<DenialRow>(
        'SELECT seq, node, registry, repository, digest FROM denials WHERE seq > $1 ORDER BY seq LIMIT $2',
        [before, BATCH],
      );
      for (const { seq, node: by, registry, repository, digest } of rows) {
        const denial = { registry, repository, ...(digest === '' ? {} : { digest: digest as Digest }) };
        if (by !== node) for (const listener of this.#listeners) listener(denial);
        this.#seen = seq;
      }
      if (this.#seen === before) return;
      await database.query(
        'INSERT INTO denials_seen (node, seq) VALUES ($1, $2) ON CONFLICT (node) DO UPDATE SET seq = $2',
        [node, this.#seen],
      );
    }
  }
}

async function seenBy(query: Query, node: string): Promise<number> {
  const { rows } = await query<{ seq: number }>('SELECT seq FROM denials_seen WHERE node = $1', [node]);
  return rows[0]?.seq ?? 0;
}
