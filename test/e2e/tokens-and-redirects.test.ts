import { once } from 'node:events';
import { createReadStream, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf } from '../support/http-client.ts';
import { buildImage } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';
import { digestsOf, skopeoPull } from '../support/skopeo.ts';
import { startTokenServer, type TokenServer } from '../support/token-server.ts';

const PASSWORD = 'a password of this test';
const open = buildImage('open', [400_000, 50_000]);
const closed = buildImage('closed', [300_000, 60_000]);

describeWith(
  ['linux', 'docker-registry', 'skopeo'],
  'a real registry that demands tokens and redirects its blobs to another origin',
  () => {
    let folder: string;
    let tokens: TokenServer;
    let privateTokens: TokenServer;
    let storage: { server: Server; origin: string; seen: string[]; refused: string[] };
    let upstream: DockerRegistry;
    let privateUpstream: DockerRegistry;
    let gateway: TestGateway;
    let ca: string;
    showLogOfFailures(() => gateway);

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'tokens-'));
      tokens = await startTokenServer();
      privateTokens = await startTokenServer({ username: 'operator', password: PASSWORD });
      storage = await startStorage(() => upstream.root);
      upstream = await startDockerRegistry({ auth: auth(tokens, 'public'), redirectTo: storage.origin });
      await upstream.push(open, 'team/open', '1');
      privateUpstream = await startDockerRegistry({ auth: auth(privateTokens, 'private') });
      await privateUpstream.push(closed, 'team/closed', '1');
      gateway = await startGateway({ config: { domain: 'localhost' } });
      await gateway.ok('alias', 'add', 'open', 'open.example.org', '--endpoint', upstream.endpoint);
      await gateway.ok('alias', 'add', 'closed', 'closed.example.org', '--endpoint', privateUpstream.endpoint);
      ca = caOf(gateway);
    });

    afterAll(async () => {
      await gateway?.close();
      await upstream?.close();
      await privateUpstream?.close();
      storage?.server.closeAllConnections();
      storage?.server.close();
      await tokens?.close();
      await privateTokens?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    it('the registry refuses who has no token, and storage refuses who sends one', async () => {
      expect((await fetch(`${upstream.endpoint}/v2/team/open/manifests/1`)).status).toBe(401);
      const [blob] = storagePaths();
      expect((await fetch(`${storage.origin}${blob}`)).status).toBe(200);
      expect((await fetch(`${storage.origin}${blob}`, { headers: { authorization: 'Bearer x' } })).status).toBe(400);
      storage.refused.length = 0;
      storage.seen.length = 0;
    });

    it('is pulled from with a token, which storage never sees', async () => {
      const { ran, digests } = await pull('open.example.org/team/open:1');
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(open));
      expect(tokens.asked.map(({ scope }) => scope)).toContain('repository:team/open:pull');
      expect(storage.seen.length).toBeGreaterThanOrEqual(open.layers.length);
      expect(storage.refused).toEqual([]);
    });

    it('one token serves a whole image', () => {
      expect(tokens.asked.filter(({ scope }) => scope === 'repository:team/open:pull')).toHaveLength(1);
    });

    it('a private one is refused in words while the gateway has no credentials', async () => {
      const { ran } = await pull('closed.example.org/team/closed:1');
      expect(ran.code).not.toBe(0);
      expect(ran.stderr).toContain('gateway registry set closed.example.org');
    });

    it('a private one is served with the credentials of the operator, to the public once he says so', async () => {
      const set = await gateway.cli(
        ['registry', 'set', 'closed.example.org', '--username', 'operator', '--password-stdin', '--public'],
        { input: `${PASSWORD}\n` },
      );
      expect(set.code, set.stderr).toBe(0);
      const { ran, digests } = await pull('closed.example.org/team/closed:1');
      expect(ran.code, ran.stderr).toBe(0);
      expect(digests).toEqual(digestsOf(closed));
    });

    it('the password is neither shown nor logged', async () => {
      const secret = Buffer.from(`operator:${PASSWORD}`).toString('base64');
      const shown = await gateway.ok('registry', 'show', 'closed.example.org');
      const exported = await gateway.ok('alias', 'export');
      for (const text of [shown, exported, gateway.log()]) {
        expect(text).not.toContain(PASSWORD);
        expect(text).not.toContain(secret);
      }
    });

    function pull(image: string) {
      return skopeoPull({ image: `localhost:${gateway.httpsPort}/${image}`, ca });
    }

    function auth({ realm, service, issuer, bundle }: TokenServer, name: string) {
      const rootcertbundle = join(folder, `${name}.pem`);
      writeFileSync(rootcertbundle, bundle);
      return { token: { realm, service, issuer, rootcertbundle } };
    }

    function storagePaths(): string[] {
      return open.layers.map(({ digest }) => blobPath(digest)).filter((path) => existsSync(join(upstream.root, path)));
    }
  },
);

function blobPath(digest: string): string {
  const hex = digest.slice('sha256:'.length);
  return `/docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data`;
}

/** Serves a registry's files as object storage does: whoever sends an Authorization header besides the signed URL gets 400. */
async function startStorage(root: () => string) {
  const seen: string[] = [];
  const refused: string[] = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    seen.push(pathname);
    if (request.headers.authorization !== undefined) {
      refused.push(pathname);
      response.writeHead(400).end('only one auth mechanism allowed');
      return;
    }
    const file = join(root(), pathname);
    if (!existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-length': statSync(file).size });
    createReadStream(file).pipe(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, refused };
}
