import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { Transport } from '../../../src/acme/transport.ts';
import { socksProxy } from '../../support/proxy-servers.ts';
import { makeTestCa, type TestCa } from '../../support/test-ca.ts';

// The way to a CA: by which proxy, and whose certificate it may have.

/** Node reads the store of the machine once, from here. */
const machine = makeTestCa('known to this machine');
const store = mkdtempSync(join(tmpdir(), 'store-'));
writeFileSync(join(store, 'ca.pem'), machine.pem);
process.env.SSL_CERT_FILE = join(store, 'ca.pem');
afterAll(() => rmSync(store, { recursive: true }));

const terms = { signal: new AbortController().signal, timeout: 5_000 };

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

describe('NO_PROXY for a CA', () => {
  /** The host that the proxy was asked for; null where the CA was asked itself. */
  async function asked(host: string, environment: NodeJS.ProcessEnv): Promise<string | null> {
    let seen: string | null = null;
    const proxy = await listening(
      createServer((request, response) => {
        seen = request.headers.host ?? '';
        response.end('{}');
      }),
    );
    const transport = new Transport(`http://${host}/directory`, null, {
      HTTP_PROXY: `http://127.0.0.1:${proxy}`,
      ...environment,
    });
    onTestFinished(() => transport.close());
    // Whether there is a CA does not matter.
    await transport.send('GET', `http://${host}/directory`, terms).catch(() => {});
    return seen;
  }

  it.each([
    ['ca.corp.invalid', 'corp.invalid'],
    ['ca.corp.invalid', '.corp.invalid'],
    ['ca.corp.invalid:14000', 'ca.corp.invalid:14000'],
    ['192.0.2.7:1', '192.0.2.0/24'],
    ['127.0.0.1:1', '127.0.0.0/8'],
    ['ca.corp.invalid', '*'],
  ])('%s is exempted by %s', { timeout: 10_000 }, async (host, list) => {
    expect(await asked(host, { NO_PROXY: list })).toBeNull();
  });

  it.each([
    ['ca.corp.invalid', 'other.invalid'],
    ['ca.corp.invalid:14000', 'ca.corp.invalid:443'],
    ['192.0.2.7:1', '198.51.100.0/24'],
  ])('%s is not exempted by %s', async (host, list) => {
    expect(await asked(host, { no_proxy: list })).toBe(host);
  });
});

async function directory(ca: TestCa): Promise<string> {
  const server = createSecureServer(ca.issue(['127.0.0.1']), (_, response) => response.end('{}'));
  return `https://127.0.0.1:${await listening(server as unknown as Server)}/directory`;
}

describe('a CA whose authority this machine knows, and Node does not', () => {
  it('is asked, by each of those that find out at the same time', async () => {
    const url = await directory(machine);
    const transport = new Transport(url, null, {});
    onTestFinished(() => transport.close());
    const answers = await Promise.all([1, 2, 3].map(() => transport.send('GET', url, terms)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  });
});

describe('a CA whose authority nobody here trusts', () => {
  const ca = makeTestCa();

  it('is refused in words that name what to set, and asked once that is set', async () => {
    const url = await directory(ca);
    const strange = new Transport(url, null, {});
    await expect(strange.send('GET', url, terms)).rejects.toMatchObject({
      type: 'network',
      detail: expect.stringMatching(/acme\.issuers\[\]\.caFile.*this machine's store/),
    });
    strange.close();
    const folder = mkdtempSync(join(tmpdir(), 'acme-ca-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'ca.pem'), ca.pem);
    const known = new Transport(url, join(folder, 'ca.pem'), {});
    expect((await known.send('GET', url, terms)).status).toBe(200);
    known.close();
  });
});

describe('a SOCKS proxy of the environment', () => {
  it.each([
    ['socks5h', 'ALL_PROXY', 'http', 'ca.hidden.example'],
    ['socks5h', 'ALL_PROXY', 'https', 'ca.hidden.example'],
    ['socks5h', 'HTTPS_PROXY', 'https', 'ca.hidden.example'],
    ['socks5', 'all_proxy', 'https', '192.0.2.7'],
  ])(
    '%s:// in %s leads to a CA over %s',
    async (scheme, variable, protocol, host) => {
      const answer = (_: unknown, response: { end: (body: string) => void }) => response.end('{"a":1}');
      const server = protocol === 'http' ? createServer(answer) : createSecureServer(machine.issue([host]), answer);
      const ca = await listening(server as unknown as Server);
      const credentials = { username: 'us er', password: 'p@:ss' };
      const proxy = await socksProxy({ names: { [host]: `127.0.0.1:${ca}` }, credentials });
      onTestFinished(() => proxy.close());
      const url = `${protocol}://${host}:${ca}/directory`;
      const at = (login: string) => `${scheme}://${login}@127.0.0.1:${proxy.port}`;
      const send = (environment: NodeJS.ProcessEnv) => {
        const transport = new Transport(url, null, environment);
        onTestFinished(() => transport.close());
        return transport.send('GET', url, terms);
      };
      expect((await send({ [variable]: at('us%20er:p%40%3Ass') })).body).toBe('{"a":1}');
      expect(proxy.asked).toContain(`${host}:${ca}`);
      const refused = await send({ [variable]: at('a:secret') }).catch((error: unknown) => error as Error);
      expect(String((refused as Error).message)).toMatch(
        /cannot be reached: the proxy 127\.0\.0\.1:\d+ did not connect/,
      );
      expect(String((refused as Error).message)).not.toContain('secret');
      // Never around it.
      const before = proxy.asked.length;
      await send({ [variable]: at('us%20er:p%40%3Ass'), NO_PROXY: host }).catch(() => {});
      expect(proxy.asked).toHaveLength(before);
    },
    20_000,
  );
});
