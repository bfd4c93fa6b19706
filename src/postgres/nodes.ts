import { setTimeout as timer, setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { selfSigned } from '../certs/x509.ts';
import type { NodeIdentity, TrustedNodes } from '../cluster/identity.ts';
import type { Laggards, Node, Nodes } from '../cluster/nodes.ts';
import { Reloader } from '../kit/async.ts';
import type { SecretKeys } from '../kit/sealed.ts';
import { jitter } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';
import { TOPICS, type Uptake } from './uptake.ts';

/** How often a node says that it lives, ms: one small statement. */
const BEAT = 2_500;
/** A node of which nothing was heard for so long, ms, by the database's clock, does not live: three heartbeats may be lost. */
const LIVES_FOR = 10_000;
/** A node that has not lived for so long, ms, is forgotten: it may have been a machine that is repaired. */
const FORGOTTEN_AFTER = 24 * 3_600_000;
/**
 * For so long, ms, a node that does not live may come back and serve by what it knew: a command names it. What is silent for longer is a machine that was
 * given up, or is started anew and reads all.
 */
const MAY_COME_BACK = 3_600_000;
/** How long a command waits for the other nodes, ms: as long as it takes to find that one of them is dead. */
const SETTLE_WITHIN = 10_000;
/** How often it looks, ms; it doubles up to the most. Most changes are taken into use within a look or two. */
const LOOK = { least: 20, most: 250 };
/** Of a node's certificate, ms. It is replaced when two thirds of that are over, and with each start. */
const CERTIFICATE_LIFETIME = 30 * 24 * 3_600_000;
/** Clocks of other nodes may be slow. */
const CERTIFICATE_BACKDATE = 24 * 3_600_000;

const TOPIC = 'nodes';

interface Row {
  readonly id: string;
  readonly address: string | null;
  readonly version: string;
  readonly draining: boolean;
  readonly sealed_certificate: string;
}

export interface PostgresNodesOptions {
  readonly database: PostgresDatabase;
  readonly feed: PostgresFeed;
  readonly sealer: SecretKeys;
  readonly uptake: Uptake;
  readonly self: Omit<Node, 'draining'>;
  readonly log: Logger;
  /** For tests that must not wait for long: all times are divided by it. */
  readonly haste?: number;
}

/**
 * The gateways that share a PostgreSQL database: a row each. Whoever beats looks for those that do not any more and says so in their row, so that
 * joining, leaving and dying are changes of one topic, and nobody reads the whole list but after one. While the database is away this node is
 * alone, as far as it knows.
 */
export class PostgresNodes implements Nodes, TrustedNodes {
  readonly #options: PostgresNodesOptions;
  readonly #haste: number;
  readonly #listeners = new Set<() => void>();
  readonly #reloader: Reloader;
  readonly #unwatch: () => void;
  readonly #ending = new AbortController();
  #self: Node;
  #identity: NodeIdentity & { readonly renewAt: number };
  #live: readonly Node[];
  #certificates: ReadonlyMap<string, string>;
  /** Those that lived when the database was asked last. */
  #lastKnown: readonly Node[] = [];
  /** Last answer of the database to a heartbeat, by the monotonic clock. */
  #beatAt = Number.NEGATIVE_INFINITY;
  #beating: Promise<void> | null = null;
  #published: () => Promise<void> = async () => {};
  #reporting: Promise<void> | null = null;
  #reportAgain = false;
  #reported: unknown = null;

  constructor(options: PostgresNodesOptions) {
    this.#options = options;
    this.#haste = options.haste ?? 1;
    this.#self = { ...options.self, draining: false };
    this.#identity = newIdentity(options.self.id);
    this.#live = [this.#self];
    this.#certificates = new Map([[this.#self.id, this.#identity.certificate]]);
    this.#reloader = new Reloader(
      () => this.#load(),
      (error) => options.log.warn({ err: error }, 'the list of nodes could not be read; it is tried again'),
    );
    this.#unwatch = options.feed.watch(TOPIC, this, this.#reloader.request);
    options.uptake.onLoad(() => void this.#report());
  }

  get self(): Node {
    return this.#self;
  }

  /** What this node shows to others; another object after each rotation. */
  get identity(): NodeIdentity {
    return this.#identity;
  }

  live(): readonly Node[] {
    return this.#live;
  }

  certificates(): ReadonlyMap<string, string> {
    return this.#certificates;
  }

  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads who lives, without joining them: for a command that acts on the database while no gateway runs here. */
  async observe(): Promise<void> {
    await this.#reloader.now();
  }

  /**
   * Becomes one of the nodes, and stays one until `close`. It joins when the database is there.
   * @param published resolves once every process of this gateway serves by what was loaded
   */
  async join(published: () => Promise<void>): Promise<void> {
    this.#published = published;
    await this.#beat();
    this.#beating = this.#keepBeating();
    await this.#report();
  }

  async settled(signal?: AbortSignal): Promise<Laggards> {
    const deadline = performance.now() + SETTLE_WITHIN / this.#haste;
    const others = () => this.#lastKnown.filter(({ id }) => id !== this.#self.id);
    try {
      const { query } = this.#options.database;
      const { rows } = await query<{ wanted: string }>(
        'SELECT coalesce(jsonb_object_agg(topic, revision), $2)::text AS wanted FROM revisions WHERE topic = ANY ($1)',
        [TOPICS, '{}'],
      );
      const wanted = rows[0]?.wanted ?? '{}';
      // One that died has not taken it, and may come back; one that was ending does not.
      const known = await query<{ id: string }>(
        `SELECT id FROM nodes WHERE id <> $1
           AND (live OR NOT draining AND beat_at > clock_timestamp() - $2 * interval '1 ms')`,
        [this.#self.id, MAY_COME_BACK / this.#haste],
      );
      const ids = known.rows.map(({ id }) => id);
      for (let wait = LOOK.least; ids.length > 0; wait = Math.min(LOOK.most, 2 * wait)) {
        const behind = await query<Node & { readonly live: boolean }>(
          `SELECT id, address, version, draining, live FROM nodes WHERE id = ANY ($1) AND EXISTS (
             SELECT 1 FROM jsonb_each_text($2::jsonb) AS want
             WHERE coalesce((taken ->> want.key)::bigint, -1) < want.value::bigint)
           ORDER BY id`,
          [ids, wanted],
        );
        const nodes = behind.rows.map(({ live: _, ...node }) => node);
        if (!behind.rows.some(({ live }) => live) || performance.now() > deadline) return { nodes };
        await timer(wait, undefined, signal === undefined ? {} : { signal });
      }
      return { nodes: [] };
    } catch (error) {
      signal?.throwIfAborted();
      this.#options.log.warn({ err: error }, 'it is not known which nodes serve by the last change');
      return { nodes: others() };
    }
  }

  async drain(): Promise<void> {
    if (this.#self.draining) return;
    this.#self = { ...this.#self, draining: true };
    this.#publish(this.#live.map((node) => (node.id === this.#self.id ? this.#self : node)));
    if (this.#beating === null) return;
    await this.#change((query) => query('UPDATE nodes SET draining = true WHERE id = $1', [this.#self.id])).catch(
      (error: unknown) =>
        this.#options.log.warn({ err: error }, 'the other nodes could not be told that this one is ending'),
    );
  }

  /** Leaves the others, which know it at once where the database can be asked. */
  async close(): Promise<void> {
    this.#ending.abort();
    this.#unwatch();
    await this.#reloader.close();
    await this.#reporting;
    if (this.#beating === null) return;
    await this.#beating;
    await this.#change((query) => query('DELETE FROM nodes WHERE id = $1', [this.#self.id])).catch(() => {});
  }

  async #keepBeating(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await timer(jitter(BEAT / this.#haste), undefined, { signal, ref: false }).catch(() => {});
      if (!signal.aborted) await this.#beat();
    }
  }

  /** Never rejects. */
  async #beat(): Promise<void> {
    const { database, log } = this.#options;
    const livesFor = LIVES_FOR / this.#haste;
    try {
      if (Date.now() >= this.#identity.renewAt) this.#identity = newIdentity(this.#self.id);
      const isNew = this.#certificates.get(this.#self.id) !== this.#identity.certificate;
      const { rows } = await database.query<{ beaten: boolean; overdue: boolean }>(
        `WITH beat AS (UPDATE nodes SET beat_at = clock_timestamp() WHERE id = $1 AND live RETURNING 1)
         SELECT EXISTS (SELECT 1 FROM beat) AS beaten,
           EXISTS (SELECT 1 FROM nodes WHERE live AND id <> $1 AND beat_at < clock_timestamp() - $2 * interval '1 ms') AS overdue`,
        [this.#self.id, livesFor],
      );
      const wasAway = performance.now() - this.#beatAt > livesFor;
      if (rows[0]?.beaten !== true || isNew || !this.#live.some(({ id }) => id === this.#self.id)) await this.#enter();
      else if (wasAway) await this.#reloader.now();
      // After the database was away the others, too, have just come back, or are about to.
      if (rows[0]?.overdue === true && !wasAway) await this.#bury();
      this.#beatAt = performance.now();
      // What could not be said when it was taken into use is said now.
      if (this.#reported === null) void this.#report();
    } catch (error) {
      log.debug({ err: error }, 'no heartbeat');
      const alone = [this.#self];
      if (performance.now() - this.#beatAt > livesFor && !isDeepStrictEqual(this.#live, alone)) this.#publish(alone);
    }
  }

  /** Puts this node's row anew. */
  async #enter(): Promise<void> {
    const { sealer, uptake } = this.#options;
    const { id, address, version, draining } = this.#self;
    const certificate = this.#identity.certificate;
    await this.#change((query) =>
      query(
        `INSERT INTO nodes (id, address, version, draining, live, beat_at, taken, key_ids, sealed_certificate)
         VALUES ($1, $2, $3, $4, true, clock_timestamp(), $5, $6, $7)
         ON CONFLICT (id) DO UPDATE SET address = $2, version = $3, draining = $4, live = true, beat_at = clock_timestamp(),
           taken = $5, key_ids = $6, sealed_certificate = $7`,
        [
          id,
          address,
          version,
          draining,
          JSON.stringify(uptake.revisions()),
          JSON.stringify(sealer.ids),
          sealer.seal(certificate, contextOf(id)),
        ],
      ),
    );
    this.#reported = null;
    await this.#reloader.now();
    void this.#report();
  }

  /** Says of nodes that do not beat any more that they do not live. */
  async #bury(): Promise<void> {
    const buried = await this.#change((query) =>
      query<{ id: string }>(
        `UPDATE nodes SET live = false WHERE live AND id <> $1 AND beat_at < clock_timestamp() - $2 * interval '1 ms'
         RETURNING id, (SELECT count(*) FROM nodes) AS nodes`,
        [this.#self.id, LIVES_FOR / this.#haste],
      ),
    );
    if (buried.length > 0) {
      this.#options.log.warn(
        { nodes: buried.map(({ id }) => id) },
        'nodes that are not heard of any more are taken for dead',
      );
    }
    await this.#options.database.query(
      "DELETE FROM nodes WHERE NOT live AND beat_at < clock_timestamp() - $1 * interval '1 ms'",
      [FORGOTTEN_AFTER / this.#haste],
    );
    await this.#reloader.now();
  }

  #change<R>(work: (query: Query) => Promise<{ rows: R[]; rowCount: number | null }>): Promise<R[]> {
    return this.#options.database.write({ by: this, topic: TOPIC }, async (query) => {
      const { rows, rowCount } = await work(query);
      return { result: rows, changed: (rowCount ?? 0) > 0 };
    });
  }

  async #load(): Promise<void> {
    const { database, sealer, log } = this.#options;
    const { rows } = await database.query<Row>(
      'SELECT id, address, version, draining, sealed_certificate FROM nodes WHERE live ORDER BY id',
    );
    const certificates = new Map<string, string>();
    for (const { id, sealed_certificate: sealed } of rows) {
      try {
        certificates.set(id, sealer.open(sealed, contextOf(id)));
      } catch (error) {
        // Whoever could write it there without the keys is no node of this fleet.
        log.warn(
          { err: error, node: id },
          'the certificate of a node is not taken: other nodes will not speak with it',
        );
      }
    }
    this.#certificates = certificates;
    const found = rows.map(({ id, address, version, draining }) => ({ id, address, version, draining }));
    this.#lastKnown = found;
    this.#publish(found.map((node) => (node.id === this.#self.id ? this.#self : node)));
  }

  #publish(live: readonly Node[]): void {
    this.#live = live;
    for (const listener of this.#listeners) listener();
  }

  /** Says what this node serves by. One statement at a time, however many changes come meanwhile. */
  #report(): Promise<void> {
    this.#reportAgain = true;
    this.#reporting ??= this.#reportAll().finally(() => {
      this.#reporting = null;
    });
    return this.#reporting;
  }

  async #reportAll(): Promise<void> {
    const { database, uptake, log } = this.#options;
    while (this.#reportAgain && !this.#ending.signal.aborted) {
      this.#reportAgain = false;
      try {
        const taken = uptake.revisions();
        // Who has asked for what was loaded has it by then.
        await turn();
        await this.#published();
        if (isDeepStrictEqual(taken, this.#reported)) continue;
        const { rowCount } = await database.query('UPDATE nodes SET taken = $2 WHERE id = $1', [
          this.#self.id,
          JSON.stringify(taken),
        ]);
        if (rowCount === 1) this.#reported = taken;
      } catch (error) {
        // The next heartbeat that finds the database says it.
        this.#reported = null;
        log.debug({ err: error }, 'the other nodes could not be told what this one serves by');
      }
    }
  }
}

/** What a node's certificate is sealed for. */
function contextOf(id: string): string {
  return `nodes.sealed_certificate:${id}`;
}

function newIdentity(id: string): NodeIdentity & { readonly renewAt: number } {
  const now = Date.now();
  const { chain, key } = selfSigned({
    commonName: id,
    names: [],
    notBefore: now - CERTIFICATE_BACKDATE,
    notAfter: now + CERTIFICATE_LIFETIME,
    forClients: true,
  });
  return { id, key, certificate: chain, renewAt: now + (2 / 3) * CERTIFICATE_LIFETIME };
}
