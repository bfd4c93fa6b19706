import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import { eventually } from '../support/eventually.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { processTree } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';

describeWith([...POSTGRES], 'two gateways with one PostgreSQL', () => {
  let server: PostgresServer;
  let folder: string;
  /** Without the password. */
  let url: string;
  let one: TestGateway;
  let other: TestGateway;
  showLogOfFailures(() => one);
  showLogOfFailures(() => other);

  beforeAll(async () => {
    server = await PostgresServer.start();
    folder = mkdtempSync(join(tmpdir(), 'fleet-'));
    const [secretFile, passwordFile] = [join(folder, 'keys'), join(folder, 'password')];
    writeFileSync(secretFile, randomBytes(32).toString('base64'), { mode: 0o600 });
    writeFileSync(passwordFile, server.password, { mode: 0o600 });
    const whole = new URL(await server.createDatabase());
    whole.password = '';
    url = whole.href;
    const config = { database: url, secretFile, listen: { workers: 2 } };
    const env = { GATEWAY_DATABASE_PASSWORD_FILE: passwordFile };
    one = await prepareGateway({ config, env });
    other = await prepareGateway({ config, env });
    // At once: one of them fills the table.
    await Promise.all([one.start(), other.start()]);
    await eventually('both to know of each other', async () => (await status(one)).nodes.length === 2);
  });
  afterAll(async () => {
    await Promise.all([one?.close(), other?.close()]);
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const status = async (gateway: TestGateway) => JSON.parse(await gateway.ok('status', '--json')) as StatusReport;
  const ping = (gateway: TestGateway, host: string, credentials?: string) =>
    new Promise<number>((resolve, reject) => {
      const socket = open(gateway, host);
      socket.on('error', reject);
      const authorization = credentials === undefined ? '' : `Authorization: Basic ${btoa(credentials)}\r\n`;
      socket.write(`GET /v2/ HTTP/1.1\r\nHost: ${host}\r\n${authorization}Connection: close\r\n\r\n`);
      let text = '';
      socket.on('data', (bytes) => {
        text += bytes;
      });
      socket.on('end', () => resolve(Number(/^HTTP\/1.1 (\d+)/.exec(text)?.[1])));
    });
  const open = (gateway: TestGateway, servername: string, session?: Buffer): TLSSocket =>
    connect({
      host: '127.0.0.1',
      port: gateway.httpsPort,
      servername,
      ca: readFileSync(join(one.dataDir, 'ca.crt')),
      maxVersion: 'TLSv1.2',
      ...(session === undefined ? {} : { session }),
    });

  it('are one to their clients: an alias, and its removal, hold on both when the command returns', async () => {
    for (let round = 0; round < 3; round++) {
      await one.ok('alias', 'add', 'corp', 'registry.corp.example', '--no-check');
      expect(await ping(other, 'corp.localhost')).toBe(200);
      await other.ok('alias', 'rm', 'corp');
      await expect(ping(one, 'corp.localhost').catch((error: Error) => error.message)).resolves.not.toBe(200);
    }
  });

  it('say what is wrong with a password, and end', async () => {
    const stranger = await prepareGateway({ config: { database: url, secretFile: join(folder, 'keys') } });
    try {
      const ran = await stranger.cli(['serve'], { ms: 40_000 });
      expect([ran.code, ran.stderr]).toEqual([1, expect.stringContaining('the password is missing or wrong')]);
    } finally {
      await stranger.close();
    }
  });

  it('list each other, and what they share', async () => {
    const { database, nodes } = await status(one);
    expect(database).toMatchObject({ reachable: true, trouble: null });
    expect(JSON.stringify(database)).not.toContain(server.password);
    expect(nodes.map(({ self }) => self).sort()).toEqual([false, true]);
    expect((await one.ok('status')).match(/serves/g)).toHaveLength(2);
  });

  it('let a client go on at one with the session that the other gave it', async () => {
    const first = open(one, 'localhost');
    const session = await new Promise<Buffer>((resolve, reject) => {
      first.on('session', resolve);
      first.on('error', reject);
    });
    first.destroy();
    const second = open(other, 'localhost', session);
    await new Promise((resolve, reject) => second.on('secureConnect', resolve).on('error', reject));
    expect(second.isSessionReused()).toBe(true);
    second.destroy();
  });

  it('go on while the database is away, from start to end, and say so', async () => {
    await other.ok('user', 'add', 'ci');
    await server.halt('immediate');
    await eventually('/readyz to tell', async () => {
      const answer = await fetch(`http://127.0.0.1:${one.httpPort}/readyz`);
      const text = await answer.text();
      // Anybody may ask: nothing is said of where the database is.
      expect(text).not.toContain(String(server.port));
      return answer.status === 200 && text.includes('the database has not been there since');
    });
    const refused = await one.cli(['alias', 'add', 'later', 'registry.corp.example', '--no-check']);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('cannot be reached')]);
    expect(refused.stderr).not.toContain(server.password);
    // Nothing was changed that another could lag behind.
    expect(refused.stderr).not.toContain('does not serve by it');
    expect(await ping(one, 'quay.localhost')).toBe(401);

    await one.stop();
    await one.start();
    expect(await ping(one, 'quay.localhost')).toBe(401);
    expect((await status(one)).database).toMatchObject({ reachable: false });

    await server.begin();
    await eventually('both to know of each other again', async () => (await status(one)).nodes.length === 2);
    await other.ok('user', 'rm', 'ci');
    await one.ok('alias', 'add', 'later', 'registry.corp.example', '--no-check');
    await eventually('/readyz to tell no more', async () => {
      const answer = await fetch(`http://127.0.0.1:${one.httpPort}/readyz`);
      return (await answer.text()) === 'ready\n';
    });
    expect(one.log()).not.toMatch(/unhandled|"level":"fatal"/);
    expect(one.log() + other.log()).not.toContain(server.password);
  });

  it('names a gateway that does not serve by a change, and that one serves nobody before it has read it', async () => {
    const { token } = JSON.parse(await one.ok('user', 'add', 'leaver', '--json')) as { token: string };
    expect(await ping(other, 'quay.localhost', `leaver:${token}`)).toBe(200);
    const pids = processTree(other.pid());
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    let asked: Promise<number>;
    try {
      const stopped = (await status(one)).nodes.find(({ self }) => !self);
      const ran = await one.cli(['alias', 'add', 'stopped', 'registry.corp.example', '--no-check', '--json']);
      expect([ran.code, ran.stderr]).toEqual([
        0,
        expect.stringContaining(`the gateway ${stopped?.id} does not serve by it`),
      ]);
      expect(JSON.parse(ran.stdout).behind).toEqual([{ id: stopped?.id, address: null }]);
      await eventually('it to be taken for dead', async () => (await status(one)).nodes.length === 1);
      const removed = await one.cli(['user', 'rm', 'leaver']);
      expect([removed.code, removed.stderr + removed.stdout]).toEqual([
        0,
        expect.stringContaining(`the gateway ${stopped?.id}`),
      ]);
      // It lies in the socket when the process wakes up.
      asked = ping(other, 'quay.localhost', `leaver:${token}`);
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    }
    expect(await asked).toBe(401);
    expect(await ping(other, 'stopped.localhost')).toBe(401);
    await eventually('it to live again', async () => (await status(one)).nodes.length === 2);
  });

  it('act on the database where no gateway runs, and the others follow', async () => {
    await other.stop();
    await other.ok('alias', 'add', 'offline', 'registry.corp.example', '--no-check');
    expect(await ping(one, 'offline.localhost')).toBe(401);
    await eventually('the one that left to be gone', async () => (await status(one)).nodes.length === 1);
  });
});
