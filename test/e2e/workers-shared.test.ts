import { existsSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type AcmeGateway, DOMAIN, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { awayFromMidnight } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, CLIENTS, everywhere, PROCESSES, statuses } from '../support/every-process.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { type Content, FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { meet } from '../support/tls-client.ts';

const MIB = 1024 * 1024;
const REPOSITORY = 'library/app';
const WORKERS = { listen: { workers: PROCESSES } };

const pathOf = ({ digest }: Content): string => `/v2/docker.io/${REPOSITORY}/blobs/${digest}`;

describe('the bytes that a client was sent by three processes', () => {
  const SIZE = 512 * 1024;
  /** A byte too little for all clients of one round; what one process sends in it is far below. */
  const LIMIT = CLIENTS * SIZE - 1;
  let upstream: FakeRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    await awayFromMidnight();
    upstream = await FakeRegistry.start();
    gateway = await startGateway({ config: { ...WORKERS, limits: { bytesPerDay: String(LIMIT) } } });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    await allServe(gateway);
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.close();
  });

  it('count together, and for all of them', async () => {
    const content = upstream.repository(REPOSITORY).addBlob(generated(SIZE, 'counted'));
    const first = await everywhere(gateway, pathOf(content));
    // What is set aside for one process's replies is not there for another's.
    expect(first.map(({ status }) => status).toSorted()).toEqual([...Array(CLIENTS - 1).fill(200), 429]);
    expect(first.filter(({ status }) => status === 200).every(({ digest }) => digest === content.digest)).toBe(true);
    const second = await everywhere(gateway, pathOf(content));
    expect(statuses(second)).toEqual([429]);
    expect(second[0]?.text).toContain(String(LIMIT));
    expect(second[0]?.text).toContain(`${SIZE - 1} of them are left`);
  });
});

describe('a cached file that three processes read', () => {
  let upstream: FakeRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await FakeRegistry.start();
    gateway = await startGateway({ config: WORKERS });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    await allServe(gateway);
  });
  afterEach(() => upstream.log.clear());
  afterAll(async () => {
    await gateway?.close();
    await upstream?.close();
  });

  const fileOf = ({ digest }: Content): string => {
    const hex = digest.slice('sha256:'.length);
    return join(gateway.dataDir, 'blobs', 'sha256', hex.slice(0, 2), hex);
  };
  /** Clients have their last bytes before the file is in its place and in the index. */
  const kept = (content: Content): Promise<boolean> =>
    eventually(`${content.digest} to be in the cache`, async () => {
      const { fills } = JSON.parse(await gateway.ok('cache', 'stats', '--json'));
      return fills === 0 && existsSync(fileOf(content));
    });
  /** In the cache, whole. */
  const keep = async (content: Content): Promise<Content> => {
    upstream.repository(REPOSITORY).addBlob(content);
    for (const answer of await everywhere(gateway, pathOf(content))) expect(answer.digest).toBe(content.digest);
    await kept(content);
    upstream.log.clear();
    return content;
  };

  it('may get shorter in the middle: the rest comes from the upstream, and no client notices', async () => {
    // More than sockets between client and gateway hold.
    const content = await keep(generated(32 * MIB, 'cut'));
    const { promise: cut, resolve: goOn } = Promise.withResolvers<void>();
    let begun = 0;
    const pause = () => {
      if (++begun === CLIENTS) {
        truncateSync(fileOf(content), 16 * MIB);
        goOn();
      }
      return cut;
    };
    for (const answer of await everywhere(gateway, pathOf(content), { pause })) {
      expect(answer).toMatchObject({ status: 200, whole: true, bytes: content.size, digest: content.digest });
    }
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBeGreaterThan(0);
    // What is damaged is thrown away, and fetched anew for whoever comes next.
    for (const answer of await everywhere(gateway, pathOf(content))) {
      expect(answer).toMatchObject({ status: 200, whole: true, digest: content.digest });
    }
  });

  it('may vanish between two pulls', async () => {
    const content = await keep(generated(2 * MIB, 'gone'));
    rmSync(fileOf(content));
    for (const answer of await everywhere(gateway, pathOf(content))) {
      expect(answer).toMatchObject({ status: 200, whole: true, bytes: content.size, digest: content.digest });
    }
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBeGreaterThan(0);
    await kept(content);
    upstream.log.clear();
    for (const answer of await everywhere(gateway, pathOf(content))) expect(answer.digest).toBe(content.digest);
    expect(upstream.log.bytes({ kind: 'blob', method: 'GET' })).toBe(0);
  });
});

describe('a challenge by TLS-ALPN-01', () => {
  const HOST = `hub.${DOMAIN}`;
  /** What a new table orders: for the bare domain; its aliases are on demand. */
  const FIRST_HOSTS = 1;
  let ca: FakeCa;
  let gateway: AcmeGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    const ports = await listenerPorts();
    ca = await new FakeCa({ ports }).start();
    gateway = await prepareAcmeGateway({
      issuers: [ca],
      ports: { http: 'off', tls: ports.tls },
      acme: { challenges: ['tls-alpn-01'] },
      workers: PROCESSES,
    });
    await gateway.start();
    await gateway.valid(FIRST_HOSTS);
    await allServe(gateway);
  });
  afterAll(async () => {
    await gateway?.close();
    await ca?.stop();
  });

  it('is answered by every process before the CA looks, and then all of them show the certificate', async () => {
    const shake = (alpn: readonly string[]) =>
      Array.from({ length: CLIENTS }, () => meet({ port: gateway.httpsPort, host: HOST, alpn }));
    let looks = 0;
    const answers: unknown[] = [];
    ca.options.beforeLook = async () => {
      if (looks++ > 0) return;
      const met = await Promise.all(shake(['acme-tls/1']));
      answers.push(...met.map(({ alpn, certificate }) => [alpn, certificate.subjectAltName]));
    };
    const added = await gateway.cli(['alias', 'add', 'hub', 'hub.example.com']);
    expect(added.code, added.stderr).toBe(0);
    expect(added.stdout).toContain('tls-alpn-01');
    expect(looks).toBe(1);
    expect(answers).toEqual(Array.from({ length: CLIENTS }, () => ['acme-tls/1', `DNS:${HOST}`]));
    const { serial } = await gateway.certificate(HOST);
    const met = async () => (await meet({ port: gateway.httpsPort, host: HOST, ca: ca.root })).certificate.serialNumber;
    const serials = await Promise.all(Array.from({ length: 2 * CLIENTS }, met));
    expect(serials).toEqual(serials.map(() => serial));
  });
});
