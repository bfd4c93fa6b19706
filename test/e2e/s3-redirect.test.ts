import { statSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, type Received, send } from '../support/http-client.ts';
import { describeWith } from '../support/programs.ts';
import { S3Server } from '../support/s3-server.ts';

const MIB = 1024 * 1024;
const PREFIX = 'gw';
const APP = 'library/app';
const SECRET = 'org/secret';
/** From the network that is refused. */
const REFUSED = '127.9.9.9';

interface Door {
  readonly host: string;
  readonly base: string;
  readonly query?: string;
}

/** The doors to a registry: each a host, a path, perhaps `ns`. */
const DOORS: Readonly<Record<string, (registry: string) => Door>> = {
  'by prefix': (registry: string) => ({ host: 'localhost', base: `/v2/${registry}/` }),
  'by prefix, the shape of a mirror': (registry: string) => ({ host: 'localhost', base: `/${registry}/v2/` }),
  'by alias host': (registry: string) => ({
    host: registry === 'docker.io' ? 'docker.localhost' : 'hidden.localhost',
    base: '/v2/',
  }),
  'with ns': (registry: string) => ({ host: 'localhost', base: '/v2/', query: `?ns=${registry}` }),
};
const doors = Object.keys(DOORS);

/** How a client may ask. */
const QUESTIONS: readonly { readonly method: 'GET' | 'HEAD'; readonly headers: Readonly<Record<string, string>> }[] = [
  { method: 'GET', headers: {} },
  { method: 'GET', headers: { range: 'bytes=5-9' } },
  { method: 'GET', headers: { range: 'bytes=0-' } },
  { method: 'GET', headers: { 'if-none-match': '"another"' } },
  { method: 'HEAD', headers: {} },
];

describeWith(['versitygw'], 'redirects to the bucket', () => {
  let server: S3Server;
  let open: FakeRegistry;
  let hidden: FakeRegistry;
  let gateway: TestGateway;
  let agent: Agent;
  let token: string;
  showLogOfFailures(() => gateway);

  const login = (password = token) => ({
    authorization: `Basic ${Buffer.from(`ci:${password}`).toString('base64')}`,
  });
  interface Asking {
    readonly door?: string;
    readonly method?: 'GET' | 'HEAD';
    readonly headers?: Readonly<Record<string, string>>;
    readonly from?: string;
  }
  function ask(registry: string, what: string, asking: Asking = {}): Promise<Received> {
    const { door = 'by prefix', method = 'GET', headers = {}, from = '127.0.0.1' } = asking;
    const at = DOORS[door]?.(registry);
    if (at === undefined) throw new Error(`there is no door ${door}`);
    const { host, base, query = '' } = at;
    return send({
      agent,
      method,
      port: gateway.httpsPort,
      servername: host,
      localAddress: from,
      path: `${base}${what}${query}`,
      headers: { ...headers, host: `${host}:${gateway.httpsPort}` },
    });
  }
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    return Number(new RegExp(`^gateway_${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
  };
  const uploaded = async (digests: readonly string[]) => {
    const names = digests.map((digest) => digest.slice('sha256:'.length));
    await eventually('it is in the bucket', async () => names.every((name) => server.objects(PREFIX).includes(name)));
    await eventually('it is known there', async () => (await metric('shared_store_uploads_waiting')) === 0);
  };
  async function configure(redirect: boolean | 'all', more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    gateway.configure({ cache: { s3: { ...server.config(PREFIX), redirect }, tagTtl: '1ms' }, ...more });
    await gateway.ok('reload');
  }
  /** Nowhere in the answer is there an address of the store, nor a signature. */
  const hasNoUrl = ({ status, headers, text }: Received) => {
    const said = `${JSON.stringify(headers)} ${status === 200 || status === 206 ? '' : text}`;
    return headers.location === undefined && !/X-Amz-/i.test(said) && !said.includes(String(server.relay.port));
  };
  const isSigned = ({ status, headers }: Received) =>
    status === 307 && /X-Amz-Signature=/.test(headers.location ?? '') && headers['cache-control'] === 'no-store';

  /** As every answer of the registry API has them. */
  const REGISTRY_HEADERS = {
    'docker-distribution-api-version': 'registry/2.0',
    'x-content-type-options': 'nosniff',
    'content-security-policy': expect.stringMatching(/^default-src 'none'/),
  };

  async function pull(registry: string, name: string, image: ReturnType<typeof addImage>, headers = {}) {
    expect((await ask(registry, `${name}/manifests/1`, { headers })).status).toBe(200);
    const blobs = [image.config.digest, ...image.layers.map(({ digest }) => digest)];
    for (const digest of blobs) {
      expect([200, 307]).toContain((await ask(registry, `${name}/blobs/${digest}`, { headers })).status);
    }
    return blobs;
  }
  const addImage = (fake: FakeRegistry, name: string, seed: string) =>
    fake.repository(name).addImage('1', [generated(2 * MIB, seed)], { label: seed });
  let openLayer = '';
  let hiddenLayer = '';

  beforeAll(async () => {
    [server, open, hidden] = await Promise.all([
      S3Server.start(),
      FakeRegistry.start(),
      FakeRegistry.start({ auth: { scheme: 'bearer', private: true, users: { operator: 'secret' } } }),
    ]);
    gateway = await startGateway({
      config: {
        cache: { s3: { ...server.config(PREFIX), redirect: true }, tagTtl: '1ms' },
        access: { anonymous: true, deny: ['127.9.9.0/24'] },
      },
      env: server.env,
    });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', open.url);
    await gateway.ok('alias', 'add', 'hidden', 'hidden.example', '--endpoint', hidden.url);
    const set = ['registry', 'set', 'hidden.example', '--username', 'operator', '--password-stdin'];
    const ran = await gateway.cli([...set, '--endpoint', hidden.url], { input: 'secret' });
    expect(ran.code, ran.stderr).toBe(0);
    token = (await gateway.ok('user', 'add', 'ci')).trim();
    agent = new Agent({ keepAlive: true, ca: caOf(gateway) });
    const [one, other] = [addImage(open, APP, 'open'), addImage(hidden, SECRET, 'hidden')];
    const blobs = [...(await pull('docker.io', APP, one)), ...(await pull('hidden.example', SECRET, other, login()))];
    await uploaded(blobs);
    openLayer = one.layers[0]?.digest ?? '';
    hiddenLayer = other.layers[0]?.digest ?? '';
  });
  afterAll(async () => {
    agent?.destroy();
    await gateway?.close();
    await Promise.all([open?.close(), hidden?.close()]);
    await server?.stop();
  });

  it.each([true, 'all'] as const)('redirect: %s: commands of the operator read blobs themselves', async (redirect) => {
    await configure(redirect);
    const file = join(gateway.dataDir, `saved-${redirect}.tar`);
    await gateway.ok('save', `docker.io/${APP}:1`, '-o', file);
    expect(statSync(file).size).toBeGreaterThan(2 * MIB);
    await gateway.ok('warm', `hidden.example/${SECRET}:1`);
  });

  describe.each(doors)('%s', (door) => {
    it('open content: GET goes there, whole and by range; HEAD and what the client has do not', async () => {
      const blob = `${APP}/blobs/${openLayer}`;
      const [whole, range, head, has, nothing] = await Promise.all([
        ask('docker.io', blob, { door }),
        ask('docker.io', blob, { door, headers: { range: 'bytes=5-9' } }),
        ask('docker.io', blob, { door, method: 'HEAD' }),
        ask('docker.io', blob, { door, headers: { 'if-none-match': `"${openLayer}"` } }),
        ask('docker.io', blob, { door, headers: { range: `bytes=${9 * MIB}-` } }),
      ]);
      expect([whole, range].map(isSigned)).toEqual([true, true]);
      for (const { headers } of [whole, range, head, has, nothing]) expect(headers).toMatchObject(REGISTRY_HEADERS);
      expect([head, has, nothing].map(hasNoUrl)).toEqual([true, true, true]);
      expect([head.status, has.status, nothing.status]).toEqual([200, 304, 416]);
      expect((await fetch(whole.headers.location ?? '')).status).toBe(200);
    });

    it.each([true, 'all'] as const)('redirect: %s: what only credentials opened', async (redirect) => {
      await configure(redirect);
      const blob = `${SECRET}/blobs/${hiddenLayer}`;
      for (const { method, headers } of QUESTIONS) {
        const mine = await ask('hidden.example', blob, { door, method, headers: { ...headers, ...login() } });
        if (redirect === 'all' && method === 'GET') expect(isSigned(mine)).toBe(true);
        else expect([mine.status, hasNoUrl(mine)]).toEqual([headers.range === undefined ? 200 : 206, true]);
        // Who has not logged in, or wrongly; a network that is refused; another name there; another registry.
        const others = await Promise.all([
          ask('hidden.example', blob, { door, method, headers }),
          ask('hidden.example', blob, { door, method, headers: { ...headers, ...login('wrong') } }),
          ask('hidden.example', blob, { door, method, headers: { ...headers, ...login() }, from: REFUSED }),
          ask('hidden.example', `org/other/blobs/${hiddenLayer}`, {
            door,
            method,
            headers: { ...headers, ...login() },
          }),
          ask('docker.io', `${APP}/blobs/${hiddenLayer}`, { door, method, headers: { ...headers, ...login() } }),
          ask('docker.io', `${APP}/blobs/${hiddenLayer}`, { door, method, headers }),
          ask('docker.io', `library/other/blobs/${openLayer}`, { door, method, headers }),
          ask('docker.io', `${APP}/blobs/${openLayer}`, { door, method, headers, from: REFUSED }),
        ]);
        expect(others.map(({ status }) => status)).toEqual([403, 401, 403, 404, 404, 404, 404, 403]);
        expect(others.map(hasNoUrl)).toEqual(others.map(() => true));
      }
      await configure(true);
    });
  });

  it('what is taken from there counts in the quota of the day', async () => {
    await configure(true, { limits: { bytesPerDay: String(3 * MIB) } });
    const from = '127.9.1.1';
    const blob = `${APP}/blobs/${openLayer}`;
    expect(isSigned(await ask('docker.io', blob, { from }))).toBe(true);
    const second = await ask('docker.io', blob, { from });
    expect([second.status, hasNoUrl(second)]).toEqual([429, true]);
    // What is left is enough for a part.
    expect(isSigned(await ask('docker.io', blob, { from, headers: { range: 'bytes=0-999' } }))).toBe(true);
    await configure(true);
  });

  it('a public registry with credentials is closed all the same', async () => {
    await gateway.ok('registry', 'set', 'hidden.example', '--public');
    const mine = await ask('hidden.example', `${SECRET}/blobs/${hiddenLayer}`);
    expect([mine.status, hasNoUrl(mine)]).toEqual([200, true]);
    await gateway.ok('registry', 'set', 'hidden.example', '--no-public');
  });

  it.each(['serving', 'restarted with an empty disk'])(
    'a denial voids what the repository gave: a gateway that is %s gives nothing of it from there',
    async (how) => {
      await configure('all');
      const blob = `${SECRET}/blobs/${hiddenLayer}`;
      hidden.faults = () => undefined;
      expect((await ask('hidden.example', `${SECRET}/manifests/1`, { headers: login() })).status).toBe(200);
      await ask('hidden.example', blob, { headers: login() });
      await uploaded([hiddenLayer]);
      await eventually('it goes there', async () => isSigned(await ask('hidden.example', blob, { headers: login() })));
      hidden.faults = () => ({ status: 403 });
      const denied = await ask('hidden.example', `${SECRET}/manifests/1`, { headers: login() });
      expect([401, 403]).toContain(denied.status);
      if (how !== 'serving') {
        await gateway.ok('cache', 'prune', '--yes');
        await gateway.stop();
        await gateway.start();
      }
      // Not even when nobody can say no any more.
      hidden.faults = () => ({ refuse: true });
      const read = await metric('shared_store_read_bytes_total');
      const answers = await Promise.all(
        doors.flatMap((door) =>
          QUESTIONS.map(({ method, headers }) =>
            ask('hidden.example', blob, { door, method, headers: { ...headers, ...login() } }),
          ),
        ),
      );
      expect(answers.filter((answer) => answer.status < 400 || !hasNoUrl(answer))).toEqual([]);
      expect(await metric('shared_store_read_bytes_total')).toBe(read);
    },
  );
});
