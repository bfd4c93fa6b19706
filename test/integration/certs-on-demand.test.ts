import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AcmeGateway, DOMAIN, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { allServe, PROCESSES } from '../support/every-process.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { meet } from '../support/tls-client.ts';

/** Of a new table: 12 of its aliases are to have a certificate. */
const PRESETS = 12;
/** Clients at once; the kernel gives their connections to all processes. */
const CLIENTS = 24;

let ca: FakeCa;
let gateway: AcmeGateway;
showLogOfFailures(() => gateway);

beforeAll(async () => {
  const ports = await listenerPorts();
  ca = await new FakeCa({ ports, lifetime: 45 * 24 * 3_600_000 }).start();
  gateway = await prepareAcmeGateway({ issuers: [ca], ports, workers: PROCESSES });
  await gateway.start();
  await gateway.valid(1);
  await allServe(gateway);
});
afterAll(async () => {
  await gateway?.close();
  await ca?.stop();
});

const visit = (host: string) =>
  meet({ port: gateway.httpsPort, host, ca: ca.root }).then(
    ({ certificate }) => certificate.serialNumber,
    (error: Error) => error.message,
  );
const ordered = (host: string) => ca.orders.filter((order) => order.host === host).length;

test('a new table orders for its domain alone; its aliases are on demand', async () => {
  expect(ca.orders.map(({ host }) => host)).toEqual([DOMAIN]);
  const rows = await gateway.certificates();
  expect(rows.filter(({ state }) => state === 'on demand')).toHaveLength(PRESETS);
  expect(await gateway.certificate(`quay.${DOMAIN}`)).toMatchObject({ nextAttempt: null, lastError: null });
  expect(await gateway.ok('cert', 'explain', `quay.${DOMAIN}`)).toContain('when a client first asks');
  const shown = JSON.parse(await gateway.ok('alias', 'show', 'quay', '--json'));
  expect(shown.certificate.state).toBe('on demand');
});

test('the first clients wait for the one order, in whatever process they are, and all meet its certificate', async () => {
  const host = `quay.${DOMAIN}`;
  const serials = await Promise.all(Array.from({ length: CLIENTS }, () => visit(host)));
  const { serial, state, nextAttempt } = await gateway.certificate(host);
  expect(state).toBe('valid');
  expect(serials).toEqual(serials.map(() => serial));
  expect(ordered(host)).toBe(1);
  // From now on it is renewed like any other.
  expect(Date.parse(nextAttempt ?? '')).toBeGreaterThan(Date.now());
});

test('once a process has shown a new certificate, none refuses its name', async () => {
  const host = `late.${DOMAIN}`;
  const adding = gateway.begin('alias', 'add', 'late', 'quay.io');
  let good = 0;
  const refused: string[] = [];
  while (good < CLIENTS) {
    const met = await visit(host);
    if (!/unrecognized name/i.test(met)) good++;
    else if (good > 0) refused.push(met);
  }
  expect(refused).toEqual([]);
  expect((await adding.exited).code).toBe(0);
});

test('server names of strangers bring about no order but those of hosts on demand: one at a time, each once', async () => {
  let looking = 0;
  let most = 0;
  ca.options.beforeLook = async () => {
    most = Math.max(most, ++looking);
    await new Promise((resolve) => setTimeout(resolve, 20));
    looking--;
  };
  ca.faults.push({ at: 'newOrder', host: `gcr.${DOMAIN}`, how: { status: 403, type: 'caa', detail: 'not here' } });
  const before = ca.orders.length;
  const waiting = (await gateway.certificates()).filter(({ state }) => state === 'on demand').map(({ host }) => host);
  expect(waiting).toHaveLength(PRESETS - 1);
  const strangers = Array.from({ length: 20 }, (_, n) => `x${n}.${DOMAIN}`);
  const met = await Promise.all([...strangers, ...waiting, ...waiting, 'quay.io', 'a.b.c'].map(visit));
  for (const name of met.slice(0, strangers.length)) expect(name).toMatch(/unrecognized name/i);
  const rows = await gateway.certificates();
  for (const host of waiting.filter((one) => one !== `gcr.${DOMAIN}`)) {
    expect(rows.find((row) => row.host === host)?.state, host).toBe('valid');
    expect(ordered(host), host).toBe(1);
  }
  expect(most).toBe(1);
  // The refused one reached the CA as a fault, before it was an order; whoever asks again brings about no other.
  expect(ca.orders).toHaveLength(before + waiting.length - 1);
  const asked = ca.requests.filter((resource) => resource === 'newOrder').length;
  const again = performance.now();
  expect(await visit(`gcr.${DOMAIN}`)).toMatch(/unrecognized name/i);
  expect(performance.now() - again).toBeLessThan(4_000);
  expect(ca.requests.filter((resource) => resource === 'newOrder')).toHaveLength(asked);
  expect(await gateway.certificate(`gcr.${DOMAIN}`)).toMatchObject({
    state: 'pending',
    lastError: { type: 'urn:ietf:params:acme:error:caa' },
  });
});
