import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sha256 } from '../support/content.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, sendWhole } from '../support/http-client.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { startOlareg } from '../support/olareg.ts';
import { freePorts, type Ran, runOk, runProgram, startProgram } from '../support/processes.ts';
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

  /** Puts a blob into the registry; its digest. */
  async function pushBlob(name: string, body: Buffer<ArrayBuffer>): Promise<string> {
    const started = await fetch(`${upstream.endpoint}/v2/${name}/blobs/uploads/`, { method: 'POST' });
    const at = new URL(started.headers.get('location') ?? '', upstream.endpoint);
    at.searchParams.set('digest', sha256(body));
    expect((await fetch(at, { method: 'PUT', body })).status).toBe(201);
    return sha256(body);
  }

  /** A model as ollama keeps it, a manifest of Docker's second schema whose layers say what they are; the digest of its weights. */
  async function pushModel(name: string, tag: string, weights: Buffer<ArrayBuffer>): Promise<string> {
    const layer = async (mediaType: string, body: Buffer<ArrayBuffer>) => ({
      mediaType,
      digest: await pushBlob(name, body),
      size: body.length,
    });
    const schema = 'application/vnd.docker.distribution.manifest.v2+json';
    const model = await layer('application/vnd.ollama.image.model', weights);
    const params = await layer('application/vnd.ollama.image.params', Buffer.from('{"stop":["."]}'));
    const config = await layer(
      'application/vnd.docker.container.image.v1+json',
      Buffer.from(JSON.stringify({ model_format: 'gguf', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } })),
    );
    const pushed = await fetch(`${upstream.endpoint}/v2/${name}/manifests/${tag}`, {
      method: 'PUT',
      headers: { 'content-type': schema },
      body: JSON.stringify({ schemaVersion: 2, mediaType: schema, config, layers: [model, params] }),
    });
    expect(pushed.status, await pushed.text()).toBe(201);
    return model.digest;
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

  itWithClients(['trivy', 'oras', 'crane'], 'fetches its databases, and looks into an image', async () => {
    for (const [name, version, file] of [
      ['db', 2, 'trivy.db'],
      ['java-db', 1, 'trivy-java.db'],
    ] as const) {
      const made = mkdtempSync(join(folder, 'trivy-made-'));
      writeFileSync(join(made, file), emptyBolt());
      writeFileSync(
        join(made, 'metadata.json'),
        JSON.stringify({ Version: version, NextUpdate: '2099-01-01T00:00:00Z' }),
      );
      const archive = `${name}.tar.gz`;
      await runOk({ command: 'tar', args: ['-czf', join(folder, archive), '-C', made, file, 'metadata.json'] });
      const config = '/dev/null:application/vnd.aquasec.trivy.config.v1+json';
      const layer = `${archive}:application/vnd.aquasec.trivy.${name.replace('-', '')}.layer.v1.tar+gzip`;
      const target = `${origin}/aquasecurity/trivy-${name}:${version}`;
      await ok('oras', ['push', '--plain-http', '--config', config, target, layer]);
    }
    const root = mkdtempSync(join(folder, 'root-'));
    mkdirSync(join(root, 'etc'));
    mkdirSync(join(root, 'lib/apk/db'), { recursive: true });
    writeFileSync(join(root, 'etc/alpine-release'), '3.20.0\n');
    writeFileSync(join(root, 'lib/apk/db/installed'), 'P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n\n');
    await runOk({ command: 'tar', args: ['-cf', `${root}.tar`, '-C', root, 'etc', 'lib'] });
    await ok('crane', ['append', '--oci-empty-base', '-f', `${root}.tar`, '-t', `${origin}/org/alpine:1`]);
    for (const place of places('')) {
      const databases = [
        ...['--db-repository', `${place}aquasecurity/trivy-db:2`],
        ...['--java-db-repository', `${place}aquasecurity/trivy-java-db:1`],
      ];
      const cache = ['--cache-dir', mkdtempSync(join(folder, 'trivy-')), '--quiet'];
      await ok('trivy', ['image', ...cache, ...databases, '--download-java-db-only']);
      const found = await ok('trivy', [
        'image',
        ...cache,
        ...databases,
        ...['--format', 'json', '--list-all-pkgs', `${place}org/alpine:1`],
      ]);
      expect(found).toContain('"Name": "musl"');
    }
  });

  itWithClients(['ollama'], 'pulls a model', async () => {
    const model = Buffer.concat([ggufHeader(), randomBytes(300_000)]);
    const digest = await pushModel('library/tiny', '1b', model);
    const models = mkdtempSync(join(folder, 'models-'));
    const [port = 0] = await freePorts(1);
    const env = {
      PATH: process.env.PATH,
      HOME: folder,
      OLLAMA_HOST: `127.0.0.1:${port}`,
      OLLAMA_MODELS: models,
      SSL_CERT_FILE: join(gateway.dataDir, 'ca.crt'),
    };
    const ollama = { command: programPath('ollama'), within: space, env };
    const server = startProgram({ ...ollama, args: ['serve'] });
    try {
      await server.waitFor(/Listening on/);
      const pulled = await runProgram({
        ...ollama,
        args: ['pull', `ghcr.localhost:${gateway.httpsPort}/library/tiny:1b`],
      });
      expect(pulled.code, `${pulled.stderr}\n${server.output().slice(-2_000)}`).toBe(0);
      expect(readFileSync(join(models, 'blobs', digest.replace(':', '-')))).toEqual(model);
    } finally {
      await server.end();
    }
  });

  it('Homebrew’s request for a bottle, with the token that it sends to everybody', async () => {
    const body = Buffer.from(FILE);
    await pushBlob('homebrew/core/jq', body);
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

/** A bbolt database with nothing in it, as trivy wants to open one: two pages that describe it, its list of free pages and an empty leaf. */
function emptyBolt(): Buffer {
  const size = 4096;
  const pages = Buffer.alloc(4 * size);
  for (const [id, flags] of [0x04, 0x04, 0x10, 0x02].entries()) {
    pages.writeBigUInt64LE(BigInt(id), id * size);
    pages.writeUInt16LE(flags, id * size + 8);
    if (id > 1) continue;
    const meta = pages.subarray(id * size + 16, id * size + 80);
    // Magic number, version, size of a page.
    for (const [index, value] of [0xed0cdaed, 2, size].entries()) meta.writeUInt32LE(value, 4 * index);
    // The root's page and its sequence, the free list's page, how many pages, the transaction.
    for (const [index, value] of [3, 0, 2, 4, id].entries()) meta.writeBigUInt64LE(BigInt(value), 16 + 8 * index);
    meta.writeBigUInt64LE(fnv1a(meta.subarray(0, 56)), 56);
  }
  return pages;
}

/** FNV-1a of 64 bits. */
function fnv1a(bytes: Buffer): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

/** GGUF's magic number, version 3, no tensors, no keys. */
function ggufHeader(): Buffer {
  const header = Buffer.alloc(24);
  header.write('GGUF');
  header.writeUInt32LE(3, 4);
  return header;
}
