import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { send } from '../support/http-client.ts';
import { freePorts, type Program, startProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';
import { skopeoPull } from '../support/skopeo.ts';
import { makeTestCa } from '../support/test-ca.ts';

// The examples in deploy/nginx and deploy/caddy, with this test's ports, names and certificate in place of theirs.

const LAYER = generated(24 * 1024 * 1024);
/** The address that the client has, and the proxy has not. */
const CLIENT = '127.0.0.9';

const example = (file: string) => readFileSync(fileURLToPath(new URL(`../../deploy/${file}`, import.meta.url)), 'utf8');

interface Surroundings {
  readonly folder: string;
  readonly port: number;
  readonly gateway: number;
}

/** Replaces what an example has for a real machine; each must be there. */
function adapted(text: string, changes: readonly (readonly [from: string, to: string])[]): string {
  return changes.reduce((done, [from, to]) => {
    expect(done).toContain(from);
    return done.replaceAll(from, to);
  }, text);
}

function nginx({ folder, port, gateway }: Surroundings): Program {
  const site = adapted(example('nginx/registry-gateway.conf'), [
    ['127.0.0.1:8080', `127.0.0.1:${gateway}`],
    ['listen 443 ', `listen 127.0.0.1:${port} `],
    ['  listen [::]:443 ssl http2;\n', ''],
    ['cr.example.com *.cr.example.com', 'localhost *.localhost'],
    ['/etc/nginx/cr.example.com', join(folder, 'server')],
  ]);
  writeFileSync(join(folder, 'site.conf'), site);
  mkdirSync(join(folder, 'kept'));
  const kept = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((one) => `${one}_temp_path ${folder}/kept/${one};`)
    .join(' ');
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; ${process.getuid?.() === 0 ? 'user root; ' : ''}pid ${folder}/nginx.pid; error_log stderr;
events {}
http { access_log off; ${kept} include ${folder}/site.conf; }
`,
  );
  return startProgram({ command: programPath('nginx'), args: ['-e', 'stderr', '-c', join(folder, 'nginx.conf')] });
}

function caddy({ folder, port, gateway }: Surroundings): Program {
  const site = adapted(example('caddy/Caddyfile'), [
    ['127.0.0.1:8080', `127.0.0.1:${gateway}`],
    [
      'cr.example.com, *.cr.example.com {',
      `{\n\tadmin off\n\tauto_https disable_redirects\n}\nhttps://localhost:${port}, https://*.localhost:${port} {\n\ttls ${folder}/server.crt ${folder}/server.key`,
    ],
  ]);
  writeFileSync(join(folder, 'Caddyfile'), site);
  const env = { ...process.env, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder, HOME: folder };
  const args = ['run', '--config', join(folder, 'Caddyfile'), '--adapter', 'caddyfile'];
  return startProgram({ command: programPath('caddy'), args, env });
}

describeWith(['linux', 'nginx', 'caddy', 'skopeo'], 'behind a TLS terminator', () => {
  const ca = makeTestCa();
  const folders: string[] = [];
  const programs: Program[] = [];
  let ports: { nginx: number; caddy: number };
  let upstream: FakeRegistry;
  let gateway: TestGateway;

  beforeAll(async () => {
    upstream = await FakeRegistry.start();
    upstream.repository('library/app').addImage('1', [LAYER]);
    const [ofNginx = 0, ofCaddy = 0] = await freePorts(2);
    ports = { nginx: ofNginx, caddy: ofCaddy };
    gateway = await startGateway({
      config: {
        domain: 'localhost',
        publicUrl: `https://localhost:${ofNginx}`,
        tls: { mode: 'off' },
        listen: { https: 'off', workers: 2 },
        trustedProxies: ['127.0.0.1'],
      },
    });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    for (const [name, start] of Object.entries({ nginx, caddy })) {
      const folder = mkdtempSync(join(tmpdir(), `${name}-`));
      folders.push(folder);
      const { key, cert } = ca.issue(['localhost', '*.localhost']);
      writeFileSync(join(folder, 'server.key'), key, { mode: 0o600 });
      writeFileSync(join(folder, 'server.crt'), cert);
      programs.push(start({ folder, port: ports[name as keyof typeof ports], gateway: gateway.httpPort }));
    }
    for (const port of Object.values(ports)) {
      await eventually(`port ${port} serves`, async () => (await ask(port, '/v2/')).status === 200);
    }
  });
  afterAll(async () => {
    await Promise.all(programs.map((program) => program.end()));
    await gateway.close();
    await upstream.close();
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  const ask = (port: number, path: string, options: { method?: string; headers?: Record<string, string> } = {}) => {
    const headers = { host: `localhost:${port}`, ...options.headers };
    return send({ port, path, ca: ca.pem, localAddress: CLIENT, ...options, headers });
  };

  for (const name of ['nginx', 'caddy'] as const) {
    it(`${name}: pulls, by names that the clients are told`, async () => {
      const { ran } = await skopeoPull({ image: `localhost:${ports[name]}/app:1`, ca: ca.pem });
      expect(ran.code, ran.stderr).toBe(0);
      const told = await ask(ports[name], '/client/docker');
      expect(told.text).toContain(`https://localhost:${ports.nginx}`);
    });

    it(`${name}: a range, and the client's own address whatever it claims`, async () => {
      const path = `/v2/app/blobs/${LAYER.digest}`;
      const headers = { range: 'bytes=5-9', 'x-forwarded-for': '203.0.113.7', 'user-agent': `range/${name}` };
      const part = await ask(ports[name], path, { headers });
      expect([part.status, part.bytes]).toEqual([206, 5]);
      expect(part.headers['content-range']).toMatch(/^bytes 5-9\//);
      const line = () => gateway.logLines().find(({ userAgent }) => userAgent === `range/${name}`);
      await eventually('its log line', () => line() !== undefined);
      expect(line()).toMatchObject({ client: CLIENT });
    });

    it(`${name}: a push is refused by the gateway itself`, async () => {
      const { status, text } = await ask(ports[name], '/v2/app/blobs/uploads/', { method: 'POST' });
      expect(status).toBe(405);
      expect(text).toContain('UNSUPPORTED');
    });
  }

  it('nginx: keeps nothing of a layer on its disk, also where the client reads slowly', async () => {
    const kept = join(folders[0] ?? '', 'kept', 'proxy');
    const seen: string[] = [];
    let paused = false;
    const path = `/v2/app/blobs/${LAYER.digest}`;
    const pulled = await send({
      port: ports.nginx,
      path,
      ca: ca.pem,
      pause: async () => {
        paused = true;
        // While another client is sent all of it, nginx would have written down what this one does not take.
        expect((await ask(ports.nginx, path)).digest).toBe(LAYER.digest);
        seen.push(...readdirSync(kept, { recursive: true }).map(String));
      },
    });
    expect([paused, pulled.whole, pulled.digest]).toEqual([true, true, LAYER.digest]);
    seen.push(...readdirSync(kept, { recursive: true }).map(String));
    expect(seen).toEqual([]);
  });
});
