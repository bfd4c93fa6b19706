import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Check } from '../../src/admin/contract.ts';
import { selfSigned } from '../../src/certs/x509.ts';
import { ALIAS, closedPort, DOMAIN, listening, type Plant, plant } from '../support/doctor-bed.ts';
import { makeTestCa } from '../support/test-ca.ts';

// Faults are planted one at a time into a machine on which all is well. Of each, the first finding names the cause and what to do, and no check of
// what it hurts says ok.

const DAY = 86_400_000;

interface Fault {
  readonly plant: () => Promise<Plant> | Plant;
  /** Name of the first finding. */
  readonly first: string;
  readonly level?: Check['level'];
  readonly remedy: RegExp;
  readonly message?: RegExp;
  /** Checks that must not say ok. */
  readonly hurt?: readonly string[];
  readonly explains?: readonly string[];
}

/** A registry that answers, and one whose port is closed. */
async function registryAt(answer: http.RequestListener): Promise<string> {
  return `http://127.0.0.1:${(await listening(http.createServer(answer))).port}`;
}

async function silentDns(): Promise<string> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => new Promise<void>((done) => socket.close(() => done())));
  return `127.0.0.1:${socket.address().port}`;
}

/** Answers every question with an address, or with a code of failure. */
async function answeringDns(answer: { readonly address?: string; readonly rcode?: number }): Promise<string> {
  const socket = createSocket('udp4');
  socket.on('message', (question, peer) => {
    let end = 12;
    while ((question[end] ?? 0) > 0) end += (question[end] ?? 0) + 1;
    end += 5;
    const isA = question.readUInt16BE(end - 4) === 1;
    const header = Buffer.alloc(12);
    question.copy(header, 0, 0, 2);
    const bytes = answer.address === undefined || !isA ? [] : answer.address.split('.').map(Number);
    header.writeUInt16BE(0x8180 | (answer.rcode ?? 0), 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(bytes.length > 0 ? 1 : 0, 6);
    const record =
      bytes.length > 0 ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...bytes]) : Buffer.alloc(0);
    socket.send(Buffer.concat([header, question.subarray(12, end), record]), peer.port, peer.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => new Promise<void>((done) => socket.close(() => done())));
  return `127.0.0.1:${socket.address().port}`;
}

const only = (server: string) => () => [server];
const before = (server: string) => (well: string) => [server, well];

const dated =
  (ms: number): http.RequestListener =>
  (_, response) => {
    response.writeHead(200, { date: new Date(Date.now() + ms).toUTCString() }).end('{}');
  };

const FAULTS: Record<string, Fault> = {
  'the DNS server is silent': {
    plant: async () => ({
      servers: only(await silentDns()),
      registries: [{ host: 'quay.io', endpoints: ['https://quay.io'] }],
    }),
    first: 'resolver',
    remedy: /port 53/,
    hurt: [`dns ${DOMAIN}`, 'registry quay.io'],
    explains: [`dns ${DOMAIN}`, `dns ${ALIAS}`, 'registry quay.io'],
  },
  'the DNS server has no way out': {
    plant: async () => ({ servers: only(await answeringDns({ rcode: 2 })) }),
    first: 'resolver',
    message: /SERVFAIL/,
    remedy: /start it/,
    hurt: [`dns ${DOMAIN}`],
  },
  'no DNS server is configured': {
    plant: () => ({ servers: () => [] }),
    first: 'resolver',
    remedy: /resolv\.conf/,
    hurt: [`dns ${DOMAIN}`],
  },
  'the DNS server leads names that do not exist somewhere': {
    plant: async () => ({ servers: only(await answeringDns({ address: '127.0.0.1' })) }),
    first: 'resolver lies',
    level: 'warn',
    remedy: /NXDOMAIN/,
  },
  'one of two DNS servers is dead': {
    plant: async () => ({ servers: before(await silentDns()) }),
    first: 'resolver',
    level: 'warn',
    remedy: /take it out/,
  },
  'the proxy is down': {
    plant: async () => {
      const proxy = `http://127.0.0.1:${await closedPort()}`;
      const config = { upstream: { proxy, caFile: null, stallTimeout: 2_000, connections: 1 } };
      const registries = ['quay.io', 'ghcr.io', 'gcr.io'].map((host) => ({ host, endpoints: [`https://${host}`] }));
      return { config, registries };
    },
    first: 'proxy 127.0.0.1',
    remedy: /upstream\.proxy/,
    hurt: ['registry quay.io', 'registry ghcr.io', 'registry gcr.io'],
    explains: ['registry gcr.io', 'registry ghcr.io', 'registry quay.io'],
  },
  'something opens TLS on the way': {
    plant: async () => {
      const between = makeTestCa('Corp TLS inspection');
      const endpoints = await Promise.all(
        [1, 2].map(async () => {
          const server = https.createServer(between.issue(['localhost']), (_, response) => response.end('{}'));
          return `https://localhost:${(await listening(server)).port}`;
        }),
      );
      return { registries: endpoints.map((endpoint, n) => ({ host: `r${n}.test`, endpoints: [endpoint] })) };
    },
    first: 'interception',
    message: /Corp TLS inspection/,
    remedy: /upstream\.caFile/,
    hurt: ['registry r0.test', 'registry r1.test'],
  },
  'the clock is ahead': {
    plant: async () => ({
      registries: await Promise.all(
        [1, 2, 3].map(async (n) => ({ host: `r${n}.test`, endpoints: [await registryAt(dated(-3_600_000))] })),
      ),
    }),
    first: 'clock',
    message: /36\d\d s ahead of/,
    remedy: /chrony/,
    hurt: ['clock'],
  },
  'a clock ahead, of which the gateway makes certificates': {
    plant: async () => ({
      config: { tls: { mode: 'internal' } },
      registries: [{ host: 'r.test', endpoints: [await registryAt(dated(-3_600_000))] }],
    }),
    first: 'clock',
    message: /not valid yet for others/,
    remedy: /chrony/,
  },
  'few open files are allowed': {
    plant: () => ({
      machine: {
        [`proc/${process.pid}/limits`]: 'Max open files            256                  256                  files\n',
      },
    }),
    first: 'files',
    level: 'warn',
    remedy: /LimitNOFILE=.*ulimit -n/,
    hurt: ['files'],
  },
  'the container has little memory': {
    plant: () => ({ machine: { 'cgroup/memory.max': `${64 * 2 ** 20}\n` } }),
    first: 'memory',
    level: 'warn',
    message: /64 MiB for the gateway \(limit of its cgroup\)/,
    remedy: /MemoryMax/,
    hurt: ['memory'],
  },
  'more processes than processors': {
    plant: () => ({
      machine: { 'cgroup/cpu.max': '50000 100000\n' },
      config: { listen: { https: null, http: null, workers: 8 } },
    }),
    first: 'processors',
    level: 'warn',
    remedy: /listen\.workers to 1/,
  },
  'another program has the port': {
    plant: async () => {
      const { port } = await listening(http.createServer());
      return { live: null, config: { listen: { https: { host: '127.0.0.1', port }, http: null, workers: 1 } } };
    },
    first: 'port https',
    message: /is taken/,
    remedy: /end .*listen\.https/,
    hurt: ['port https'],
  },
  'a name leads to another machine while its certificate is pending': {
    plant: () => ({
      dns: { [ALIAS]: { A: '127.0.0.2' } },
      certificates: [{ host: ALIAS, state: 'pending', serial: null, notBefore: null, notAfter: null, issuer: null }],
    }),
    first: `dns ${ALIAS}`,
    message: /leads to 127\.0\.0\.2/,
    remedy: /A record of hub/,
    hurt: [`dns ${ALIAS}`, `certificate ${ALIAS}`],
  },
  'an AAAA record leads nowhere': {
    plant: () => ({ dns: { [ALIAS]: { A: '127.0.0.1', AAAA: '::1' } } }),
    first: `ipv6 ${ALIAS}`,
    message: /IPv6/,
    remedy: /AAAA record/,
    hurt: [`dns ${ALIAS}`],
  },
  'the port of HTTPS is closed': {
    plant: () => ({ closed: true }),
    first: `dns ${DOMAIN}`,
    message: /refused/,
    remedy: /A record|port/,
    hurt: [`dns ${DOMAIN}`, `dns ${ALIAS}`],
    explains: [`dns ${ALIAS}`],
  },
  'a name has no record': {
    plant: () => ({ dns: { [ALIAS]: {} } }),
    first: `dns ${ALIAS}`,
    remedy: /\*\.gw\.example\.com/,
    hurt: [`dns ${ALIAS}`],
  },
  'the CA cannot be reached': {
    plant: () => ({
      issuers: [{ name: 'ca.test', directory: 'http://127.0.0.1:1/dir', detail: 'it refuses connections' }],
    }),
    first: 'ca ca.test',
    remedy: /way out/,
    hurt: ['ca ca.test'],
  },
  'the file of authorities has run out': {
    plant: () => {
      const file = join(mkdtempSync(join(tmpdir(), 'ca-')), 'ca.pem');
      const old = { commonName: 'Old Root', names: [], notBefore: Date.now() - 20 * DAY, notAfter: Date.now() - DAY };
      writeFileSync(file, selfSigned(old).chain);
      return { config: { upstream: { proxy: null, caFile: file, stallTimeout: 2_000, connections: 1 } } };
    },
    first: 'authority upstream.caFile',
    message: /Old Root ran out/,
    remedy: /upstream\.caFile/,
  },
  'a certificate ends and nothing renews it': {
    plant: () => ({ certificates: [{ host: ALIAS, notAfter: new Date(Date.now() + DAY).toISOString() }] }),
    first: `certificate ${ALIAS}`,
    message: /ends in/,
    remedy: /cert renew/,
    hurt: [`certificate ${ALIAS}`],
  },
  'a certificate is refused by its CA': {
    plant: () => ({
      certificates: [
        {
          host: ALIAS,
          state: 'failed',
          serial: null,
          lastError: { type: 'urn:ietf:params:acme:error:caa', detail: 'CAA forbids', at: '2026-01-01T00:00:00Z' },
        },
      ],
    }),
    first: `certificate ${ALIAS}`,
    message: /CAA forbids/,
    remedy: /cert explain/,
    hurt: [`certificate ${ALIAS}`],
  },
  'another program answers at publicUrl': {
    plant: async () => ({
      config: {
        publicUrl: await registryAt((_, response) => response.writeHead(404).end('nginx')),
        tls: { mode: 'off' },
      },
    }),
    first: 'publicUrl 127.0.0.1',
    message: /no registry/,
    remedy: /publicUrl/,
  },
  'the table is empty': {
    plant: () => ({ registries: [] }),
    first: 'table',
    remedy: /--presets/,
  },
  'a registry has a fault of its own': {
    plant: async () => ({
      registries: [{ host: 'r.test', endpoints: [await registryAt((_, response) => response.writeHead(503).end())] }],
    }),
    first: 'registry r.test',
    remedy: /endpoint/,
    hurt: ['registry r.test'],
  },
  'a token is about to expire': {
    plant: async () => ({
      users: [
        {
          name: 'ci',
          createdAt: '2026-01-01T00:00:00.000Z',
          issuedAt: '2026-01-01T00:00:00.000Z',
          expiresAt: new Date(Date.now() + 3 * 86_400_000).toISOString(),
          lastUsedAt: null,
          state: 'expiring',
          previousUntil: null,
        },
      ],
    }),
    first: 'users',
    level: 'warn',
    message: /the token of ci expires in/,
    remedy: /gateway user rotate ci/,
  },
  'a captive portal answers for a registry': {
    plant: async () => ({
      registries: [
        {
          host: 'r.test',
          endpoints: [await registryAt((_, response) => response.end('<!doctype html><title>Log in</title>'))],
        },
      ],
    }),
    first: 'registry r.test',
    message: /login of a network/,
    remedy: /endpoint of the registry itself/,
    hurt: ['registry r.test'],
  },
};

describe('of a planted fault the first finding is its cause, with what to do', () => {
  for (const [name, fault] of Object.entries(FAULTS)) {
    test(name, async () => {
      const planted = await fault.plant();
      const registries = planted.registries ?? [{ host: 'well.test', endpoints: [await registryAt(dated(0))] }];
      const checks = await plant({ ...planted, registries: name === 'the table is empty' ? [] : registries });
      const [first] = checks;
      expect(first?.name, JSON.stringify(checks, null, 1)).toMatch(
        new RegExp(`^${fault.first.replaceAll('.', '\\.')}`),
      );
      expect(first?.level).toBe(fault.level ?? 'fail');
      expect(first?.next).toMatch(fault.remedy);
      if (fault.message !== undefined) expect(first?.message).toMatch(fault.message);
      const well = checks.filter(({ level }) => level === 'ok').map((check) => check.name);
      expect(well.filter((one) => fault.hurt?.includes(one))).toEqual([]);
      expect(first?.explains ?? []).toEqual(expect.arrayContaining([...(fault.explains ?? [])]));
    });
  }

  test('and where all is well nothing is wrong', async () => {
    const checks = await plant({ registries: [{ host: 'well.test', endpoints: [await registryAt(dated(0))] }] });
    expect(checks.filter(({ level }) => level !== 'ok')).toEqual([]);
  });
});
