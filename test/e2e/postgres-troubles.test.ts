import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { AliasStore } from '../../src/aliases/store.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';
import { openPostgres, type PostgresOptions } from '../../src/postgres/open.ts';
import { PGBOUNCER, POSTGRES, PostgresServer, startPgBouncer } from '../support/postgres.ts';
import { openNode } from '../support/postgres-stores.ts';
import { describeWith } from '../support/programs.ts';
import { Relay } from '../support/relay.ts';
import { makeTestCa } from '../support/test-ca.ts';

const WAIT = { timeout: 40_000, interval: 20 };
const registry = (host: string): RegistryEntry => ({
  ...{ host, endpoints: [`https://${host}`], proxy: null, public: false, realms: [], named: [], ca: null },
  credentials: { username: 'bot', password: 'quite secret' },
});

/** Adds a registry, on whatever version the table has. */
async function put(store: AliasStore, host: string): Promise<void> {
  const { version } = await store.load();
  if ((await store.apply({ putRegistries: [registry(host)] }, version)) === null) throw new Error('changed meanwhile');
}

const hostsOf = async (store: AliasStore) => (await store.load()).registries.map(({ host }) => host).sort();

describeWith(POSTGRES, 'PostgreSQL in trouble', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server?.stop());

  /** A database, and a relay in front of it. */
  async function behindRelay(): Promise<{ url: string; relayed: string; relay: Relay }> {
    const url = await server.createDatabase();
    const relay = await Relay.start(server.port);
    onTestFinished(() => relay.stop());
    const relayed = new URL(url);
    relayed.port = String(relay.port);
    return { url, relayed: relayed.href, relay };
  }

  it('restarted in the middle is used again by itself, and nothing that was changed around it stays unknown', async () => {
    const url = await server.createDatabase();
    const [one, two] = [await openNode(url), await openNode(url)];
    await put(one.aliases, 'before.example');
    const contacts: boolean[] = [];
    two.feed.onContact(({ reachable }) => contacts.push(reachable));
    const told = vi.fn();
    two.aliases.watch(told);
    for (const how of ['fast', 'immediate'] as const) {
      await server.halt(how);
      await expect(one.aliases.load()).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
      await vi.waitFor(() => expect(two.feed.contact).toMatchObject({ reachable: false }), WAIT);
      await server.begin();
      told.mockClear();
      await vi.waitFor(() => put(one.aliases, `${how}.example`), WAIT);
      await vi.waitFor(() => expect(told).toHaveBeenCalled(), WAIT);
      expect(await hostsOf(two.aliases)).toContain(`${how}.example`);
      await vi.waitFor(() => expect(two.feed.contact).toMatchObject({ reachable: true, trouble: null }), WAIT);
    }
    expect(contacts).toEqual([false, true, false, true]);
  });

  it('that one node is cut off from leaves it in the dark for as long, and no longer', async () => {
    const { url, relayed, relay } = await behindRelay();
    const [one, two] = [await openNode(url), await openNode(relayed)];
    const told = vi.fn();
    two.aliases.watch(told);
    for (const how of ['breaks', 'swallows'] as const) {
      relay.cut(how);
      await put(one.aliases, `${how}.example`);
      await vi.waitFor(() => expect(two.feed.contact.reachable).toBe(false), WAIT);
      expect(two.feed.contact.trouble).toContain('cannot be reached');
      expect(told).not.toHaveBeenCalled();
      relay.mend();
      await vi.waitFor(() => expect(told).toHaveBeenCalled(), WAIT);
      expect(await hostsOf(two.aliases)).toContain(`${how}.example`);
      told.mockClear();
    }
  });

  it('counts what was added once, although the answer to a commit never came', async () => {
    const { url, relayed, relay } = await behindRelay();
    const [one, two] = [await openNode(url), await openNode(relayed)];
    const delta = { period: '2026-11', client: '*', bytes: 10 };
    expect(await two.counters.add([delta])).toEqual([delta]);
    relay.cutAfter('COMMIT');
    const lost = two.counters.add([delta]);
    const refused = expect(lost).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
    await vi.waitFor(async () => expect(await one.counters.load(['2026-11'])).toMatchObject([{ bytes: 20 }]), WAIT);
    relay.mend();
    await refused;
    // The caller was told that nothing was added, and adds the same again with what came since.
    await vi.waitFor(async () => {
      expect(await two.counters.add([{ ...delta, bytes: 13 }])).toEqual([{ ...delta, bytes: 23 }]);
    }, WAIT);
    expect(await one.counters.load(['2026-11'])).toEqual([{ ...delta, bytes: 23 }]);
  });

  it('that a newer version has changed is refused in words, and so is one that cannot be used', async () => {
    const url = await server.createDatabase();
    await (await openNode(url)).close();
    await server.query('UPDATE gateway_schema SET version = 1000', url);
    await expect(openNode(url)).rejects.toMatchObject({ code: 'DATABASE_NEWER', message: /schema 1000/ });
    const wrong = new URL(await server.createDatabase());
    wrong.password = 'not-the-one';
    const error = await openNode(wrong.href).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'DATABASE_REFUSED', message: /password authentication failed/ });
    expect(JSON.stringify(error) + String((error as Error).stack)).not.toContain('not-the-one');
    await expect(openNode(server.url('nowhere'))).rejects.toMatchObject({
      code: 'DATABASE_REFUSED',
      message: /"nowhere" does not exist/,
    });
    await server.query("CREATE ROLE guest LOGIN PASSWORD 'guest'");
    const guest = new URL(await server.createDatabase());
    [guest.username, guest.password] = ['guest', 'guest'];
    await expect(openNode(guest.href)).rejects.toMatchObject({
      code: 'DATABASE_REFUSED',
      message: /permission denied/,
    });
    await expect(openNode('postgres://a@127.0.0.1:1/a')).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
  });

  it('is opened before it is there, and used once it is', async () => {
    const { relayed, relay } = await behindRelay();
    relay.cut();
    const node = await openNode(relayed, { startWithout: true });
    await expect(node.aliases.load()).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
    relay.mend();
    const told = vi.fn();
    node.aliases.watch(told);
    await vi.waitFor(() => expect(told).toHaveBeenCalled(), WAIT);
    expect(await node.aliases.load()).toMatchObject({ isNew: true });
    expect(await node.identity()).toMatch(/^[0-9a-f]{16}$/);
  });

  it('has no password and no private key in it that can be read', async () => {
    const url = await server.createDatabase();
    const { aliases, challenges } = await openNode(url);
    await put(aliases, 'quay.io');
    await challenges.put({ type: 'tls-alpn-01', host: 'a', chain: 'the chain', key: 'the key', expiresAt: 2e12 });
    const named = [{ name: 'a', id: 2, for: ['team/*'], username: 'alice', password: 'rather secret' }];
    const { version } = await aliases.load();
    expect(await aliases.apply({ putRegistries: [{ ...registry('ghcr.io'), named }] }, version)).not.toBeNull();
    const dump = await server.query(
      `SELECT registries::text FROM registries; SELECT registry_credentials::text FROM registry_credentials;
       SELECT acme_challenges::text FROM acme_challenges`,
      url,
    );
    expect(dump).toHaveLength(4);
    expect(dump.join()).toContain('alice');
    expect(dump.join()).not.toMatch(/(quite|rather) secret|the key/);
  });

  describe('passwords', () => {
    it('come from a file, the environment or a passfile, and are read anew for each connection', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'passwords-'));
      onTestFinished(() => {
        vi.unstubAllEnvs();
        rmSync(folder, { recursive: true, force: true });
      });
      const url = new URL(await server.createDatabase());
      url.password = '';
      const opens = async (options: Partial<PostgresOptions> = {}) => (await openNode(url.href, options)).close();
      await expect(opens()).rejects.toMatchObject({ code: 'DATABASE_REFUSED' });
      const file = join(folder, 'password');
      writeFileSync(file, `${server.password}\n`);
      await opens({ passwordFile: file });
      vi.stubEnv('PGPASSWORD', server.password);
      await opens();
      vi.stubEnv('PGPASSWORD', '');
      const passfile = join(folder, 'pgpass');
      const line = `*:${server.port}:*:${server.user}:${server.password}`;
      writeFileSync(passfile, `# other:1:a:b:c\nlocalhost:*:*:*:no\n${line}\n`, { mode: 0o600 });
      vi.stubEnv('PGPASSFILE', passfile);
      await opens();
      writeFileSync(join(folder, 'open'), line, { mode: 0o644 });
      vi.stubEnv('PGPASSFILE', join(folder, 'open'));
      await expect(opens()).rejects.toMatchObject({ code: 'DATABASE_REFUSED', message: /others may read it/ });
    });
  });

  it('without TLS is spoken to in the clear where that may be, and not where it must not', async () => {
    const url = await server.createDatabase();
    await (await openNode(`${url}?sslmode=prefer`)).close();
    await expect(openNode(`${url}?sslmode=require`)).rejects.toMatchObject({ message: /does not speak TLS/ });
  });
});

describeWith(POSTGRES, 'PostgreSQL with TLS', () => {
  it('is believed as far as sslmode says', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tls-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const ca = makeTestCa();
    const { key, cert } = ca.issue(['db.example.com']);
    const files = { key: join(folder, 'key'), certificate: join(folder, 'crt'), root: join(folder, 'ca') };
    writeFileSync(files.key, key);
    writeFileSync(files.certificate, cert);
    writeFileSync(files.root, ca.pem);
    const server = await PostgresServer.start({ tls: files });
    onTestFinished(() => server.stop());
    const url = await server.createDatabase();
    const ssl = async (parameters: string) => {
      const { database, close } = await openNode(`${url}?${parameters}`);
      const { rows } = await database.query<{ ssl: boolean }>(
        'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
      );
      await close();
      return rows[0]?.ssl;
    };
    expect(await ssl('sslmode=disable')).toBe(false);
    expect(await ssl('sslmode=prefer')).toBe(true);
    expect(await ssl('sslmode=require')).toBe(true);
    expect(await ssl(`sslmode=verify-ca&sslrootcert=${files.root}`)).toBe(true);
    await expect(ssl('sslmode=verify-ca')).rejects.toMatchObject({ message: /certificate is not accepted/ });
    // The name is not that of the URL, an address.
    await expect(ssl(`sslmode=verify-full&sslrootcert=${files.root}`)).rejects.toMatchObject({
      code: 'DATABASE_REFUSED',
      message: /certificate is not accepted/,
    });
  });
});

describeWith(PGBOUNCER, 'PostgreSQL behind PgBouncer', () => {
  it('keeps tables, locks and what is told of changes, although no session lasts', async () => {
    const server = await PostgresServer.start();
    onTestFinished(() => server.stop());
    const bouncer = await startPgBouncer(server, 2);
    onTestFinished(() => bouncer.stop());
    const url = bouncer.through(await server.createDatabase());
    const [one, two] = [await openNode(url), await openNode(url)];
    const told = vi.fn();
    two.aliases.watch(told);
    await Promise.all(Array.from({ length: 20 }, () => one.certificates.addEvent('a', { at: 1, event: 'e' })));
    await put(one.aliases, 'quay.io');
    await vi.waitFor(() => expect(told).toHaveBeenCalled(), WAIT);
    expect(await hostsOf(two.aliases)).toEqual(['quay.io']);
    const lock = await one.locks.acquire('a', { leaseMs: 1_500 });
    expect(await two.locks.tryAcquire('a', { leaseMs: 1_500 })).toBeNull();
    const next = two.locks.acquire('a', { leaseMs: 1_500 });
    await lock.release();
    expect((await next).fence).toBeGreaterThan(lock.fence);
    await (await next).release();
    expect(await server.query('SELECT count(*) FROM pg_prepared_statements', url)).toEqual(['0']);
  });
});

it('names what is wrong with a URL, and not its password', async () => {
  const open = (url: string) =>
    openPostgres({ url, passwordFile: null, sealer: { seal: String, open: String }, log: console as never });
  for (const [url, reason] of [
    ['mysql://a:secret@h/d', /postgres:\/\//],
    ['postgres://a:secret@h1,h2:1/d', /several hosts/],
    ['postgres://a:secret@h/d?sslmode=maybe', /sslmode is one of/],
    ['postgres://a:secret@h/d?pooling=1', /pooling is not understood/],
    ['postgres://h/d', /no user/],
    ['postgres://a:secret@h/d?sslmode=verify-full&sslrootcert=/not/there', /sslrootcert cannot be read/],
  ] as const) {
    const error = await open(url).catch((refusal: Error) => refusal);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', message: reason });
    expect((error as Error).message).not.toContain('secret');
  }
});
