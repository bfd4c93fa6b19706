import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EndpointVerdict } from '../../src/admin/contract.ts';
import { judgeAnswer, tryRegistry } from '../../src/admin/registry-check.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';
import type { Config } from '../../src/config/config.ts';
import { NO_ANSWER, type RegistryAnswer } from '../../src/upstream/registry-check.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { httpProxy, type TestProxy } from '../support/proxy-servers.ts';
import { makeTestCa } from '../support/test-ca.ts';

// What `alias add` and `registry set` see of a registry, and what they advise.

const USERS = { me: 'right' };
const ca = makeTestCa();
const [plain, secure, expired, otherName, bearer, closed, basic] = await Promise.all([
  FakeRegistry.start(),
  FakeRegistry.start({ tls: ca.issue(['localhost']) }),
  FakeRegistry.start({ tls: ca.issue(['localhost'], -1) }),
  FakeRegistry.start({ tls: ca.issue(['registry.test']) }),
  FakeRegistry.start({ auth: { scheme: 'bearer', users: USERS } }),
  FakeRegistry.start({ auth: { scheme: 'bearer', users: USERS, tokenRefusal: 403 } }),
  FakeRegistry.start({ auth: { scheme: 'basic', users: USERS } }),
]);
const proxies: TestProxy[] = [];
const servers: Server[] = [];
afterAll(async () => {
  const fakes = [plain, secure, expired, otherName, bearer, closed, basic];
  await Promise.all([...fakes, ...proxies].map((one) => one.close()));
  for (const server of servers) server.closeAllConnections();
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
});

const portOf = (url: string) => new URL(url).port;
const https = (fake: FakeRegistry) => `https://localhost:${portOf(fake.url)}`;

async function tried(endpoint: string, row: Partial<RegistryEntry> = {}): Promise<EndpointVerdict> {
  const config = { upstream: { proxy: null, caFile: null } } as unknown as Config;
  const pseudonym = 'registry-gateway-0123456789abcdef';
  const route = {
    host: 'r.test',
    proxy: null,
    credentials: null,
    public: false,
    realms: [],
    named: [],
    ca: null,
    ...row,
  };
  const known = ['quay.io', 'ghcr.io', 'registry.k8s.io'];
  const entry = { ...route, endpoints: [endpoint] };
  const [verdict] = await tryRegistry({ config, pseudonym }, entry, known, new AbortController().signal);
  if (verdict === undefined) throw new Error('nothing was tried');
  return verdict;
}

async function web(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const html = '<!doctype html><title>It works</title>';
const me = (password: string) => ({ username: 'me', password });

type Case<R extends unknown[]> = readonly [what: string, endpoint: () => string, row: Partial<RegistryEntry>, ...R];

describe('a registry that is well', () => {
  const cases: Case<[RegExp]>[] = [
    ['asks for nothing', () => plain.url, {}, /answers \(200, \d+ ms\)$/],
    ['gives everybody a token', () => bearer.url, {}, /answers \(.*\), and gives everybody a token|answers \(200/],
    ['gives anonymous tokens for a repository alone', () => closed.url, {}, /answers \(/],
    ['takes the credentials for a token', () => bearer.url, { credentials: me('right') }, /and takes the credentials$/],
    ['takes the credentials', () => basic.url, { credentials: me('right') }, /and takes the credentials$/],
    ['has a private CA, which --ca names', () => https(secure), { ca: ca.pem }, /answers \(200/],
  ];
  test.each(cases)('%s', async (_, endpoint, row, message) => {
    expect(await tried(endpoint(), row)).toMatchObject({
      level: 'ok',
      message: expect.stringMatching(message),
      next: null,
    });
  });

  test('wants a login: nothing can be pulled without one, which is no failure yet', async () => {
    expect(await tried(basic.url)).toMatchObject({
      level: 'warn',
      message: expect.stringContaining('wants a login'),
      next: 'gateway registry set r.test --username U --password-stdin',
    });
  });
});

describe('what is wrong', () => {
  const cases: Case<[RegExp, RegExp]>[] = [
    [
      'wrong credentials for a token',
      () => bearer.url,
      { credentials: me('wrong') },
      /refuses the credentials/,
      /check user and password/,
    ],
    [
      'wrong credentials',
      () => basic.url,
      { credentials: me('wrong') },
      /refuses the credentials \(401\)/,
      /check user and password/,
    ],
    [
      'a private CA',
      () => https(secure),
      {},
      /authority that this machine does not trust.*CN=CA of this test/,
      /registry set r\.test --ca FILE/,
    ],
    [
      'an expired certificate',
      () => https(expired),
      { ca: ca.pem },
      /certificate has expired at 20.*this machine's clock says 20/,
      /renew its certificate/,
    ],
    [
      'a certificate for another name',
      () => https(otherName),
      { ca: ca.pem },
      /for another name \(registry\.test\)/,
      /--endpoint https:\/\/NAME/,
    ],
    [
      'plain HTTP where HTTPS was said',
      () => `https://localhost:${portOf(plain.url)}`,
      {},
      /speaks plain HTTP there/,
      /--endpoint http:\/\/localhost:\d+$/,
    ],
    [
      'HTTPS where plain HTTP was said',
      () => `http://localhost:${portOf(secure.url)}`,
      {},
      /speaks HTTPS there/,
      /--endpoint https:\/\/localhost:\d+$/,
    ],
    ['a port where nothing listens', () => 'http://127.0.0.1:1', {}, /it refuses connections/, /listens on port 1/],
  ];
  test.each(cases)('%s', async (_, endpoint, row, message, next) => {
    expect(await tried(endpoint(), row)).toMatchObject({
      level: 'fail',
      message: expect.stringMatching(message),
      next: expect.stringMatching(next),
    });
  });

  test('a typo, where there is a registry of nearly that name', async () => {
    const verdict = await tried('https://quay.oi', { host: 'quay.oi' });
    expect(verdict).toMatchObject({ level: 'fail', next: expect.stringMatching(/^did you mean quay\.io\?/) });
  });

  test('an authority of --ca that has expired', async () => {
    const old = makeTestCa('Old root', undefined, -1);
    expect(await tried(https(secure), { ca: old.pem })).toMatchObject({
      level: 'fail',
      message: expect.stringMatching(/authority that --ca named for it \(CN=Old root\) expired at/),
      next: expect.stringContaining('--ca FILE'),
    });
  });

  test('a web site', async () => {
    const site = await web((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(html));
    expect(await tried(site)).toMatchObject({ level: 'fail', message: expect.stringContaining('a web page') });
    const gone = await web((_, response) => response.writeHead(404, { 'content-type': 'text/html' }).end(html));
    expect(await tried(gone)).toMatchObject({ level: 'fail', next: expect.stringContaining('--endpoint URL') });
    const portal = await web((_, response) => response.writeHead(302, { location: `${site}/login` }).end());
    expect(await tried(portal)).toMatchObject({ level: 'fail', message: expect.stringContaining('by a redirect to') });
  });

  test('a realm that nothing is sent to', async () => {
    const challenge = 'Bearer realm="https://169.254.169.254/token",service="x"';
    const site = await web((_, response) => response.writeHead(401, { 'www-authenticate': challenge }).end());
    expect(await tried(site)).toMatchObject({
      level: 'fail',
      message: expect.stringContaining('gives no token'),
      next: expect.stringContaining('nothing was sent there'),
    });
  });

  test('this gateway itself, and a registry that has a fault of its own', async () => {
    const loop = await web((_, response) => response.writeHead(508).end());
    expect(await tried(loop)).toMatchObject({ level: 'fail', message: expect.stringContaining('leads back') });
    const broken = await web((_, response) => response.writeHead(503).end());
    expect(await tried(broken)).toMatchObject({ level: 'fail', message: expect.stringContaining('answers (503') });
  });

  test('a server that takes connections and never answers, within ten seconds', async () => {
    const silent = createTcpServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    expect(await tried(`http://127.0.0.1:${port}`)).toMatchObject({
      level: 'fail',
      message: expect.stringContaining('no answer came in time'),
      next: expect.stringContaining(`let this machine out to 127.0.0.1:${port}`),
    });
    silent.close();
  });
});

describe('a proxy', () => {
  const through = async (options: Parameters<typeof httpProxy>[0], user = '') => {
    const proxy = await httpProxy(options);
    proxies.push(proxy);
    return { proxy: `http://${user}127.0.0.1:${proxy.port}` };
  };

  test('that lets it pass is named', async () => {
    const row = await through({});
    const verdict = await tried(https(secure), { ...row, ca: ca.pem });
    expect(verdict).toMatchObject({ level: 'ok', message: expect.stringMatching(/ through 127\.0\.0\.1:\d+ answers/) });
  });

  test.each([
    ['that wants credentials', { credentials: { username: 'a', password: 'b' } }, /407/, /USER:PASSWORD@PROXY/],
    ['that does not let it pass', { tunnels: /^nowhere$/ }, /403/, /let whoever runs the proxy allow this host/],
  ])('%s', async (_, options, message, next) => {
    const row = await through(options, 'u:secret-of-proxy@');
    const verdict = await tried(https(secure), { ...row, ca: ca.pem });
    expect(verdict).toMatchObject({
      level: 'fail',
      message: expect.stringMatching(message),
      next: expect.stringMatching(next),
    });
    expect(JSON.stringify(verdict)).not.toContain('secret-of-proxy');
  });

  test('of SOCKS that gets addresses, where the name is known to the proxy alone', async () => {
    expect(await tried('https://only-there.invalid', { proxy: 'socks5://127.0.0.1:1' })).toMatchObject({
      level: 'fail',
      next: expect.stringContaining('socks5h://'),
    });
  });

  test('that takes connections and never answers is what to look at', () => {
    const route = {
      host: 'r.test',
      endpoints: [],
      proxy: null,
      credentials: null,
      public: false,
      realms: [],
      named: [],
      ca: null,
    };
    const answer: RegistryAnswer = {
      ...NO_ANSWER,
      proxy: { host: 'proxy.test', port: 3128, resolves: true },
      failure: Object.assign(new Error('late'), { code: 'ETIMEDOUT' }),
    };
    expect(judgeAnswer(route, 'https://r.test', answer, { known: [], now: 0 })).toMatchObject({
      level: 'fail',
      message: expect.stringContaining('through proxy.test:3128'),
      next: expect.stringContaining('see whether the proxy runs'),
    });
  });

  test('that does not run', async () => {
    expect(await tried(https(secure), { proxy: 'http://127.0.0.1:1' })).toMatchObject({
      level: 'fail',
      message: expect.stringContaining('the proxy 127.0.0.1:1 is out of reach'),
      next: expect.stringContaining('see whether the proxy runs'),
    });
  });
});

describe('the commands', () => {
  let gateway: TestGateway;
  beforeAll(async () => {
    gateway = await startGateway({ config: { listen: { workers: 1 } } });
  });
  afterAll(() => gateway.close());
  const cli = (line: string) => gateway.cli(line.split(' '), { tries: true });

  test('keep an alias whose registry is out of reach, serve it, and exit 1 with the reason and the next step', async () => {
    const { code, stdout, stderr } = await cli('alias add gone gone.test --endpoint http://127.0.0.1:1');
    expect(code).toBe(1);
    expect(stdout).toContain('gone.localhost serves gone.test');
    expect(stderr).toMatch(
      /gone\.test is in the table, but nothing can be pulled from it now: .*refuses connections\n {2}see whether/,
    );
    expect(await gateway.ok('alias', 'ls')).toContain('gone.localhost');
    expect((await cli('registry set gone.test --public')).code).toBe(1);
    expect((await cli('registry set gone.test --public --no-check')).code).toBe(0);
  });

  test('say that a registry answers', async () => {
    const { code, stdout, stderr } = await cli(`alias add here here.test --endpoint ${plain.url}`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/http:\/\/\S+ answers \(200, \d+ ms\)/);
  });

  test('take one endpoint of several that answers for enough, and say what is wrong with the other', async () => {
    const line = `registry set here.test --endpoint http://127.0.0.1:1 --endpoint ${plain.url}`;
    const { code, stderr } = await cli(line);
    expect(code).toBe(0);
    expect(stderr).toContain('it refuses connections');
  });

  test('ask nobody for a pattern', async () => {
    expect((await cli('registry set *.gone.test')).code).toBe(0);
  });
});
