import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { signCertificate } from '../../src/certs/x509.ts';
import { run } from '../../src/cli/run.ts';
import { withoutTrial } from '../support/without-trial.ts';

// Commands that act on a gateway which runs: a real one, as a process of its own, with its embedded defaults on free ports.

let home: string;
let gateway: Gateway;
let upstream: http.Server;
let upstreamUrl: string;
let pending: (() => void) | undefined;
const started: ChildProcess[] = [];

interface Gateway {
  readonly process: ChildProcess;
  readonly https: number;
  readonly http: number;
}

beforeAll(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'gateway-running-'));
  ENV.RUNTIME_DIRECTORY = path.join(home, 'run');
  upstream = http.createServer((request, response) => {
    // Manifests never come, so that a pull can be left hanging.
    if (request.url?.includes('/manifests/')) pending?.();
    else response.end('{}');
  });
  upstream.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  upstreamUrl = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  gateway = await serve(path.join(home, 'data'));
});

afterAll(async () => {
  await Promise.all(started.map(end));
  upstream.closeAllConnections();
  upstream.close();
  await rm(home, { recursive: true, force: true });
});

const ENV: NodeJS.ProcessEnv = {
  PATH: process.env.PATH,
  GATEWAY_LISTEN_HTTPS: '127.0.0.1:0',
  GATEWAY_LISTEN_HTTP: '127.0.0.1:0',
  GATEWAY_LISTEN_WORKERS: '1',
  GATEWAY_METRICS_LISTEN: 'off',
};

async function serve(dataDir: string, env: NodeJS.ProcessEnv = {}): Promise<Gateway> {
  const child = spawn(process.execPath, [path.resolve('src/main.ts'), 'serve', '--data-dir', dataDir], {
    cwd: home,
    env: { ...ENV, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = once(child, 'exit').then(() => Promise.reject(new Error(`serve ended: ${said}`)));
  ended.catch(() => {});
  const port = (scheme: string) => new RegExp(`${scheme}://127\\.0\\.0\\.1:(\\d+)`).exec(said)?.[1];
  while (port('https') === undefined || port('http') === undefined) {
    await Promise.race([once(child.stdout, 'data'), ended]);
  }
  return { process: child, https: Number(port('https')), http: Number(port('http')) };
}

async function end(child: ChildProcess): Promise<unknown> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  return once(child, 'exit');
}

async function cli(line: string | string[], dataDir = path.join(home, 'data')) {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const code = await run({
    argv: [...withoutTrial(typeof line === 'string' ? line.split(' ') : line), '--data-dir', dataDir],
    stdout,
    stderr,
    stdin: Readable.from([]),
    env: ENV,
    cwd: home,
    signal: new AbortController().signal,
  });
  return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
}

/** `GET /v2/` as a client would, under this name. */
async function ping(host: string, authorization?: string): Promise<{ status: number; serial: string; issuer: string }> {
  const request = https.get({
    host: '127.0.0.1',
    port: gateway.https,
    path: '/v2/',
    servername: host,
    headers: { host, ...(authorization === undefined ? {} : { authorization }) },
    rejectUnauthorized: false,
    agent: false,
  });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  response.resume();
  const certificate = (response.socket as TLSSocket).getPeerX509Certificate();
  return {
    status: response.statusCode ?? 0,
    serial: certificate?.serialNumber ?? '',
    issuer: certificate?.issuer ?? '',
  };
}

const steps = (out: string) => out.split('\n').map((line) => /^(\w+(?: use)?) {2,}/.exec(line)?.[1]);

describe('alias add', () => {
  test('tells each step and returns once the listener serves the alias under the new certificate', async () => {
    const { code, out, err } = await cli(`alias add fresh fresh.example --endpoint ${upstreamUrl}`);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(steps(out)).toEqual(['table', 'finalise', 'in use', 'served', undefined, undefined]);
    const shown = JSON.parse((await cli('cert show fresh --json')).out);
    expect(await ping('fresh.localhost')).toMatchObject({ status: 200, serial: shown.serial });
    expect(out).toContain(shown.serial);
  });

  test('of what exists is no error, of what stands for another registry it is', async () => {
    expect((await cli('alias add fresh fresh.example')).code).toBe(0);
    const taken = await cli('alias add fresh quay.io');
    expect(taken.code).toBe(1);
    expect(taken.err).toContain('fresh.example');
    expect((await cli(['alias', 'add', 'no good', 'quay.io'])).code).toBe(2);
  });

  test('with --no-cert orders none until cert renew', async () => {
    const added = await cli('alias add later quay.io --no-cert');
    expect(added.code).toBe(0);
    expect(steps(added.out)).toEqual(['table', 'cert', undefined, undefined]);
    const renewed = await cli('cert renew later');
    expect(renewed.code).toBe(0);
    expect(renewed.out).toContain('the gateway answers later.localhost/v2/');
    const before = (await ping('later.localhost')).serial;
    await cli('cert renew later.localhost');
    expect((await ping('later.localhost')).serial).not.toBe(before);
  });

  test('rm ends it at once', async () => {
    await cli('alias add short quay.io');
    expect((await ping('short.localhost')).status).toBe(200);
    expect((await cli('alias rm short')).code).toBe(0);
    const after = await ping('short.localhost').catch(() => ({ status: 0 }));
    expect([0, 404]).toContain(after.status);
    expect((await cli('alias rm short')).code).toBe(1);
  });
});

test('an imported certificate is in use at once', async () => {
  await cli('alias add hub.corp.example quay.io');
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const leaf = signCertificate(
    {
      commonName: 'hub.corp.example',
      names: ['hub.corp.example'],
      publicKey,
      notBefore: Date.now() - 60_000,
      notAfter: Date.now() + 3_600_000,
      ca: false,
    },
    { key: privateKey, publicKey, commonName: 'Corporate CA' },
  );
  await writeFile(path.join(home, 'tls.crt'), leaf.toString());
  await writeFile(path.join(home, 'tls.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const importing = ['cert', 'import', path.join(home, 'tls.crt'), path.join(home, 'tls.key')];
  const refused = await cli(importing);
  expect(refused.code).toBe(1);
  expect(refused.err).toMatch(
    /it was signed by Corporate CA, whose certificate is neither in the file nor among those/,
  );
  expect(refused.err).toContain('--force');
  const imported = await cli([...importing, '--force']);
  expect(imported).toMatchObject({ code: 0, err: '' });
  expect((await ping('hub.corp.example')).issuer).toContain('Corporate CA');
  expect((await cli('cert export hub.corp.example')).out).toContain(leaf.toString().trim());
  const other = await cli(['cert', 'import', path.join(home, 'tls.crt'), path.join(home, 'tls.crt')]);
  expect(other.code).not.toBe(0);
  const stranger = await cli('cert rm nobody.example');
  expect([stranger.code, stranger.err]).toEqual([
    1,
    expect.stringMatching(/no imported certificate covers nobody.example, and no other one\n.*gateway cert ls/),
  ]);
});

test('status and the clients know the ports that were bound', async () => {
  const status = JSON.parse((await cli('status --json')).out);
  expect(status).toMatchObject({
    running: true,
    pid: gateway.process.pid,
    addresses: { https: [`127.0.0.1:${gateway.https}`], http: [`127.0.0.1:${gateway.http}`] },
  });
  expect((await cli('client docker')).out).toContain(`"https://localhost:${gateway.https}"`);
});

test('config show says where the gateway that runs works with something else', async () => {
  const { code, out, err } = await cli('config show');
  expect(code).toBe(0);
  expect(out).toMatch(/^listen\.https +127\.0\.0\.1:0 +GATEWAY_LISTEN_HTTPS$/m);
  expect(err).not.toContain('something else');
  ENV.GATEWAY_DOMAIN = 'cr.example.com';
  const other = await cli('config show domain --json');
  delete ENV.GATEWAY_DOMAIN;
  expect(JSON.parse(other.out).settings).toEqual([
    {
      key: 'domain',
      value: 'cr.example.com',
      origin: { kind: 'environment', variable: 'GATEWAY_DOMAIN' },
      running: 'localhost',
    },
  ]);
});

test('doctor fails where a registry cannot be reached, and only there', async () => {
  const closed = http.createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = closed.address() as AddressInfo;
  closed.close();
  await once(closed, 'close');
  // Every registry of the table at the test's own upstream: what the internet says is no matter here.
  for (const { host } of JSON.parse((await cli('registry ls --json')).out)) {
    await cli(`registry set ${host} --endpoint ${upstreamUrl}`);
  }
  await cli('alias rm hub.corp.example');
  const well = await cli('doctor');
  expect(well.out).toContain(`ok   registry quay.io: ${upstreamUrl} answers (200, `);
  expect(well.out).toContain('ok   clock: ');
  expect(well.out).not.toMatch(/^fail/m);
  expect(well.code).toBe(0);

  await cli(`registry set quay.io --endpoint http://127.0.0.1:${port}`);
  const ill = await cli('doctor --json');
  expect(ill.code).toBe(1);
  const { checks, counts } = JSON.parse(ill.out);
  expect(counts.fail).toBe(1);
  expect(checks.find((check: { level: string }) => check.level === 'fail')).toMatchObject({
    name: 'registry quay.io',
    message: expect.stringContaining('refuses connections'),
    next: expect.stringContaining('gateway registry set quay.io'),
  });
});

test('a second gateway on the same directory is refused and told who holds it', async () => {
  await expect(serve(path.join(home, 'data'))).rejects.toThrow(
    new RegExp(`serve ended: gateway: .* in use by process ${gateway.process.pid} \\(serve, since 20.*\\)\\n  \\S`),
  );
});

test('the first SIGTERM lets a pull go on, the second ends at once', async () => {
  const second = path.join(home, 'second');
  const own = await serve(second, { GATEWAY_LOG_FORMAT: 'json' });
  await cli(['registry', 'set', 'quay.io', '--endpoint', upstreamUrl], second);
  const asked = new Promise<void>((resolve) => (pending = resolve));
  const pull = https.get({
    host: '127.0.0.1',
    port: own.https,
    path: '/v2/quay.io/library/app/manifests/latest',
    headers: { host: 'localhost' },
    rejectUnauthorized: false,
    agent: false,
  });
  const cut = once(pull, 'error');
  cut.catch(() => {});
  await asked;
  const exited = once(own.process, 'exit');
  const ending = new Promise<void>((resolve) =>
    own.process.stdout?.on('data', (text: string) => text.includes('running pulls may finish') && resolve()),
  );
  own.process.kill('SIGTERM');
  await ending;
  expect(own.process.exitCode).toBeNull();
  own.process.kill('SIGTERM');
  expect(await exited).toEqual([143, null]);
  await cut;
});

// The last one: from here on this gateway is closed.
test('a user is let in at once, everybody else is not any more, and not again after the last user', async () => {
  const { out: token } = await cli('user add bob');
  expect((await ping('localhost')).status).toBe(401);
  const basic = `Basic ${Buffer.from(`bob:${token.trim()}`).toString('base64')}`;
  expect((await ping('localhost', basic)).status).toBe(200);
  // Seen in a worker or in the owner.
  await expect.poll(async () => (await cli('user ls --json')).out).toMatch(/"lastUsedAt": "20/);
  // The gateway's own listener answers 401 to itself, and that is enough.
  expect((await cli('alias add guarded quay.io')).code).toBe(0);
  const { out: next } = await cli('user rotate bob');
  expect((await ping('localhost', basic)).status).toBe(401);
  expect((await ping('localhost', `Basic ${Buffer.from(`bob:${next.trim()}`).toString('base64')}`)).status).toBe(200);
  await cli('user rm bob');
  expect((await ping('localhost')).status).toBe(401);
});
