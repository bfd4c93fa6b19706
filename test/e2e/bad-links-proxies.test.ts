import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { FakeProgram } from '../support/fake-registry/main.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf } from '../support/http-client.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from '../support/namespace.ts';
import { type Program, runOk, startProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';
import { skopeoPull } from '../support/skopeo.ts';
import { makeTestCa } from '../support/test-ca.ts';

const FAKE = fileURLToPath(new URL('../support/fake-registry/main.ts', import.meta.url));
const DOMAIN = 'cr.example.com';
/** A link of two, from the documentation's block (RFC 5737): the gateway's end and the proxy's. */
const [NEAR, FAR] = ['192.0.2.1', '192.0.2.2'];
/** The same registry twice: plain, which HTTP proxies forward, and with TLS, to which they open a tunnel. */
const REGISTRY_PORT = 5000;
const SECURE_PORT = 5443;
const NAMES = ['registry', 'auth', 'downloads'].map((name) => `${name}.hidden.example`);
const MIB = 1024 * 1024;

/** Prints a line for every name that is asked for. */
const DNS_WATCH = `
const socket = require('node:dgram').createSocket('udp4');
socket.on('message', (m) => console.log('asked', m.toString('latin1', 12).replace(/[^a-z0-9-]+/g, '.')));
socket.bind(53, '${GATEWAY_ADDRESS}', () => console.log('watching'));`;

describeWith(
  ['linux', 'root', 'skopeo', 'microsocks', 'tinyproxy', 'unshare', 'nsenter', 'ip', 'mount'],
  'a network with no way out but a proxy',
  () => {
    let folder: string;
    let inside: Namespace;
    let outside: Namespace;
    const registries: Program[] = [];
    let dns: Program;
    let gateway: TestGateway | undefined;
    let digests: Set<string>;
    const proxies: Program[] = [];
    showLogOfFailures(() => gateway);

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'proxies-'));
      writeFileSync(join(folder, 'resolv.conf'), `nameserver ${GATEWAY_ADDRESS}\noptions timeout:1 attempts:1\n`);
      inside = await openNamespace({
        hosts: { [DOMAIN]: GATEWAY_ADDRESS },
        binds: { '/etc/resolv.conf': join(folder, 'resolv.conf') },
      });
      // Only out there are the names known.
      outside = await openNamespace({
        hosts: Object.fromEntries(NAMES.map((name) => [name, GATEWAY_ADDRESS])),
      });
      const testCa = makeTestCa();
      writeFileSync(join(folder, 'ca.pem'), testCa.pem);
      const tls = testCa.issue(NAMES);
      for (const options of [{ port: REGISTRY_PORT }, { port: SECURE_PORT, tls }]) {
        const program: FakeProgram = {
          options: { host: GATEWAY_ADDRESS, ...options },
          names: { auth: 'auth.hidden.example', downloads: 'downloads.hidden.example' },
          repository: 'library/app',
          tag: '1',
          layers: [12 * MIB, 3 * MIB],
        };
        const args = [FAKE, JSON.stringify(program)];
        const registry = startProgram({ command: process.execPath, args, within: outside });
        registries.push(registry);
        const [, line = ''] = await registry.waitFor(/^(\{"listening".*\})$/m);
        digests = new Set((JSON.parse(line) as { digests: string[] }).digests);
      }

      const link = ['link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', String(registries[0]?.pid)];
      await runOk({ command: programPath('ip'), args: link, within: inside });
      for (const [space, device, address] of [
        [inside, 'near', NEAR],
        [outside, 'far', FAR],
      ] as const) {
        const ip = (...args: string[]) => runOk({ command: programPath('ip'), args, within: space });
        await ip('addr', 'add', `${address}/30`, 'dev', device);
        await ip('link', 'set', device, 'up');
      }

      dns = startProgram({ command: process.execPath, args: ['-e', DNS_WATCH], within: inside });
      await dns.waitFor(/watching/);
      // The watch sees what is asked.
      await runOk({
        command: process.execPath,
        args: ['-e', "require('node:dns').lookup('control.example', () => process.exit(0))"],
        within: inside,
      });
      expect(dns.output()).toContain('control');

      proxies.push(
        startProgram({ command: programPath('microsocks'), args: ['-i', FAR, '-p', '1080'], within: outside }),
        startProgram({
          command: programPath('microsocks'),
          args: ['-i', FAR, '-p', '1081', '-u', 'someone', '-P', 'se:cret'],
          within: outside,
        }),
      );
      const config = join(folder, 'tinyproxy.conf');
      writeFileSync(
        config,
        ['Port 8888', `Listen ${FAR}`, 'Timeout 600', 'MaxClients 100', 'LogLevel Connect'].join('\n'),
      );
      proxies.push(startProgram({ command: programPath('tinyproxy'), args: ['-d', '-c', config], within: outside }));
    });

    afterEach(async () => {
      await gateway?.close();
    });

    afterAll(async () => {
      for (const proxy of proxies) await proxy.end();
      await dns?.end();
      for (const registry of registries) await registry.end();
      await inside?.close();
      await outside?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    async function gatewayBehind(config: Record<string, unknown>, env: NodeJS.ProcessEnv = {}): Promise<TestGateway> {
      gateway = await startGateway({
        within: inside,
        env: { NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem'), ...env },
        config: {
          domain: DOMAIN,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
          ...config,
        },
      });
      return gateway;
    }

    const endpoint = `http://registry.hidden.example:${REGISTRY_PORT}`;
    const secure = `https://registry.hidden.example:${SECURE_PORT}`;
    const pull = async (from: TestGateway) =>
      await skopeoPull({
        image: `${DOMAIN}/hidden.test/library/app:1`,
        ca: caOf(from),
        within: inside,
      });

    it.each([
      ['socks5h, microsocks', `socks5h://${FAR}:1080`, secure],
      ['socks5h with credentials', `socks5h://someone:se%3Acret@${FAR}:1081`, endpoint],
      ['http, tinyproxy, tunnels', `http://${FAR}:8888`, secure],
      ['http, tinyproxy, forwarding', `http://${FAR}:8888`, endpoint],
    ])('pulls through it by %s: tokens and redirects too, and no name is resolved here', async (_, proxy, endpoint) => {
      const asked = dns.output();
      const running = await gatewayBehind({ upstream: { proxy } });
      await running.ok('registry', 'set', 'hidden.test', '--endpoint', endpoint);
      const { ran, digests: pulled } = await pull(running);
      expect(ran.code, ran.stderr).toBe(0);
      expect(pulled).toEqual(digests);
      expect(dns.output()).toBe(asked);
      expect(running.log()).not.toContain('se:cret');
    });

    it("pulls through the registry's own proxy, and through the one of the environment", async () => {
      const own = await gatewayBehind({});
      await own.ok('registry', 'set', 'hidden.test', '--endpoint', endpoint, '--proxy', `socks5h://${FAR}:1080`);
      expect((await pull(own)).digests).toEqual(digests);
      await own.close();
      const environment = await gatewayBehind({}, { HTTP_PROXY: `http://${FAR}:8888`, NO_PROXY: 'elsewhere.example' });
      await environment.ok('registry', 'set', 'hidden.test', '--endpoint', endpoint);
      expect((await pull(environment)).digests).toEqual(digests);
    });

    it('fails in words without it', async () => {
      const running = await gatewayBehind({});
      await running.ok('registry', 'set', 'hidden.test', '--endpoint', endpoint);
      const { ran } = await pull(running);
      expect(ran.code).not.toBe(0);
      expect(ran.stderr).toContain('502');
      expect(await running.ok('registry', 'show', 'hidden.test')).toMatch(
        /its name (cannot be resolved|does not resolve)/,
      );
    });
  },
);
