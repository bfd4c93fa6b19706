import { randomBytes, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { SecretKeys } from '../../src/kit/sealed.ts';
import { KeptState } from '../../src/postgres/kept-state.ts';
import { PostgresNodes } from '../../src/postgres/nodes.ts';
import { openPostgres } from '../../src/postgres/open.ts';
import { FleetSecrets, FleetTicketKeys } from '../../src/postgres/secrets.ts';
import { Uptake } from '../../src/postgres/uptake.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { nodesConformance } from '../conformance/nodes.ts';
import { eventually } from '../support/eventually.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

/** Nodes live by tenths of their times: a second without a heartbeat is a death. */
const HASTE = 10;
const DAY = 24 * 3_600_000;
/** How long keys of session tickets are used, ms. */
const TICKETS_FOR = 1_500;
const KEY = randomBytes(32).toString('base64');

describeWith([...POSTGRES], 'nodes of a fleet', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server.stop());

  /** Nodes on a database of their own. */
  async function fleet(keys = [KEY]) {
    const url = await server.createDatabase();
    const ends: (() => Promise<void>)[] = [];
    return {
      url,
      async join(text = keys.join('\n'), published = async () => {}) {
        const sealer = new SecretKeys(text, 'keys');
        const log = silentLog();
        const postgres = await openPostgres({ url, passwordFile: null, sealer, log, poll: 200 });
        const { database, feed } = postgres;
        const uptake = new Uptake(feed);
        const self = { id: randomBytes(8).toString('hex'), address: null, version: '0.1.0' };
        const nodes = new PostgresNodes({ database, feed, sealer, uptake, self, log, haste: HASTE });
        ends.push(async () => {
          await nodes.close();
          await postgres.close();
        });
        await nodes.join(published);
        return Object.assign(nodes, { uptake, postgres, secrets: new FleetSecrets({ database, sealer }) });
      },
      async close() {
        await Promise.all(ends.map((end) => end()));
      },
    };
  }

  nodesConformance('PostgreSQL', false, () => fleet());

  describe('a node', () => {
    it('is waited for until it serves by a change, and named where it does not', async () => {
      const all = await fleet();
      const one = await all.join();
      const release = Promise.withResolvers<void>();
      const gate = { open: true };
      const other = await all.join(undefined, () => (gate.open ? Promise.resolve() : release.promise));
      // It holds the table, and loads it after each change.
      const { aliases } = other.postgres;
      const load = () => other.uptake.load('aliases', () => aliases.load());
      other.uptake.watch(
        'aliases',
        () => void load(),
        aliases.watch(() => void load()),
      );
      await load();
      await eventually('the other to be known', () => one.live().length === 2);
      expect(await one.settled()).toEqual({ nodes: [] });

      gate.open = false;
      await one.postgres.aliases.apply({}, 0);
      const late = await one.settled();
      expect(late.nodes.map(({ id }) => id)).toEqual([other.self.id]);
      const waiting = one.settled();
      release.resolve();
      expect(await waiting).toEqual({ nodes: [] });
      await all.close();
    });

    it('that is not heard of any more is taken for dead, and is back with its next heartbeat', async () => {
      const all = await fleet();
      const [one, other] = [await all.join(), await all.join()];
      await eventually('both to be known', () => one.live().length === 2 && other.live().length === 2);
      // As if it had been stopped: its last heartbeat is long ago.
      await server.query(
        `UPDATE nodes SET live = false WHERE id = '${other.self.id}'; UPDATE revisions SET revision = revision + 1 WHERE topic = 'nodes'`,
        all.url,
      );
      await eventually('the dead one to be back', async () => {
        const [live] = await server.query(`SELECT live FROM nodes WHERE id = '${other.self.id}'`, all.url);
        return live === 't' && one.live().length === 2;
      });
      await server.query(
        `INSERT INTO nodes VALUES ('00000000000000ff', NULL, '0', false, true, now() - interval '1 minute', '{}', '[]', 'x')`,
        all.url,
      );
      await eventually('a node without heartbeats to be dead', async () => {
        const [live] = await server.query("SELECT live FROM nodes WHERE id = '00000000000000ff'", all.url);
        return live === 'f';
      });
      await all.close();
    });

    it('trusts the certificates of those that have the same keys alone', async () => {
      const all = await fleet();
      const [one, other] = [await all.join(), await all.join()];
      const stranger = await all.join(randomBytes(32).toString('base64'));
      await eventually('all to be known', () => one.live().length === 3);
      expect([...one.certificates().keys()].sort()).toEqual([one.self.id, other.self.id].sort());
      expect(one.certificates().get(other.self.id)).toBe(other.identity.certificate);
      expect([...stranger.certificates().keys()]).toEqual([stranger.self.id]);
      await all.close();
    });

    it('takes another certificate long before its own is over, and the others know it', async () => {
      const all = await fleet();
      const [one, other] = [await all.join(), await all.join()];
      await eventually('both to be known', () => one.live().length === 2 && other.live().length === 2);
      const first = one.identity.certificate;
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 21 * DAY });
      try {
        await eventually('the other to know the new one', () => {
          const known = other.certificates().get(one.self.id);
          return known !== first && known === one.identity.certificate;
        });
      } finally {
        vi.useRealTimers();
      }
      expect(Date.parse(new X509Certificate(first).validTo)).toBeGreaterThan(Date.now() + 21 * DAY);
      expect(one.live()).toHaveLength(2);
      await all.close();
    });

    it('has the keys of session tickets of the others, over each change of them', async () => {
      const all = await fleet();
      const folder = mkdtempSync(join(tmpdir(), 'ticket-keys-'));
      const log = silentLog();
      const nodes = [await all.join(), await all.join()];
      const keys = await Promise.all(
        nodes.map(async ({ secrets, postgres: { locks, feed } }, index) => {
          const kept = KeptState.open(join(folder, `${index}`), new SecretKeys(KEY, 'keys'), log);
          const opened = await FleetTicketKeys.open({ secrets, locks, feed, kept, log, everyMs: TICKETS_FOR });
          return { opened, kept };
        }),
      );
      const seen = new Set<string>();
      await eventually('three that both have', () => {
        const [one, other] = keys.map(({ opened }) => opened.current().toString('hex'));
        if (one !== undefined && one === other) seen.add(one);
        return seen.size === 3;
      });
      // One of them has made each: no more than there was time for.
      const [revision] = await server.query("SELECT revision FROM revisions WHERE topic = 'secrets'", all.url);
      expect(Number(revision)).toBeLessThanOrEqual(seen.size + 1);
      await Promise.all(keys.map(({ opened }) => opened.close()));
      await Promise.all(keys.map(({ kept }) => kept.close()));
      rmSync(folder, { recursive: true });
      await all.close();
    });

    it('shares a secret with the others, whoever put it', async () => {
      const all = await fleet();
      const [one, other] = [await all.join(), await all.join()];
      const both = await Promise.all([one.secrets.shared('x', () => 'one'), other.secrets.shared('x', () => 'other')]);
      expect(both[0]).toBe(both[1]);
      expect(await server.query("SELECT sealed_value FROM secrets WHERE name = 'x'", all.url)).toEqual([
        expect.stringMatching(/^v1\.[0-9a-f]{16}\./),
      ]);
      await all.close();
    });
  });
});
