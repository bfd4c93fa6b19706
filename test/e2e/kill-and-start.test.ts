import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { describeWith } from '../support/programs.ts';

const DOMAIN = 'cr.example.com';

/** Moments after `alias add` was typed, ms: while it starts, resolves, orders, is validated, stores, and after. */
const MOMENTS_OF_ADD = [0, 150, 250, 300, 350, 400, 450, 500, 600, 700, 850, 1_000, 1_300];

/** Moments after the start of the program, ms. */
const MOMENTS_OF_START = [10, 60, 120, 180, 240, 300, 350, 400, 450, 500, 600, 800];

/** Of a first start, which fills the table, registers the account and orders 13 certificates. */
const MOMENTS_OF_FIRST_START = [60, 200, 350, 450, 550, 650, 750, 900, 1_200, 1_600];

interface CertificateRow {
  readonly host: string;
  readonly state: string;
  readonly serial: string | null;
}

describeWith(['linux', 'pebble', 'pebble-challtestsrv'], 'kill -9 at any moment, then start', () => {
  let pebble: Pebble;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    gateway = await prepareGateway({ config: { domain: DOMAIN, tls: { mode: 'acme' } } });
    pebble = await startPebble({ httpPort: gateway.httpPort, tlsPort: gateway.httpsPort });
    const issuers = [{ directory: pebble.directory, caFile: pebble.caFile }];
    gateway.configure({ acme: { issuers, selfCheck: false } });
  });

  afterAll(async () => {
    await gateway?.close();
    await pebble?.stop();
  });

  it('killed during its very first start: one account, and every certificate in the end', async () => {
    for (const moment of MOMENTS_OF_FIRST_START) {
      gateway.launch();
      await new Promise((resolve) => setTimeout(resolve, moment));
      await gateway.kill();
    }
    await gateway.start();
    await allValid();
    expect(await aliases()).toHaveLength(15);
    expect(accountsMade()).toBe('1');
  });

  it('killed during alias add: whatever it had acknowledged is there, and what it had not is completed', {
    timeout: 600_000,
  }, async () => {
    const acknowledged: string[] = [];
    for (const [index, moment] of MOMENTS_OF_ADD.entries()) {
      const before = await serials();
      const adding = gateway.cli(['alias', 'add', `name-${index}`, 'k8s.gcr.io']);
      await new Promise((resolve) => setTimeout(resolve, moment));
      await gateway.kill();
      // It ends by itself where the gateway has gone, or acts on the data directory where it had not asked yet.
      if ((await adding).code === 0) acknowledged.push(`name-${index}`);
      await gateway.start();
      const names = new Set((await aliases()).map(({ name }) => name));
      expect(acknowledged.filter((name) => !names.has(name))).toEqual([]);
      const after = await serials();
      for (const [host, serial] of before) expect([host, after.get(host)]).toEqual([host, serial]);
    }
    await allValid();
  });

  it('killed while it starts, again and again: table, account and certificates are there, and nothing is ordered again', async () => {
    const rows = await aliases();
    const before = await serials();
    expect(before.size).toBeGreaterThanOrEqual(2);
    const orders = ordersSeen();
    expect(orders).toBeGreaterThanOrEqual(before.size);
    await gateway.kill();
    for (const moment of MOMENTS_OF_START) {
      gateway.launch();
      await new Promise((resolve) => setTimeout(resolve, moment));
      await gateway.kill();
    }
    await gateway.start();
    expect(await aliases()).toEqual(rows);
    expect(await serials()).toEqual(before);
    expect(ordersSeen()).toBe(orders);
    expect(accountsMade()).toBe('1');
  });

  it('goes on with the account that it has', async () => {
    const added = await gateway.cli(['alias', 'add', 'one-more', 'k8s.gcr.io']);
    expect(added.code, added.stderr).toBe(0);
    expect(accountsMade()).toBe('1');
  });

  async function aliases(): Promise<{ name: string; host: string; registry: string }[]> {
    const rows = JSON.parse(await gateway.ok('alias', 'ls', '--json')) as {
      name: string;
      host: string;
      registry: string;
    }[];
    return rows.map(({ name, host, registry }) => ({ name, host, registry }));
  }

  async function certificates(): Promise<CertificateRow[]> {
    return JSON.parse(await gateway.ok('cert', 'ls', '--json')) as CertificateRow[];
  }

  /** Of the hosts that have a certificate. */
  async function serials(): Promise<Map<string, string>> {
    const rows = await certificates();
    return new Map(
      rows.flatMap(({ host, state, serial }) => (state === 'valid' && serial !== null ? [[host, serial]] : [])),
    );
  }

  async function allValid(): Promise<void> {
    await eventually('every host to have its certificate', async () => {
      const rows = await certificates();
      return rows.length > 0 && rows.every(({ state }) => state === 'valid' || state === 'on demand');
    });
  }

  /** The CA counts them as it makes them. */
  function accountsMade(): string | undefined {
    return [...pebble.log().matchAll(/There are now (\d+) accounts/g)].at(-1)?.[1];
  }

  function ordersSeen(): number {
    return pebble.log().match(/POST \/order-plz/g)?.length ?? 0;
  }
});
