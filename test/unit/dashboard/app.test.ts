import { expect, test } from 'vitest';
import type { DashboardReport } from '../../../src/admin/contract.ts';
import { createDashboard } from '../../../src/dashboard/app.ts';
import type { Digest } from '../../../src/oci/names.ts';

const TOKEN = 'the-token-of-this-run';
const PORT = 4711;

const REPORT: DashboardReport = {
  at: '2026-11-22T12:00:00.000Z',
  status: {
    running: true,
    version: '0.1.0',
    dataDir: '/data',
    domain: 'cr.example.com',
    pid: 1,
    startedAt: '2026-11-22T00:00:00.000Z',
    uptimeSeconds: 43_200,
    workers: 2,
    addresses: { https: [], http: [], metrics: null },
    tls: 'internal',
    aliases: 1,
    registries: 1,
    certificates: { valid: 1, pending: 0, failed: 0, expired: 0, 'on demand': 0 },
    nextExpiry: null,
    warmFailing: [],
    cache: { bytes: 1024, maxBytes: 2048, blobs: 1, pinnedBytes: 0, pins: 0, hitRatio: 0.5 },
    saved: { served: 3, fetched: 1, bytes: 2 },
    fills: [
      {
        registry: 'quay.io',
        repository: 'org/app',
        digest: `sha256:${'ab'.repeat(32)}` as Digest,
        bytes: 512,
        total: 1024,
        readers: 1,
        connections: 2,
        node: null,
        bytesPerSecond: 100,
        resting: false,
        startedAt: '2026-11-22T11:59:00.000Z',
      },
    ],
    traffic: { requests: 3, bytesSent: 3, bytesFetched: 1 },
    byRegistry: [{ registry: 'quay.io', requests: 3, bytesSent: 3, bytesFetched: 1, failed: 1 }],
    byClient: [
      { client: 'user:ci', requests: 3, bytes: 3, refused: 0, lastAt: null, bytesToday: null, requestsUsed: null },
    ],
    limits: null,
    setAside: [],
    budgets: [],
    troubles: [
      {
        kind: 'failed',
        registry: 'quay.io',
        row: 'quay.io',
        status: 502,
        reason: '<script>alert(1)</script>',
        what: 'org/app v1',
        count: 2,
        firstAt: '2026-11-22T11:00:00.000Z',
        lastAt: '2026-11-22T11:59:00.000Z',
      },
    ],
    users: 1,
    database: null,
    nodes: [],
    warnings: ['the token of ci expires in 3 d'],
  },
  certificates: [],
  endpoints: [],
  history: [],
};

const dashboard = (read: () => Promise<DashboardReport> = async () => REPORT) =>
  createDashboard({ read, token: TOKEN, port: () => PORT, every: 1 });
const ask = (path: string, headers: Record<string, string> = {}, method = 'GET', app = dashboard()) =>
  app.request(path, { method, headers: { host: `127.0.0.1:${PORT}`, ...headers } });
const cookie = `dashboard-${PORT}=${TOKEN}`;

test('the token in the URL becomes a cookie, and leaves the address bar', async () => {
  const answer = await ask(`/?token=${TOKEN}`);
  expect(answer.status).toBe(303);
  expect(answer.headers.get('location')).toBe('/');
  expect(answer.headers.get('set-cookie')).toMatch(/^dashboard-4711=the-token-of-this-run;.*HttpOnly.*SameSite=Strict/);
  expect((await ask('/', { cookie })).status).toBe(200);
});

test.each(['/', '/?token=wrong', '/style.css', '/live.js', '/report.json', '/events'])(
  '%s is refused without it',
  async (path) => {
    for (const headers of [{}, { cookie: `dashboard-${PORT}=wrong` }, { cookie: `dashboard-1=${TOKEN}` }]) {
      const answer = await ask(path, headers);
      expect(answer.status).toBe(401);
      expect(await answer.text()).not.toContain('quay.io');
    }
  },
);

test('a page from elsewhere gets nothing: under another name, nor with the operator’s cookie', async () => {
  expect((await ask('/', { cookie, host: 'evil.example' })).status).toBe(403);
  expect((await ask('/', { cookie, host: `evil.example:${PORT}` })).status).toBe(403);
  expect((await ask('/report.json', { cookie, 'sec-fetch-site': 'cross-site' })).status).toBe(401);
  expect((await ask('/report.json', { cookie, 'sec-fetch-site': 'same-site' })).status).toBe(401);
  expect((await ask('/report.json', { cookie, 'sec-fetch-site': 'same-origin' })).status).toBe(200);
  expect((await ask('/', { cookie }, 'POST')).status).toBe(405);
});

test('nothing is loaded from elsewhere, or written into the page, and what strangers wrote is text', async () => {
  const answer = await ask('/', { cookie, 'accept-language': 'en' });
  const policy = answer.headers.get('content-security-policy') ?? '';
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toContain('unsafe');
  const text = await answer.text();
  expect(text).not.toMatch(/<script>|style="|\son\w+="|https?:\/\//);
  expect(text).toContain('&lt;script&gt;alert(1)');
  for (const shown of ['cr.example.com', 'org/app', 'the token of ci expires', 'By client', '502']) {
    expect(text).toContain(shown);
  }
});

test('in Chinese where the browser or the person prefers it', async () => {
  expect(await (await ask('/', { cookie, 'accept-language': 'zh-CN,en;q=0.8' })).text()).toContain('按客户端');
  expect(await (await ask('/?lang=zh', { cookie, 'accept-language': 'en' })).text()).toContain('lang="zh-Hans"');
});

test('events bring the sections, and say that the gateway does not answer', async () => {
  let up = true;
  const app = dashboard(async () => {
    if (!up) throw new Error('nothing runs');
    return REPORT;
  });
  const reader = (await ask('/events?lang=en', { cookie }, 'GET', app)).body?.getReader();
  let seen = '';
  const until = async (text: string) => {
    while (!seen.includes(text)) seen += Buffer.from((await reader?.read())?.value ?? new Uint8Array()).toString();
  };
  await until('event: state');
  up = false;
  await until('event: lost');
  up = true;
  seen = '';
  await until('By registry');
  await reader?.cancel();
});
