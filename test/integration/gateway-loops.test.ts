import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startGateway, type TestGateway } from '../support/gateway.ts';

// Gateways that lead to themselves by a way that no table shows: through a forwarder, and through one another.

const CONFIG = { config: { tls: { mode: 'off' }, listen: { https: 'off' } } };

/** Passes every request on, as a proxy that knows nothing of `Via` does, and keeps them. */
class Forwarder {
  readonly seen: { readonly method: string; readonly url: string; readonly via: string }[] = [];
  readonly #server: Server;
  #to = 0;

  /** What requests wait for before they are passed on. */
  gate: () => Promise<void> = async () => {};

  constructor() {
    this.#server = createServer(async (incoming, response) => {
      const { method = '', url = '', headers } = incoming;
      this.seen.push({ method, url, via: String(headers.via) });
      await this.gate();
      const onward = request({ host: '127.0.0.1', port: this.#to, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 0, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      onward.end();
    });
  }

  async start(to: number): Promise<string> {
    this.#to = to;
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

let one: TestGateway;
let other: TestGateway;
const [toOne, toOther] = [new Forwarder(), new Forwarder()];

beforeAll(async () => {
  [one, other] = await Promise.all([startGateway(CONFIG), startGateway(CONFIG)]);
  const [one0, other0] = [await toOne.start(one.httpPort), await toOther.start(other.httpPort)];
  await one.ok('registry', 'set', 'gw.test', '--endpoint', one0);
  await one.ok('registry', 'set', 'far.test', '--endpoint', other0);
  await one.ok('registry', 'set', 'docker.io', '--endpoint', other0);
  // The name in the path is lost on the way: the other one takes it for one of docker.io.
  await other.ok('registry', 'set', 'docker.io', '--endpoint', one0);
}, 60_000);

afterAll(async () => {
  toOne.stop();
  toOther.stop();
  await Promise.all([one.close(), other.close()]);
});

async function ask(path: string, method = 'GET') {
  for (const forwarder of [toOne, toOther]) forwarder.seen.splice(0);
  const answer = await fetch(`http://127.0.0.1:${one.httpPort}${path}`, { method });
  const text = await answer.text();
  return { status: answer.status, body: text, turns: [toOne.seen.length, toOther.seen.length] };
}

const DIGEST = `sha256:${'a'.repeat(64)}`;

test.each([
  ['GET', 'manifests/1'],
  ['HEAD', 'manifests/2'],
  ['GET', `manifests/${DIGEST}`],
  ['GET', `blobs/${DIGEST}`],
  ['HEAD', `blobs/${DIGEST}`],
  ['GET', 'tags/list'],
  ['GET', `referrers/${DIGEST}`],
])('a registry that is the gateway itself: 508 after one turn (%s %s)', async (method, what) => {
  const answer = await ask(`/v2/gw.test/org/app-${method.toLowerCase()}/${what}`, method);
  expect([answer.status, answer.turns]).toEqual([508, [1, 0]]);
  if (method === 'GET') {
    const { errors } = JSON.parse(answer.body) as { errors: { code: string; message: string }[] };
    expect(errors[0]?.code).toBe('UNAVAILABLE');
    expect(errors[0]?.message).toContain('gw.test leads back to this gateway');
  }
});

test('through another gateway and back: 508, one request to each', async () => {
  for (const what of ['manifests/1', 'tags/list', `blobs/${DIGEST}`]) {
    const answer = await ask(`/v2/far.test/org/round/${what}`);
    expect([answer.status, answer.turns]).toEqual([508, [1, 1]]);
    expect(toOther.seen[0]?.via).toMatch(/^1\.1 registry-gateway-[0-9a-f]{16}$/);
    expect(toOne.seen[0]?.via).toMatch(/^1\.1 registry-gateway-[0-9a-f]{16}, 1\.1 registry-gateway-[0-9a-f]{16}$/);
  }
});

test.each([
  ['GET', 'manifests/both'],
  ['HEAD', 'manifests/both'],
  ['GET', `manifests/sha256:${'b'.repeat(64)}`],
  ['GET', `blobs/sha256:${'c'.repeat(64)}`],
  ['GET', 'tags/list'],
])('two gateways that lead to each other and were both asked: 508 after one turn (%s %s)', async (method, what) => {
  const forwarders = [toOne, toOther];
  for (const forwarder of forwarders) forwarder.seen.splice(0);
  // Neither request is passed on before both gateways have asked.
  const both = Promise.withResolvers<void>();
  for (const forwarder of forwarders) {
    forwarder.gate = () => {
      if (forwarders.every(({ seen }) => seen.length > 0)) both.resolve();
      return both.promise;
    };
  }
  const answers = await Promise.all(
    [one, other].map(({ httpPort }) => fetch(`http://127.0.0.1:${httpPort}/v2/org/both/${what}`, { method })),
  );
  for (const forwarder of forwarders) forwarder.gate = async () => {};
  expect(answers.map(({ status }) => status)).toEqual([508, 508]);
  for (const { seen } of forwarders) expect(seen.length).toBeLessThanOrEqual(3);
});

test('the name is random, kept over a restart, and goes to no registry with those of other proxies', async () => {
  await ask('/v2/gw.test/org/app/manifests/kept');
  const before = toOne.seen[0]?.via;
  await one.stop();
  await one.start();
  await fetch(`http://127.0.0.1:${one.httpPort}/v2/gw.test/org/app/manifests/after`, {
    headers: { via: '1.1 proxy.corp.example' },
  });
  expect(toOne.seen.at(-1)?.via).toBe(before);
  await ask('/v2/far.test/org/app/manifests/1');
  expect(toOther.seen[0]?.via).toBe(before);
  expect(toOne.seen[0]?.via).not.toBe(before);
});

test('where it can be seen it is refused', async () => {
  const refused = await one.cli(['registry', 'set', 'r.test', '--endpoint', `http://127.0.0.1:${one.httpPort}`]);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('this gateway itself')]);
  const alias = await one.cli(['alias', 'add', 'self', 'self.localhost']);
  expect(alias.code).toBe(1);
});
