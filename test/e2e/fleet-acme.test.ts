import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { startPebble } from '../support/pebble.ts';
import { PGBOUNCER, type PgBouncer, PostgresServer, startPgBouncer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';
import { meet } from '../support/tls-client.ts';

const DOMAIN = 'gw.test';
/** The lease of an order has to end first, ms, and the machine may be busy. */
const TAKEN_OVER = 180_000;

describeWith([...PGBOUNCER, 'pebble', 'pebble-challtestsrv'], 'two gateways behind PgBouncer, and a CA', () => {
  let server: PostgresServer;
  let pooler: PgBouncer;
  let folder: string;
  let one: TestGateway;
  let other: TestGateway;
  let ends: (() => Promise<unknown>)[] = [];
  showLogOfFailures(() => one);
  showLogOfFailures(() => other);

  beforeAll(async () => {
    server = await PostgresServer.start();
    pooler = await startPgBouncer(server);
    folder = mkdtempSync(join(tmpdir(), 'fleet-acme-'));
  });
  afterEach(async () => {
    for (const end of ends.reverse()) await end();
    ends = [];
  });
  afterAll(async () => {
    await pooler?.stop();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Both know of each other; the CA meets the second, which every name leads to. */
  async function openTwo(findCa: () => Promise<{ directory: string; caFile?: string }>, challenges?: string[]) {
    const secretFile = join(folder, 'keys');
    writeFileSync(secretFile, randomBytes(32).toString('base64'), { mode: 0o600 });
    const config = {
      database: pooler.through(await server.createDatabase()),
      secretFile,
      domain: DOMAIN,
      listen: { workers: 1 },
    };
    one = await prepareGateway({ config });
    other = await prepareGateway({ config });
    ends.push(
      () => one.close(),
      () => other.close(),
    );
    const { directory, caFile } = await findCa();
    const issuers = [{ directory, ...(caFile === undefined ? {} : { caFile }) }];
    for (const gateway of [one, other]) {
      gateway.configure({
        tls: { mode: 'acme' },
        acme: { issuers, selfCheck: false, ...(challenges === undefined ? {} : { challenges }) },
      });
    }
    await Promise.all([one.start(), other.start()]);
    await eventually('both to know of each other', async () => (await status(one)).nodes.length === 2);
  }
  const status = async (gateway: TestGateway) => JSON.parse(await gateway.ok('status', '--json'));
  const served = async (gateway: TestGateway, host: string, ca: string) =>
    (await meet({ port: gateway.httpsPort, host, ca })).certificate.serialNumber;

  it.each([['http-01'], ['tls-alpn-01']])(
    'answer %s for each other, and order once, whichever is told',
    async (challenge) => {
      let pebble: Awaited<ReturnType<typeof startPebble>> | undefined;
      await openTwo(async () => {
        pebble = await startPebble({ httpPort: other.httpPort, tlsPort: other.httpsPort });
        ends.push(pebble.stop);
        return pebble;
      }, [challenge]);
      const root = (await pebble?.root()) ?? '';
      await one.ok('alias', 'add', 'corp', 'registry.corp.example', '--no-check');
      const serials = [await served(one, `corp.${DOMAIN}`, root), await served(other, `corp.${DOMAIN}`, root)];
      expect(serials[0]).toBe(serials[1]);
      const ran = await Promise.all(
        [one, other].map((gateway) => gateway.cli(['alias', 'add', 'both', 'registry.both.example', '--no-check'])),
      );
      expect(ran.map(({ code, stderr }) => [code, stderr])).toEqual([
        [0, expect.any(String)],
        [0, expect.any(String)],
      ]);
      expect(await served(one, `both.${DOMAIN}`, root)).toBe(await served(other, `both.${DOMAIN}`, root));
      // The bare domain, and the two.
      expect(pebble?.log().match(/issued certificate serial/gi)).toHaveLength(3);
    },
  );

  it('go on with what one of them was killed over', async () => {
    let ca: FakeCa | undefined;
    await openTwo(async () => {
      ca = await new FakeCa({ ports: { http: other.httpPort, tls: other.httpsPort } }).start();
      ends.push(() => ca?.stop() ?? Promise.resolve());
      return ca;
    });
    if (ca === undefined) throw new Error('there is no CA');
    const host = `corp.${DOMAIN}`;
    const { promise: dead, resolve: letLook } = Promise.withResolvers<void>();
    ca.options.beforeLook = () => dead;
    const add = one.begin('alias', 'add', 'corp', 'registry.corp.example', '--no-check');
    await add.waitFor(/^challenge/m);
    await one.kill();
    letLook();
    await eventually('the other to have it', async () => served(other, host, ca?.root ?? ''), TAKEN_OVER);
    expect(ca.orders.filter((order) => order.host === host).length).toBeLessThanOrEqual(2);
    await one.start();
    expect(await served(one, host, ca.root)).toBe(await served(other, host, ca.root));
  });
});
