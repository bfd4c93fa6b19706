import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sha256 } from '../support/content.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, sendWhole } from '../support/http-client.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { startOlareg } from '../support/olareg.ts';
import { type Ran, runProgram } from '../support/processes.ts';
import type { OptionalClient } from '../support/program-list.ts';
import { describeWith, itWithClients, programPath } from '../support/programs.ts';

// What pulls from registries besides container engines, each with its real program, by prefix and by alias host. What they pull they have
// pushed themselves, past the gateway.

const FILE = 'the content of an artifact\n';

describeWith(['linux', 'root', 'olareg', 'unshare', 'nsenter', 'mount'], 'other clients', () => {
  const folder = mkdtempSync(join(tmpdir(), 'other-clients-'));
  let space: Namespace;
  let upstream: Awaited<ReturnType<typeof startOlareg>>;
  let gateway: TestGateway;
  /** `host:port` of the registry itself. */
  let origin: string;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    space = await openNamespace({ hosts: { 'ghcr.localhost': '127.0.0.1' }, network: false });
    upstream = await startOlareg();
    origin = new URL(upstream.endpoint).host;
    gateway = await startGateway({ config: { cache: { tagTtl: '1ms' } } });
    await gateway.ok('registry', 'set', 'ghcr.io', '--endpoint', upstream.endpoint);
    writeFileSync(join(folder, 'file.txt'), FILE);
  });

  afterAll(async () => {
    await gateway?.close();
    await upstream?.close();
    await space?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Where `name` is through the gateway, by each way. */
  const places = (name: string) => [
    `localhost:${gateway.httpsPort}/ghcr.io/${name}`,
    `ghcr.localhost:${gateway.httpsPort}/${name}`,
  ];

  const run = (client: OptionalClient, args: readonly string[], cwd = folder): Promise<Ran> =>
    runProgram({
      // A namespace is entered at its root.
      command: 'env',
      args: ['-C', cwd, programPath(client), ...args],
      within: space,
      env: {
        PATH: process.env.PATH,
        HOME: folder,
        DOCKER_CONFIG: join(folder, 'docker'),
        SSL_CERT_FILE: join(gateway.dataDir, 'ca.crt'),
        COSIGN_PASSWORD: '',
        COSIGN_EXPERIMENTAL: '1',
      },
    });

  async function ok(client: OptionalClient, args: readonly string[], cwd?: string): Promise<string> {
    const ran = await run(client, args, cwd);
    expect(ran.code, `${client} ${args.join(' ')}\n${ran.stdout}\n${ran.stderr}`).toBe(0);
    return ran.stdout + ran.stderr;
  }

  /** An image in the registry under `name:1`, made by crane of the file. */
  async function image(name: string): Promise<string> {
    const tar = join(folder, 'layer.tar');
    await runProgram({ command: 'tar', args: ['-cf', tar, '-C', folder, 'file.txt'] });
    await ok('crane', ['append', '--oci-empty-base', '--new_layer', tar, '--new_tag', `${origin}/${name}:1`]);
    return (await ok('crane', ['digest', `${origin}/${name}:1`])).trim();
  }

  itWithClients(['helm'], 'pulls a chart', async () => {
    await ok('helm', ['create', 'app']);
    await ok('helm', ['package', 'app']);
    await ok('helm', ['push', 'app-0.1.0.tgz', `oci://${origin}/charts`, '--plain-http']);
    for (const place of places('charts/app')) {
      const target = mkdtempSync(join(folder, 'helm-'));
      await ok('helm', ['pull', `oci://${place}`, '--version', '0.1.0'], target);
      expect(readFileSync(join(target, 'app-0.1.0.tgz'))).toEqual(readFileSync(join(folder, 'app-0.1.0.tgz')));
    }
  });

  itWithClients(['oras'], 'pulls an artifact, and finds what refers to it', async () => {
    await ok('oras', ['push', '--plain-http', `${origin}/org/artifact:1`, 'file.txt:text/plain']);
    const attach = ['attach', '--plain-http', '--artifact-type', 'application/vnd.example.sbom'];
    await ok('oras', [...attach, `${origin}/org/artifact:1`, 'file.txt:text/plain']);
    for (const place of places('org/artifact')) {
      const target = mkdtempSync(join(folder, 'oras-'));
      // For localhost oras would take plain HTTP for granted.
      const tls = '--plain-http=false';
      await ok('oras', ['pull', tls, `${place}:1`], target);
      expect(readFileSync(join(target, 'file.txt'), 'utf8')).toBe(FILE);
      expect(await ok('oras', ['discover', tls, `${place}:1`])).toContain('application/vnd.example.sbom');
      expect(await ok('oras', ['repo', 'tags', tls, place])).toMatch(/^1$/m);
    }
  });

  itWithClients(['crane'], 'pulls an image, by tag and by digest, and lists tags', async () => {
    const digest = await image('org/crane');
    for (const place of places('org/crane')) {
      expect((await ok('crane', ['digest', `${place}:1`])).trim()).toBe(digest);
      for (const reference of [`${place}:1`, `${place}@${digest}`]) {
        const target = join(mkdtempSync(join(folder, 'crane-')), 'image.tar');
        await ok('crane', ['pull', reference, target]);
        expect(existsSync(target)).toBe(true);
      }
      expect(await ok('crane', ['ls', place])).toMatch(/^1$/m);
    }
  });

  itWithClients(['regctl'], 'copies an image, and shows the warning of a stale answer', async () => {
    await ok('regctl', ['registry', 'set', origin, '--tls', 'disabled']);
    await ok('regctl', [
      'artifact',
      'put',
      '--artifact-type',
      'text/plain',
      '-f',
      'file.txt',
      `${origin}/org/regctl:1`,
    ]);
    for (const place of places('org/regctl')) {
      await ok('regctl', ['image', 'copy', `${place}:1`, `ocidir://${mkdtempSync(join(folder, 'regctl-'))}:1`]);
    }
    await upstream.stop();
    try {
      for (const place of places('org/regctl')) {
        const said = await ok('regctl', ['manifest', 'get', `${place}:1`]);
        expect(said).toMatch(/ghcr\.io .*, since 20\d\d-.*Z; this answer is .* old/);
      }
    } finally {
      await upstream.start();
    }
  });

  itWithClients(['cosign', 'crane'], 'verifies signatures and attestations, by tags and by referrers', async () => {
    await ok('cosign', ['generate-key-pair']);
    writeFileSync(join(folder, 'predicate.json'), '{"made":"by a test"}');
    const local = ['--key', 'cosign.key', '--tlog-upload=false', '--allow-http-registry', '--yes'];
    for (const mode of ['legacy', 'oci-1-1']) {
      const name = `org/cosign-${mode}`;
      const digest = await image(name);
      await ok('cosign', ['sign', ...local, '--registry-referrers-mode', mode, `${origin}/${name}@${digest}`]);
      await ok('cosign', ['attest', ...local, '--predicate', 'predicate.json', `${origin}/${name}@${digest}`]);
      const check = ['--key', 'cosign.pub', '--insecure-ignore-tlog'];
      for (const place of places(name)) {
        const experimental = mode === 'legacy' ? [] : ['--experimental-oci11'];
        await ok('cosign', ['verify', ...check, ...experimental, `${place}:1`]);
        await ok('cosign', ['verify-attestation', ...check, '--type', 'custom', `${place}:1`]);
      }
    }
  });

  it('Homebrew’s request for a bottle, with the token that it sends to everybody', async () => {
    const body = Buffer.from(FILE);
    const started = await fetch(`${upstream.endpoint}/v2/homebrew/core/jq/blobs/uploads/`, { method: 'POST' });
    const at = new URL(started.headers.get('location') ?? '', upstream.endpoint);
    at.searchParams.set('digest', sha256(body));
    expect((await fetch(at, { method: 'PUT', body })).status).toBe(201);
    const agent = new Agent({ ca: caOf(gateway) });
    const path = `/v2/homebrew/core/jq/blobs/${sha256(body)}`;
    const headers = { authorization: 'Bearer QQ==' };
    for (const [servername, base] of [
      ['ghcr.localhost', ''],
      ['localhost', '/ghcr.io'],
    ] as const) {
      const host = `${servername}:${gateway.httpsPort}`;
      const sent = { agent, port: gateway.httpsPort, servername, path: `${base}${path}`, keep: true };
      const { status, text } = await sendWhole({ ...sent, headers: { ...headers, host } });
      expect([status, text]).toEqual([200, FILE]);
    }
    agent.destroy();
  });
});
