import { afterEach, expect, test } from 'vitest';
import { FakeRegistry, type FakeRegistryOptions, generated } from '../support/fake-registry/index.ts';
import { RegistryBed } from '../support/registry-bed.ts';

// Endpoints with a path: a project behind /v2/, whose name no client ever sees.

const endings: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function bedOf(options: FakeRegistryOptions, credentials?: { username: string; password: string }) {
  const fake = await FakeRegistry.start(options);
  endings.push(() => fake.close());
  const row = {
    fake,
    endpoints: [`${fake.url}/v2/proj-of-ours`],
    ...(credentials === undefined ? {} : { credentials, public: true }),
  };
  const bed = await RegistryBed.start({ registries: { 'r.test': row } });
  endings.push(() => bed.stop());
  return { fake, bed, repository: fake.repository('proj-of-ours/org/app') };
}

test('manifests, blobs and HEAD are asked for within the project, with its scope', async () => {
  const users = { bot: 'secret' };
  const { fake, bed, repository } = await bedOf(
    { auth: { scheme: 'bearer', users, private: true } },
    { username: 'bot', password: 'secret' },
  );
  const layer = generated(10_000, 1);
  repository.addImage('1', [layer]);
  expect((await bed.manifest('r.test', 'org/app', '1')).status).toBe(200);
  expect((await bed.manifest('r.test', 'org/app', '1', { method: 'HEAD' })).status).toBe(200);
  expect((await bed.blob('r.test', 'org/app', layer.digest)).body.equals(layer.read(0, layer.size))).toBe(true);
  expect(fake.log.of({ kind: 'manifest' }).every(({ repository }) => repository === 'proj-of-ours/org/app')).toBe(true);
  expect(fake.log.of({ kind: 'token' }).map(({ query }) => new URLSearchParams(query).get('scope'))).toEqual([
    'repository:proj-of-ours/org/app:pull',
  ]);
});

test('a challenge without a scope is answered with that of the project', async () => {
  const { fake, bed, repository } = await bedOf({
    auth: { scheme: 'bearer', challenge: (realm, service) => `Bearer realm="${realm}",service="${service}"` },
  });
  repository.addImage('1', ['x']);
  expect((await bed.manifest('r.test', 'org/app', '1')).status).toBe(200);
  expect(decodeURIComponent(fake.log.of({ kind: 'token' })[0]?.query ?? '')).toContain(
    'repository:proj-of-ours/org/app:pull',
  );
});

test('two registries at one host, a project each, have tokens of their own', async () => {
  const { fake, bed, repository } = await bedOf({ auth: { scheme: 'bearer', private: [] } });
  bed.put('s.test', { fake, endpoints: [`${fake.url}/v2/other`] });
  repository.addImage('1', ['x']);
  fake.repository('other/org/app').addImage('1', ['y']);
  const [one, other] = [await bed.manifest('r.test', 'org/app', '1'), await bed.manifest('s.test', 'org/app', '1')];
  expect([one.status, other.status, one.body.equals(other.body)]).toEqual([200, 200, false]);
});

test('tags are paged, and neither the links, the list nor an error names the project', async () => {
  const { bed, repository } = await bedOf({ tagPages: 10 });
  for (let i = 0; i < 25; i++) repository.addImage(`v${String(i).padStart(2, '0')}`, ['x']);
  const first = await bed.ask('r.test', 'org/app', { kind: 'tags' });
  expect(JSON.parse(first.body.toString())).toMatchObject({ name: 'org/app' });
  expect(`${first.headers.link} ${first.body.toString()}`).not.toContain('proj-of-ours');
  expect(first.headers.link).toContain('/v2/org/app/tags/list');
  const missing = await bed.manifest('r.test', 'org/app', 'none').catch((error: Error) => error);
  expect(String(missing)).toContain('org/app has no manifest none');
  expect(String(missing)).not.toContain('proj-of-ours');
});
