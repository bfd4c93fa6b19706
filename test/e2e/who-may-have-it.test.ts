import { afterAll, beforeAll, expect, it } from 'vitest';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { describeWith } from '../support/programs.ts';
import { skopeoPull } from '../support/skopeo.ts';
import { openWay } from '../support/ways.ts';

const NAME = 'library/app';

describeWith(['skopeo'], 'who may have what is cached', () => {
  let one: FakeRegistry;
  let other: FakeRegistry;
  let hidden: FakeRegistry;
  let gateway: TestGateway;
  let token: string;
  let ways: (ReturnType<typeof openWay> | undefined)[] = [];
  showLogOfFailures(() => gateway);

  const way = () => {
    const opened = openWay(gateway, 'by prefix');
    ways.push(opened);
    return opened;
  };
  const get = (registry: string, what: string, headers: Record<string, string> = {}) =>
    way().send('GET', `/v2/${registry}/${what}`, headers);
  const login = () => ({ authorization: `Basic ${Buffer.from(`ci:${token}`).toString('base64')}` });

  beforeAll(async () => {
    one = await FakeRegistry.start({ auth: { scheme: 'bearer' } });
    other = await FakeRegistry.start();
    hidden = await FakeRegistry.start({ auth: { scheme: 'bearer', private: true, users: { operator: 'secret' } } });
    gateway = await startGateway({ config: { access: { anonymous: true } } });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', one.url);
    await gateway.ok('registry', 'set', 'quay.io', '--endpoint', other.url);
    const set = [
      'registry',
      'set',
      'hidden.example',
      '--endpoint',
      hidden.url,
      '--username',
      'operator',
      '--password-stdin',
    ];
    const ran = await gateway.cli(set, { input: 'secret' });
    expect(ran.code, ran.stderr).toBe(0);
    token = (await gateway.ok('user', 'add', 'ci')).trim();
  });

  afterAll(async () => {
    for (const opened of ways) opened?.close();
    ways = [];
    await gateway?.close();
    await Promise.all([one, other, hidden].map((fake) => fake?.close()));
  });

  it('two registries with the same name of different content never mix, cold and warm', async () => {
    // As the README says it: the data directory is skopeo's directory of certificates.
    const ca = { directory: gateway.dataDir };
    const images = [one, other].map((fake, at) =>
      fake.repository(NAME).addImage('1', [generated(200_000, `layer ${at}`)], { label: `${at}` }),
    );
    for (let round = 0; round < 2; round++) {
      for (const [at, registry] of ['docker.io', 'quay.io'].entries()) {
        const image = images[at];
        const foreign = images[1 - at];
        if (image === undefined || foreign === undefined) throw new Error('no image');
        const pulled = await skopeoPull({ image: `localhost:${gateway.httpsPort}/${registry}/${NAME}:1`, ca });
        expect(pulled.ran.code, pulled.ran.stderr).toBe(0);
        const digests = [image.digest, image.config.digest, ...image.layers.map(({ digest }) => digest)];
        expect([...pulled.digests].sort()).toEqual(digests.sort());
        // What the other one holds is unknown here, although its bytes lie in the cache.
        for (const digest of [foreign.config.digest, ...foreign.layers.map((layer) => layer.digest)]) {
          expect((await get(registry, `${NAME}/blobs/${digest}`)).status).toBe(404);
        }
        expect((await get(registry, `${NAME}/manifests/${foreign.digest}`)).status).toBe(404);
      }
    }
  });

  it('a blob known from a private repository is refused through a public one, and to who has not logged in', async () => {
    const image = hidden.repository('org/secret').addImage('1', [generated(200_000, 'secret')]);
    const [layer] = image.layers;
    const digest = layer?.digest ?? '';
    expect((await get('hidden.example', 'org/secret/manifests/1', login())).status).toBe(200);
    expect((await get('hidden.example', `org/secret/blobs/${digest}`, login())).status).toBe(200);
    for (const registry of ['docker.io', 'quay.io']) {
      for (const headers of [{}, login()]) {
        expect((await get(registry, `${NAME}/blobs/${digest}`, headers)).status).toBe(404);
        expect((await get(registry, `${NAME}/manifests/${image.digest}`, headers)).status).toBe(404);
      }
    }
    // What exists and what does not look the same to a stranger.
    const answers = await Promise.all(
      [`org/secret/blobs/${digest}`, 'org/secret/manifests/1', 'org/secret/manifests/2', 'org/absent/tags/list'].map(
        (what) => get('hidden.example', what),
      ),
    );
    for (const { status, body } of answers) {
      expect([status, JSON.parse(body.toString()).errors[0].code]).toEqual([403, 'DENIED']);
    }
    await gateway.ok('registry', 'set', 'hidden.example', '--public');
    expect((await get('hidden.example', `org/secret/blobs/${digest}`)).status).toBe(200);
  });
});
