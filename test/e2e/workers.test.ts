import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import {
  allServe,
  CLIENTS,
  connected,
  everywhere,
  get,
  linesOf,
  PROCESSES,
  statuses,
} from '../support/every-process.ts';
import { type Content, FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { prepareGateway, showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { openDescriptors, processTree } from '../support/processes.ts';

const MIB = 1024 * 1024;
const REPOSITORY = 'library/app';
function workerPids(gateway: TestGateway): number[] {
  return processTree(gateway.pid()).filter(
    (pid) => pid !== gateway.pid() && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('worker'),
  );
}

/** Gone, or waiting for whoever became its parent to notice. */
function hasEnded(pid: number): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}

/** A handshake on a connection that stays open until it is destroyed; the alert's text where it is refused. */
function shake(gateway: TestGateway, servername: string, session?: Buffer): Promise<TLSSocket | string> {
  return new Promise((resolve) => {
    const ca = readFileSync(join(gateway.dataDir, 'ca.crt'));
    const socket = connect({
      host: '127.0.0.1',
      port: gateway.httpsPort,
      servername,
      ca,
      ...(session === undefined ? {} : { session }),
    });
    socket.once('secureConnect', () => resolve(socket));
    socket.once('error', (error) => resolve(error.message));
  });
}

async function handshakes(gateway: TestGateway, servername: string): Promise<string[]> {
  const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => shake(gateway, servername)));
  const seen = sockets.map((socket) =>
    typeof socket === 'string' ? 'refused' : (socket.getPeerCertificate().serialNumber ?? ''),
  );
  for (const socket of sockets) if (typeof socket !== 'string') socket.destroy();
  return [...new Set(seen)];
}

describe('a gateway of three processes', () => {
  let upstream: FakeRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await FakeRegistry.start();
    gateway = await startGateway({ config: { listen: { workers: PROCESSES }, upstream: { connections: 1 } } });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    await allServe(gateway);
  });
  afterEach(() => {
    upstream.faults = () => undefined;
    upstream.log.clear();
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.close();
  });

  const add = (content: Content): Content => upstream.repository(REPOSITORY).addBlob(content);
  const blobPath = ({ digest }: Content): string => `/v2/docker.io/${REPOSITORY}/blobs/${digest}`;
  const fetched = (): number => upstream.log.bytes({ kind: 'blob', method: 'GET' });
  const stats = async (): Promise<Record<string, number>> => JSON.parse(await gateway.ok('cache', 'stats', '--json'));

  it('fetches a cold blob once for the clients of all, whoever leaves in the middle', async () => {
    const content = add(generated(32 * MIB, 'all at once'));
    const leaver = (client: number): boolean => client % 4 === 0;
    const answers = await everywhere(
      gateway,
      blobPath(content),
      {},
      (client, bytes) => leaver(client) && bytes > 8 * MIB,
    );
    for (const [client, answer] of answers.entries()) {
      if (leaver(client)) expect(answer.whole).toBe(false);
      else expect(answer).toMatchObject({ status: 200, bytes: content.size, digest: content.digest });
    }
    expect(fetched()).toBe(content.size);
    upstream.faults = () => ({ status: 500 });
    for (const answer of await everywhere(gateway, blobPath(content))) {
      expect(answer).toMatchObject({ status: 200, whole: true, digest: content.digest });
    }
  });

  it('holds nothing of clients that left: descriptors, the blob itself', async () => {
    const content = add(generated(16 * MIB, 'left by all'));
    const descriptors = (): number[] => processTree(gateway.pid()).map((pid) => openDescriptors(pid));
    await everywhere(gateway, '/v2/');
    let before = gateway.descriptors();
    await eventually('connections to end', () => {
      const earlier = before;
      before = gateway.descriptors();
      return before === earlier;
    });
    for (let round = 0; round < 3; round++) {
      upstream.faults = () => ({ bytesPerSecond: 32 * MIB });
      await everywhere(gateway, blobPath(content), {}, () => true);
      await eventually('the fill to end', async () => (await stats()).fills === 0);
      // Nobody pins it: it can be thrown away.
      await gateway.ok('cache', 'prune', '--yes');
      expect((await stats()).blobs).toBe(0);
    }
    await eventually(`descriptors to come back to ${before}`, () => {
      // A few sockets to the upstream are kept for the next time.
      if (gateway.descriptors() > before + 4) throw new Error(`they are ${descriptors()}`);
      return true;
    });
  });

  it('passes failures on as what they are, from every process', async () => {
    const digest = generated(1, 'missing').digest;
    for (const { status, text } of await everywhere(gateway, `/v2/docker.io/${REPOSITORY}/blobs/${digest}`)) {
      expect(status).toBe(404);
      expect(JSON.parse(text).errors[0].code).toBe('BLOB_UNKNOWN');
    }
    upstream.faults = (asked) => (asked.kind === 'blob' ? { wrongByteAt: MIB } : undefined);
    const short = add(generated(4 * MIB, 'breaks off'));
    for (const answer of await everywhere(gateway, blobPath(short))) {
      expect(answer.status === 200 && answer.whole).toBe(false);
    }
  });

  it('shows every process a new registry and alias before the command returns, and their end', async () => {
    const manifest = `/v2/new.example/${REPOSITORY}/manifests/v1`;
    const image = upstream.repository(REPOSITORY).addImage('v1', ['one layer']);
    expect(statuses(await everywhere(gateway, manifest))).toEqual([403]);
    await gateway.ok('registry', 'set', 'new.example', '--endpoint', upstream.url);
    for (const { status, digest } of await everywhere(gateway, manifest)) {
      expect([status, digest]).toEqual([200, image.digest]);
    }
    await gateway.ok('registry', 'rm', 'new.example');
    // They had it ready a moment ago.
    expect(statuses(await everywhere(gateway, manifest))).toEqual([403]);

    expect(await handshakes(gateway, 'fresh.localhost')).toEqual(['refused']);
    await gateway.ok('alias', 'add', 'fresh', 'new.example', '--endpoint', upstream.url);
    const [first, ...others] = await handshakes(gateway, 'fresh.localhost');
    expect(first).toMatch(/^[0-9A-F]+$/);
    expect(others).toEqual([]);
    const aliased = { servername: 'fresh.localhost', headers: { host: 'fresh.localhost' } };
    expect(statuses(await everywhere(gateway, `/v2/${REPOSITORY}/manifests/v1`, aliased))).toEqual([200]);
    await gateway.ok('cert', 'renew', 'fresh.localhost');
    const renewed = await handshakes(gateway, 'fresh.localhost');
    expect(renewed).toHaveLength(1);
    expect(renewed).not.toEqual([first]);
    await gateway.ok('alias', 'rm', 'fresh');
    expect(
      statuses(await everywhere(gateway, `/v2/${REPOSITORY}/manifests/v1`, { headers: { host: 'fresh.localhost' } })),
    ).toEqual([404]);
  });

  it('serves busy manifests ready in every process, counts each, and forgets them with the cache', async () => {
    upstream.repository(REPOSITORY).addImage('busy', ['another layer']);
    const path = `/v2/docker.io/${REPOSITORY}/manifests/busy`;
    const replies = async (): Promise<number> => {
      const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
      return text
        .split('\n')
        .filter((line) => line.startsWith('gateway_registry_replies_total{kind="manifest"'))
        .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
    };
    const before = await replies();
    for (let round = 0; round < 5; round++) expect(statuses(await everywhere(gateway, path))).toEqual([200]);
    expect((await replies()) - before).toBe(5 * CLIENTS);
    expect(upstream.log.count({ kind: 'manifest', method: 'GET' })).toBe(1);
    await gateway.ok('cache', 'prune', '--yes');
    expect(statuses(await everywhere(gateway, path))).toEqual([200]);
    expect(upstream.log.count({ kind: 'manifest', method: 'GET' })).toBe(2);
  });

  it('resumes TLS sessions in whichever process', async () => {
    const first = await shake(gateway, 'localhost');
    if (typeof first === 'string') throw new Error(first);
    const session = await new Promise<Buffer>((resolve) => first.once('session', resolve));
    const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => shake(gateway, 'localhost', session)));
    expect(sockets.map((socket) => typeof socket !== 'string' && socket.isSessionReused())).not.toContain(false);
    for (const socket of sockets) if (typeof socket !== 'string') socket.destroy();
    first.destroy();
  });

  it('loses only its own connections when a worker is killed, and replaces it', async () => {
    const content = add(generated(24 * MIB, 'killed'));
    upstream.faults = () => ({ bytesPerSecond: 12 * MIB });
    const [victim = 0] = workerPids(gateway);
    const mark = 'mark/killed';
    let under = 0;
    const agents = await connected(gateway);
    const pulls = agents.map((agent) => {
      let begun = false;
      return get(gateway, blobPath(content), {
        agent,
        headers: { 'user-agent': mark },
        onBytes: () => {
          if (begun) return;
          begun = true;
          if (++under === CLIENTS) process.kill(victim, 'SIGKILL');
        },
      });
    });
    const answers = await Promise.all(pulls);
    const whole = answers.filter((answer) => answer.whole);
    for (const answer of whole) expect(answer.digest).toBe(content.digest);
    // A third were its.
    expect(CLIENTS - whole.length).toBe(CLIENTS / PROCESSES);
    for (const agent of agents) agent.destroy();
    await eventually('the lines of the others', () => linesOf(gateway, mark).length === whole.length);
    expect(linesOf(gateway, mark).map(({ worker }) => worker)).not.toContain(victim);
    expect(fetched()).toBe(content.size);

    await allServe(gateway);
    expect(workerPids(gateway)).toHaveLength(PROCESSES - 1);
    expect(workerPids(gateway)).not.toContain(victim);
    for (const answer of await everywhere(gateway, blobPath(content))) expect(answer.digest).toBe(content.digest);
    await gateway.ok('cache', 'prune', '--yes');
    expect((await stats()).blobs).toBe(0);
  });

  it('writes whole lines to the log, whichever process they are from', () => {
    const lines = gateway.log().split('\n').slice(0, -1);
    expect(lines.length).toBeGreaterThan(100);
    expect(lines.filter((line) => !line.startsWith('{') || !line.endsWith('}'))).toEqual([]);
    for (const line of lines) JSON.parse(line);
  });

  it('finishes running pulls of every process when the whole group is asked to end', async () => {
    const content = add(generated(24 * MIB, 'ending'));
    upstream.faults = () => ({ bytesPerSecond: 12 * MIB });
    const workers = workerPids(gateway);
    let under = 0;
    const agents = await connected(gateway);
    const pulls = agents.map((agent) => {
      let begun = false;
      return get(gateway, blobPath(content), {
        agent,
        headers: { 'user-agent': 'mark/ending' },
        onBytes: () => {
          if (begun) return;
          begun = true;
          // As Ctrl-C in a terminal does it.
          if (++under === CLIENTS) process.kill(-gateway.pid(), 'SIGINT');
        },
      });
    });
    for (const answer of await Promise.all(pulls))
      expect(answer).toMatchObject({ whole: true, digest: content.digest });
    await eventually('the gateway to end', () => !gateway.running());
    for (const pid of workers) expect(hasEnded(pid)).toBe(true);
    const seen = linesOf(gateway, 'mark/ending');
    expect(seen).toHaveLength(CLIENTS);
    expect(new Set(seen.map(({ worker }) => worker)).size).toBe(PROCESSES);
  });

  it('leaves no process behind when the owner is killed, in the middle of pulls, and starts again', async () => {
    const content = add(generated(24 * MIB, 'owner'));
    upstream.faults = () => ({ bytesPerSecond: 12 * MIB });
    await gateway.start();
    await allServe(gateway);
    const workers = workerPids(gateway);
    expect(workers).toHaveLength(PROCESSES - 1);
    let under = 0;
    const pulls = Array.from({ length: CLIENTS }, () => {
      let begun = false;
      return get(gateway, blobPath(content), {
        agent: new Agent(),
        onBytes: () => {
          if (begun) return;
          begun = true;
          if (++under === CLIENTS) process.kill(gateway.pid(), 'SIGKILL');
        },
      });
    });
    for (const answer of await Promise.all(pulls)) expect(answer.whole).toBe(false);
    await eventually('the workers to end', () => workers.every(hasEnded));
    await eventually('the gateway to end', () => !gateway.running());
    upstream.faults = () => undefined;
    await gateway.start();
    await allServe(gateway);
    for (const answer of await everywhere(gateway, blobPath(content))) expect(answer.digest).toBe(content.digest);
  });

  // The last one: once there was a user, the gateway stays closed.
  it('lets users in, and refuses all others, in every process', async () => {
    const [token = ''] = /rgw_[\w-]+/.exec(await gateway.ok('user', 'add', 'ann')) ?? [];
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([401]);
    expect(statuses(await everywhere(gateway, '/v2/', { auth: `ann:${token}` }))).toEqual([200]);
    expect(await gateway.ok('user', 'ls', '--json')).toMatch(/"lastUsedAt": "20/);
    await gateway.ok('user', 'rm', 'ann');
    expect(statuses(await everywhere(gateway, '/v2/'))).toEqual([401]);
    expect(statuses(await everywhere(gateway, '/v2/', { auth: `ann:${token}` }))).toEqual([401]);
  });
});

describe('limits of a gateway of three processes', () => {
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);
  afterAll(() => gateway?.close());

  it('counts a client’s requests to all of them together', async () => {
    const perMinute = 20;
    gateway = await prepareGateway({
      config: { listen: { workers: PROCESSES }, limits: { requestsPerMinute: perMinute } },
    });
    await gateway.start();
    await allServe(gateway);
    const started = performance.now();
    const answers = [];
    for (let round = 0; round < 3; round++) answers.push(...(await everywhere(gateway, '/v2/')));
    const served = answers.filter(({ status }) => status === 200).length;
    const refilled = Math.ceil(((performance.now() - started) / 60_000) * perMinute);
    expect(served).toBeGreaterThanOrEqual(perMinute - 2);
    expect(served).toBeLessThanOrEqual(perMinute + refilled);
    expect(statuses(answers)).toEqual([200, 429]);
  });
});
