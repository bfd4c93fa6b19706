import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ReloadReport } from '../../src/admin/contract.ts';
import { allServe, CLIENTS, everywhere, get, PROCESSES, statuses } from '../support/every-process.ts';
import { FakeRegistry, generated, MEDIA } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import type { Received, SendOptions } from '../support/http-client.ts';

// What policy.images refuses, asked for by every door of a gateway of several processes.

const KIB = 1024;
const BASE = { access: { anonymous: true }, cache: { tagTtl: '1h' }, trustedProxies: ['127.0.0.0/8'] };
/** Every name of docker.io in a path, and every place for it. */
const BASES = [
  { path: '/v2/docker.io/library/' },
  { path: '/docker.io/v2/library/' },
  { path: '/v2/docker.io/v2/library/' },
  { path: '/v2/library/' },
  { path: '/v2/' },
  { path: '/v2/docker.io/' },
  { path: '/v2/library/', host: 'docker.localhost' },
  { path: '/v2/', host: 'docker.localhost' },
  { path: '/v2/library/', ns: 'docker.io' },
  { path: '/v2/library/', ns: 'index.docker.io' },
  { path: '/v2/library/', ns: 'docker.localhost' },
  { path: '/v2/index.docker.io/library/' },
  { path: '/v2/registry-1.docker.io/library/' },
  { path: '/v2/registry.hub.docker.com/library/' },
  { path: '/v2/docker.io:443/library/' },
  { path: '/v2/DOCKER.io/library/' },
  { path: '/v2/docker.io./library/' },
  { path: '/v2/docker%2Eio/library/' },
  { path: '/v2/docker.localhost/library/' },
];

let hub: FakeRegistry;
let quay: FakeRegistry;
let gateway: TestGateway;
let token: string;
beforeAll(async () => {
  hub = await FakeRegistry.start({ auth: { scheme: 'bearer' } });
  quay = await FakeRegistry.start();
  gateway = await startGateway({ config: { listen: { workers: PROCESSES }, ...BASE } });
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', hub.url);
  await gateway.ok('registry', 'set', 'quay.io', '--endpoint', quay.url);
  token = (await gateway.ok('user', 'add', 'ci')).trim();
  await allServe(gateway);
});
afterAll(async () => {
  await gateway?.close();
  await Promise.all([hub?.close(), quay?.close()]);
});
beforeEach(async () => {
  await rules();
  hub.faults = () => undefined;
});
showLogOfFailures(() => gateway);

/** These rules from now on, in every process. */
async function rules(...images: readonly unknown[]): Promise<void> {
  const listen = { https: `127.0.0.1:${gateway.httpsPort}`, http: `127.0.0.1:${gateway.httpPort}`, workers: PROCESSES };
  gateway.configure({ ...BASE, listen, policy: { images } });
  const report = JSON.parse(await gateway.ok('reload', '--json')) as ReloadReport;
  expect(report.restart).toEqual([]);
}

const ACCEPT = [MEDIA.index, MEDIA.manifest].join(', ');
const LOGIN = () => ({ authorization: `Basic ${Buffer.from(`ci:${token}`).toString('base64')}` });
const asked = () => hub.log.count() + quay.log.count();

function ask(path: string, options: Partial<SendOptions> = {}): Promise<Received> {
  return get(gateway, path, { keep: true, ...options, headers: { accept: ACCEPT, ...(options.headers as object) } });
}

let seed = 0;
/** An image in an index, with what is signed of it in both ways; its layer is its own. */
function image(fake: FakeRegistry, name: string, tag: string, size = 4 * KIB) {
  const repository = fake.repository(name);
  const child = repository.addImage(undefined, [generated(size, `policy ${++seed}`)], { label: `${seed}` });
  const index = repository.addIndex(tag, [child]);
  const signature = repository.addImage(undefined, [`signature ${seed}`], { subject: index, artifactType: 'a/b' });
  const cosign = `sha256-${index.digest.slice('sha256:'.length)}`;
  repository.addImage(`${cosign}.sig`, [`cosign ${seed}`]);
  const layer = child.layers[0]?.digest ?? '';
  return { index, child, config: child.config.digest, layer, signature, cosign };
}

/** Every question about an image: method, path below its repository's base, headers. */
function doors(
  name: string,
  tag: string,
  { index, child, config, layer, signature, cosign }: ReturnType<typeof image>,
) {
  const manifests = [tag, index.digest, child.digest, signature.digest, cosign, `${cosign}.sig`, `${cosign}.att`];
  const blobs = [config, layer];
  const rows: (readonly [method: string, path: string, headers: Record<string, string>])[] = [];
  for (const method of ['GET', 'HEAD']) {
    for (const reference of manifests) rows.push([method, `${name}/manifests/${reference}`, {}]);
    rows.push([method, `${name}/manifests/${tag}`, { 'if-none-match': `"${index.digest}"` }]);
    rows.push([method, `${name}/manifests/${index.digest}`, { 'if-none-match': '*' }]);
    for (const digest of blobs) {
      rows.push([method, `${name}/blobs/${digest}`, {}]);
      rows.push([method, `${name}/blobs/${digest}`, { range: 'bytes=0-9' }]);
      rows.push([method, `${name}/blobs/${digest}`, { range: 'bytes=0-1,5-6' }]);
      rows.push([method, `${name}/blobs/${digest}`, { range: 'bytes=10-', 'if-range': `"${digest}"` }]);
      rows.push([method, `${name}/blobs/${digest}`, { 'if-none-match': `"${digest}"` }]);
      rows.push([method, `${name}/blobs/${digest}`, { 'user-agent': 'ollama/0.1' }]);
    }
    rows.push([method, `${name}/tags/list`, {}], [method, `${name}/tags/list?n=1&last=0`, {}]);
    rows.push([method, `${name}/referrers/${index.digest}`, {}]);
    rows.push([method, `${name}/referrers/${index.digest}?artifactType=a/b`, {}]);
  }
  return rows;
}

/** Asks one client after the other through all the doors of docker.io; what each got. */
async function throughAll(name: string, tag: string, of: ReturnType<typeof image>, headers = {}): Promise<Received[]> {
  const answers: Received[] = [];
  for (const { path, host = 'localhost', ns } of BASES) {
    const batch = doors(name, tag, of).map(([method, rest, own]) => {
      const query = ns === undefined ? '' : `${rest.includes('?') ? '&' : '?'}ns=${ns}`;
      return ask(`${path}${rest}${query}`, {
        method,
        servername: host,
        headers: { host: `${host}:${gateway.httpsPort}`, ...own, ...headers },
      });
    });
    answers.push(...(await Promise.all(batch)));
  }
  return answers;
}

describe('an image that is refused', () => {
  test('is refused by every door, by its name, and costs its registry no request', async () => {
    const bad = image(hub, 'library/bad', '1');
    const cold = image(hub, 'library/cold', '1');
    // Everything of the one is kept when the rule comes.
    const [base] = BASES;
    for (const [method, path] of doors('bad', '1', bad)) await ask(`${base?.path}${path}`, { method });
    expect((await ask(`/v2/library/bad/blobs/${bad.layer}`)).headers['x-cache']).toBe('HIT');
    const warm = await everywhere(gateway, '/v2/library/bad/manifests/1', { headers: { accept: ACCEPT } });
    expect(statuses(warm)).toEqual([200]);

    await rules('*', '!docker.io/bad', '!docker.io/library/cold');
    hub.log.clear();
    quay.log.clear();
    for (const [name, of] of [
      ['bad', bad],
      ['cold', cold],
    ] as const) {
      const answers = await throughAll(name, '1', of);
      expect(statuses(answers)).toEqual([403]);
      expect(new Set(answers.map(({ headers }) => headers['docker-content-digest']))).toEqual(new Set([undefined]));
      const bodies = answers.filter(({ bytes }) => bytes > 0).map(({ text }) => JSON.parse(text).errors[0]);
      expect(new Set(bodies.map(({ code }) => code))).toEqual(new Set(['DENIED']));
      for (const { message } of bodies) expect(message).toContain(`does not let docker.io/library/${name}`);
    }
    expect(statuses(await everywhere(gateway, '/v2/library/bad/manifests/1'))).toEqual([403]);
    expect(statuses(await everywhere(gateway, `/v2/library/bad/blobs/${bad.layer}`))).toEqual([403]);
    expect(asked()).toBe(0);
  });

  test('takes nothing from another repository that holds the same, and gives it nothing', async () => {
    const bad = image(hub, 'library/bad', '2');
    const good = image(hub, 'library/good', '2');
    for (const { digest } of [bad.child, bad.index]) await ask(`/v2/library/bad/manifests/${digest}`);
    await ask(`/v2/library/bad/blobs/${bad.layer}`);
    await rules('*', '!docker.io/library/bad');
    hub.log.clear();
    // The repository that may pass does not have it: what is kept is not given in its name.
    expect((await ask(`/v2/library/good/blobs/${bad.layer}`)).status).toBe(404);
    expect((await ask(`/v2/library/good/manifests/${bad.index.digest}`)).status).toBe(404);
    expect(hub.log.count({ repository: 'library/bad' })).toBe(0);
    // Where it has it, it is its own.
    const shared = generated(3 * KIB, 'shared by two');
    const { digest } = hub.repository('library/bad').addBlob(shared);
    hub.repository('library/good').addBlob(shared);
    expect((await ask(`/v2/library/good/blobs/${digest}`)).digest).toBe(digest);
    expect((await ask(`/v2/library/bad/blobs/${digest}`)).status).toBe(403);
    expect((await ask('/v2/library/good/manifests/2')).digest).toBe(good.index.digest);
    expect(hub.log.count({ repository: 'library/bad' })).toBe(0);
  });

  test('is refused at another registry that has the same name, only where the pattern says so', async () => {
    const here = image(quay, 'library/bad', '3');
    await rules('!docker.io/library/bad');
    expect((await ask('/v2/quay.io/library/bad/manifests/3')).digest).toBe(here.index.digest);
    await rules('!*/library/bad');
    quay.log.clear();
    expect((await ask('/v2/quay.io/library/bad/manifests/3')).status).toBe(403);
    expect((await ask('/v2/library/bad/manifests/3', { headers: {} })).status).toBe(403);
    expect((await ask('/v2/library/bad/manifests/3?ns=quay.io')).status).toBe(403);
    expect(quay.log.count()).toBe(0);
  });

  test('is refused while its registry is down and what is kept of others is served stale', async () => {
    const bad = image(hub, 'library/stale', '1');
    await ask('/v2/library/stale/manifests/1');
    hub.faults = () => ({ status: 500 });
    await rules('*', '!docker.io/library/stale');
    hub.log.clear();
    expect((await ask('/v2/library/stale/manifests/1')).status).toBe(403);
    expect((await ask(`/v2/library/stale/manifests/${bad.index.digest}`)).status).toBe(403);
    expect(hub.log.count()).toBe(0);
  });

  test('ends no pull that runs, and gives nobody else what still comes', async () => {
    const { layer } = image(hub, 'library/slow', '1', 512 * KIB);
    hub.faults = ({ kind }) => (kind === 'blob' ? { bytesPerSecond: 256 * KIB } : undefined);
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    const running = ask(`/v2/library/slow/blobs/${layer}`, { onBytes: (bytes) => bytes > 0 && resolve() });
    await begun;
    await rules('*', '!docker.io/library/slow');
    expect((await ask(`/v2/library/slow/blobs/${layer}`)).status).toBe(403);
    expect((await ask(`/v2/library/slow/blobs/${layer}`, { headers: { range: 'bytes=0-99' } })).status).toBe(403);
    expect((await running).digest).toBe(layer);
    expect((await ask(`/v2/library/slow/blobs/${layer}`)).status).toBe(403);
  });

  test('is counted by its registry, and told in the log at a bounded rate', async () => {
    await rules('!docker.io/library/loud');
    const metric = async () => {
      const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
      const line = /^gateway_policy_refusals_total\{registry="docker.io",ground="repository"\} (\d+)$/m.exec(text);
      return Number(line?.[1] ?? 0);
    };
    const told = () => gateway.logLines().filter(({ msg }) => String(msg).startsWith('policy.images refused')).length;
    const before = { count: await metric(), told: told() };
    for (let n = 0; n < 20; n++) await ask(`/v2/library/loud/manifests/${n}`);
    expect((await metric()) - before.count).toBe(20);
    expect(told() - before.told).toBeLessThanOrEqual(1);
    expect(told()).toBeGreaterThanOrEqual(1);
  });
});

describe('users and networks', () => {
  test('get what their rules let through, by answers of their own in every process', async () => {
    const { index } = image(hub, 'library/mine', '1');
    const path = '/v2/library/mine/manifests/1';
    await rules('docker.io/*', '!docker.io/library/mine', { image: 'docker.io/library/mine', users: ['ci'] });
    for (let round = 0; round < 2; round++) {
      expect(statuses(await everywhere(gateway, path, { headers: { accept: ACCEPT, ...LOGIN() } }))).toEqual([200]);
      expect(statuses(await everywhere(gateway, path, { headers: { accept: ACCEPT } }))).toEqual([403]);
      const digest = `/v2/library/mine/manifests/${index.digest}`;
      expect(statuses(await everywhere(gateway, digest, { headers: LOGIN() }))).toEqual([200]);
      expect(statuses(await everywhere(gateway, digest, { headers: { 'if-none-match': '*' } }))).toEqual([403]);
    }
  });

  test('by the address that a trusted proxy tells, and by the connection’s own', async () => {
    image(hub, 'library/net', '1');
    const path = '/v2/library/net/manifests/1';
    const from = (address: string) => ({ headers: { accept: ACCEPT, 'x-forwarded-for': address } });
    await rules('*', { image: '!docker.io/library/net', networks: ['10.0.0.0/8', '2001:db8::/32'] });
    for (let round = 0; round < 2; round++) {
      expect(statuses(await everywhere(gateway, path, from('192.0.2.1')))).toEqual([200]);
      expect(statuses(await everywhere(gateway, path, from('10.1.2.3')))).toEqual([403]);
      expect((await ask(path, from('::ffff:10.1.2.3'))).status).toBe(403);
      expect((await ask(path, from('2001:db8::7'))).status).toBe(403);
      // What a client writes left of its proxy is its own word.
      expect((await ask(path, from('192.0.2.1, 10.1.2.3'))).status).toBe(403);
    }
    await rules('*', { image: '!docker.io/library/net', networks: ['127.0.0.0/8'], users: ['ci'] });
    expect((await ask(path)).status).toBe(200);
    expect((await ask(path, { headers: LOGIN() })).status).toBe(403);
    expect((await ask(path, { headers: { ...LOGIN(), 'x-forwarded-for': '192.0.2.1' } })).status).toBe(200);
  });
});

describe('patterns that name tags', () => {
  const RULES = ['docker.io/*', '!*:latest'];

  test('a digest is no way around them, in any process, and costs its registry no request', async () => {
    const name = 'library/pinned';
    const of = image(hub, name, 'latest');
    await rules();
    // What tags stood for before the rule came is known, and opens nothing.
    expect((await ask(`/v2/${name}/manifests/latest`)).digest).toBe(of.index.digest);
    for (const { digest } of [of.index, of.child]) await ask(`/v2/${name}/manifests/${digest}`);
    await ask(`/v2/${name}/blobs/${of.layer}`);
    await rules(...RULES);
    hub.log.clear();
    const answers = await Promise.all(
      doors(name, 'latest', of)
        .filter(([, path]) => !path.includes('/tags/list'))
        .map(([method, path, headers]) => ask(`/v2/${path}`, { method, headers })),
    );
    expect(statuses(answers)).toEqual([403]);
    expect(statuses(await everywhere(gateway, `/v2/${name}/manifests/${of.child.digest}`))).toEqual([403]);
    expect(statuses(await everywhere(gateway, `/v2/${name}/blobs/${of.layer}`))).toEqual([403]);
    const { text } = await ask(`/v2/${name}/manifests/${of.index.digest}`);
    expect(JSON.parse(text).errors[0].message).toContain('pull it by a tag that may pass first');
    expect(hub.log.count()).toBe(0);
  });

  test('a tag that may pass opens what it stands for, down to the last layer and signature, in every process', async () => {
    const name = 'library/tagged';
    const of = image(hub, name, '1.0');
    await rules(...RULES);
    hub.log.clear();
    expect((await ask(`/v2/${name}/manifests/${of.index.digest}`)).status).toBe(403);
    expect(hub.log.count()).toBe(0);
    // As containerd asks: the tag by HEAD, then everything by its digest, each of any process.
    const head = await ask(`/v2/${name}/manifests/1.0`, { method: 'HEAD' });
    expect(head.headers['docker-content-digest']).toBe(of.index.digest);
    const given = async (path: string, digest: string) =>
      expect((await everywhere(gateway, `/v2/${name}/${path}`)).map((answer) => answer.digest)).toEqual(
        Array.from({ length: CLIENTS }, () => digest),
      );
    await given(`manifests/${of.index.digest}`, of.index.digest);
    await given(`manifests/${of.child.digest}`, of.child.digest);
    await given(`blobs/${of.config}`, of.config);
    await given(`blobs/${of.layer}`, of.layer);
    const list = JSON.parse((await ask(`/v2/${name}/referrers/${of.index.digest}`)).text);
    expect(list.manifests.map(({ digest }: { digest: string }) => digest)).toEqual([of.signature.digest]);
    await given(`manifests/${of.signature.digest}`, of.signature.digest);
    await given(`blobs/${of.signature.layers[0]?.digest}`, of.signature.layers[0]?.digest ?? '');
    const cosign = await ask(`/v2/${name}/manifests/${of.cosign}.sig`);
    const [layer] = JSON.parse(cosign.text).layers;
    await given(`blobs/${layer.digest}`, layer.digest);
    // The same tag for other clients is another thing.
    await rules(...RULES, { image: '!*:1.0', users: ['ci'] });
    expect((await ask(`/v2/${name}/blobs/${of.layer}`)).status).toBe(200);
    expect((await ask(`/v2/${name}/blobs/${of.layer}`, { headers: LOGIN() })).status).toBe(403);
  });

  test('what tags stood for is known after a start, while their registry is down', async () => {
    const name = 'library/known';
    const of = image(hub, name, '1.0');
    await rules(...RULES);
    await ask(`/v2/${name}/manifests/1.0`);
    await ask(`/v2/${name}/manifests/${of.child.digest}`);
    await ask(`/v2/${name}/blobs/${of.layer}`);
    await gateway.stop();
    await gateway.start();
    await allServe(gateway);
    hub.faults = () => ({ status: 500 });
    hub.log.clear();
    expect((await ask(`/v2/${name}/blobs/${of.layer}`)).digest).toBe(of.layer);
    expect((await ask(`/v2/${name}/manifests/${of.child.digest}`)).digest).toBe(of.child.digest);
    expect(hub.log.count()).toBe(0);
  });

  test('digests may be opened, and one of them refused, by its tag too', async () => {
    const name = 'library/digests';
    const [bad, good] = [image(hub, name, '1.0'), image(hub, name, '2.0')];
    await rules(...RULES, '*@*', `!*@${bad.index.digest}`, `!*@${good.layer}`);
    expect((await ask(`/v2/${name}/manifests/${good.index.digest}`)).status).toBe(200);
    expect((await ask(`/v2/${name}/manifests/2.0`)).status).toBe(200);
    expect((await ask(`/v2/${name}/manifests/latest`)).status).toBe(403);
    hub.log.clear();
    expect((await ask(`/v2/${name}/manifests/${bad.index.digest}`)).status).toBe(403);
    expect((await ask(`/v2/${name}/blobs/${good.layer}`)).status).toBe(403);
    expect(hub.log.count()).toBe(0);
    const byTag = await ask(`/v2/${name}/manifests/1.0`);
    expect([byTag.status, byTag.text.includes(bad.index.digest)]).toEqual([403, true]);
    await rules('docker.io/*@*');
    expect((await ask(`/v2/${name}/manifests/2.0`)).status).toBe(403);
    expect((await ask(`/v2/${name}/manifests/${bad.index.digest}`)).status).toBe(200);
  });
});

describe('commands of the operator', () => {
  test('are held to the rules for all, through the running gateway and on its data directory at rest', async () => {
    image(hub, 'library/saved', '1');
    await rules('docker.io/library/saved', '!*:2', { image: '!*', users: ['ci'] }, { image: '*:2', users: ['ci'] });
    hub.log.clear();
    const save = (...images: string[]) => {
      const file = join(gateway.dataDir, `saved-${++seed}.tar`);
      return gateway.cli(['save', ...images, '--format', 'oci', '-o', file]);
    };
    const refused = async (name: string) => {
      const { code, stderr } = await save(name);
      expect([code, stderr]).toEqual([1, expect.stringContaining(`does not let docker.io/${name} through`)]);
      expect(hub.log.count()).toBe(0);
    };
    for (const name of ['library/saved:2', 'library/other:1']) await refused(name);
    expect(await save('library/saved:1')).toMatchObject({ code: 0 });
    await gateway.stop();
    hub.log.clear();
    for (const name of ['library/saved:2', 'library/other:1']) await refused(name);
    await gateway.start();
    await allServe(gateway);
  });
});

describe('lists of tags', () => {
  test('show the tags that may pass, and their links lead through all pages', async () => {
    const tags = ['1.0', '1.1', '2.0', '3.0-dev', 'edge', 'latest', 'nightly'];
    for (const tag of tags) hub.repository('library/many').addImage(tag, [`many ${tag}`]);
    await rules('docker.io/*', '!*:*-dev', '!*:latest', '!docker.io/library/many:n*');
    const shown = ['1.0', '1.1', '2.0', 'edge'];
    expect(JSON.parse((await ask('/v2/library/many/tags/list')).text)).toEqual({ name: 'library/many', tags: shown });
    for (const n of [1, 2, 3, 6]) {
      const seen: string[] = [];
      let path = `/v2/library/many/tags/list?n=${n}`;
      for (let page = 0; path !== '' && page < 20; page++) {
        const { text, headers } = await ask(path);
        seen.push(...(JSON.parse(text) as { tags: string[] }).tags);
        path = /^<([^>]+)>/.exec(String(headers.link ?? ''))?.[1] ?? '';
      }
      expect([n, seen]).toEqual([n, shown]);
    }
    const head = await ask('/v2/library/many/tags/list', { method: 'HEAD' });
    expect(head.headers['content-length']).toBe(String((await ask('/v2/library/many/tags/list')).bytes));
    await rules('quay.io/*', 'docker.io/library/many@*');
    hub.log.clear();
    expect((await ask('/v2/library/many/tags/list')).status).toBe(403);
    expect(hub.log.count()).toBe(0);
  });
});

describe('rules that are read again', () => {
  test('hold in every process when the command has ended, under load', async () => {
    image(hub, 'library/moving', '1');
    const path = '/v2/library/moving/manifests/1';
    let ended = false;
    const odd: Received[] = [];
    const load = Array.from({ length: 3 }, async () => {
      while (!ended) {
        const answer = await ask(path);
        if (answer.status !== 200 && answer.status !== 403) odd.push(answer);
      }
    });
    for (let round = 0; round < 2; round++) {
      await rules('*', '!docker.io/library/moving');
      hub.log.clear();
      expect(statuses(await everywhere(gateway, path, { headers: { accept: ACCEPT } }))).toEqual([403]);
      expect(hub.log.count()).toBe(0);
      await rules({ image: '*', networks: ['127.0.0.0/8'] });
      expect(statuses(await everywhere(gateway, path, { headers: { accept: ACCEPT } }))).toEqual([200]);
      await rules({ image: '*', networks: ['10.0.0.0/8'] });
      expect(statuses(await everywhere(gateway, path, { headers: { accept: ACCEPT } }))).toEqual([403]);
    }
    ended = true;
    await Promise.all(load);
    expect(odd).toEqual([]);
  }, 240_000);
});
