import { randomInt } from 'node:crypto';
import { Agent } from 'node:https';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { generated, sha256 } from '../support/content.ts';
import { FactsModel } from '../support/facts-model/model.ts';
import { blobItem, type Item, type Lie, type Repository, ScriptedRegistry } from '../support/facts-model/registry.ts';
import type { ModelCredentials } from '../support/facts-model/rows.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, type Received, send } from '../support/http-client.ts';

/** Steps of one run; `GATEWAY_TEST_FACTS` for a long one. */
const STEPS = Number(process.env.GATEWAY_TEST_FACTS ?? 1_000);
/** The run that failed is repeated with its seed: `GATEWAY_TEST_SEED`. */
const SEED = Number(process.env.GATEWAY_TEST_SEED ?? randomInt(2 ** 31));
/** Restarts in one run: each takes about a second. */
const RESTARTS = 5;
/** A registry is off for so many steps: each that asks it waits for retries. */
const OFF_STEPS = 5;
/** For so long after a miss or a failure, ms, the gateway may remember it (`NEGATIVE_TTL`, `FAILURE_PAUSE` and the breaker's longest wait in src/). */
const MEMORY_MS = 31_000;

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const ACCEPT = [MANIFEST, DOCKER_MANIFEST, INDEX].join(', ');
const REPOSITORIES = ['team/one', 'team/two'];
const USERS = { operator: 'secret', alice: 'secret of alice', bob: 'secret of bob' };
/** Patterns that an operator gives a registry's credentials; which decides differs from one to the next. */
const PATTERNS = ['team/*', 'team/one', 'team/two', 'team/t*', '*'];
/** Steps between two changes of credentials, which take some half a second. */
const CHANGE_EVERY = 40;

/** Random numbers that follow from a seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

let gateway: TestGateway;
let token: string;
let ca: string;
let agents: Agent[];
const registries: ScriptedRegistry[] = [];

beforeAll(async () => {
  registries.push(
    await ScriptedRegistry.start('hidden.example', REPOSITORIES, { users: USERS, opens: () => true }),
    // Its repositories have two owners, and who operates the registry.
    await ScriptedRegistry.start('owned.example', REPOSITORIES, {
      users: USERS,
      opens: (user, repository) => user === 'operator' || (user === 'alice') === (repository === 'team/one'),
    }),
    await ScriptedRegistry.start('open.example', REPOSITORIES),
    await ScriptedRegistry.start('evil.example', REPOSITORIES),
  );
  // Two processes serve; whatever is kept of a tag is asked for again.
  gateway = await startGateway({
    config: { access: { anonymous: true }, listen: { workers: 2 }, cache: { tagTtl: '1ms' } },
  });
  for (const { host, url } of registries) await gateway.ok('alias', 'add', nameOf(host), host, '--endpoint', url);
  token = (await gateway.ok('user', 'add', 'ci')).trim();
  ca = caOf(gateway);
  agents = Array.from({ length: 4 }, () => new Agent({ keepAlive: true, maxSockets: 1, ca }));
});

afterAll(async () => {
  for (const agent of agents ?? []) agent.destroy();
  await gateway?.close();
  await Promise.all(registries.map((registry) => registry.close()));
});

/** @param user whose credentials; null removes them */
async function setCredentials(
  host: string,
  name: string | null,
  user: keyof typeof USERS | null,
  patterns: string[] = [],
) {
  const args = ['registry', 'set', host, '--no-check', ...(name === null ? [] : ['--credential', name])];
  args.push(...patterns.flatMap((pattern) => ['--for', pattern]), '--username', user ?? '');
  const ran = await gateway.cli(user === null ? args : [...args, '--password-stdin'], {
    input: user === null ? '' : USERS[user],
  });
  expect(ran.code, ran.stderr).toBe(0);
}

function nameOf(host: string): string {
  return host.slice(0, host.indexOf('.'));
}

/** One request through one of the ways to a registry. */
interface Asked {
  readonly registry: ScriptedRegistry;
  readonly repository: string;
  readonly what: 'manifests' | 'blobs' | 'referrers';
  readonly reference: string;
  readonly method: 'GET' | 'HEAD';
  readonly user: boolean;
  readonly way: 'alias' | 'prefix' | 'ns';
  readonly range: { readonly from: number; readonly to: number | undefined } | null;
}

function ask(asked: Asked, agent: Agent | undefined): Promise<Received> {
  const { registry, repository, what, reference, method, user, way, range } = asked;
  const rest = `${repository}/${what}/${reference}`;
  const path = { alias: `/v2/${rest}`, prefix: `/v2/${registry.host}/${rest}`, ns: `/v2/${rest}?ns=${registry.host}` }[
    way
  ];
  const host = way === 'alias' ? `${nameOf(registry.host)}.localhost` : 'localhost';
  return send({
    ...(agent === undefined ? { agent: false, ca } : { agent }),
    method,
    port: gateway.httpsPort,
    servername: host,
    path,
    keep: true,
    headers: {
      host: `${host}:${gateway.httpsPort}`,
      accept: ACCEPT,
      ...(user ? { authorization: `Basic ${Buffer.from(`ci:${token}`).toString('base64')}` } : {}),
      ...(range === null ? {} : { range: `bytes=${range.from}-${range.to === undefined ? '' : range.to - 1}` }),
    },
  });
}

/** A world of registries that changes at random, and one gateway before it, held against the model of what it may know. */
class World {
  readonly model = new FactsModel();
  readonly #random: () => number;
  readonly #blobs: Item[];
  /** What only the repositories of the two owners hold, half of it each, so that nobody opens it to all. */
  readonly #owned: Item[];
  readonly #everything = new Map<string, Item>();
  /** Types that a registry has ever stated for a manifest, by `registry repository digest`. */
  readonly #stated = new Map<string, Set<string>>();
  /** When the gateway last met a miss, a denial or a failure there (`performance.now()`), by `registry repository reference`, or registry alone. */
  readonly #troubled = new Map<string, number>();
  /** What is pulled next, in order: of a theft, what it takes. */
  readonly #plan: { readonly name: string; readonly item: Item }[] = [];
  /** Steps until every registry is on again. */
  #offFor = 0;
  served = 0;
  refused = 0;

  constructor(seed: number) {
    this.#random = random(seed);
    this.#blobs = Array.from({ length: 16 }, (_, at) => {
      const content = generated([50, 3_000, 70_000, 200_000][at % 4] ?? 50, `facts ${seed} ${at}`);
      return blobItem(content.read(0, content.size));
    });
    this.#owned = this.#blobs.splice(0, 6);
    for (const blob of [...this.#blobs, ...this.#owned]) this.#everything.set(blob.digest, blob);
  }

  async step(): Promise<void> {
    if (--this.#offFor === 0) for (const registry of registries) registry.off = false;
    const dice = this.#random();
    if (dice < 0.12) this.#push();
    else if (dice < 0.14) this.#remove();
    else if (dice < 0.17) this.#close();
    else if (dice < 0.21) this.#open();
    else if (dice < 0.23) this.#lie();
    else if (dice < 0.233) this.#power();
    else await this.#pull();
  }

  /** The operator opens to everybody what their credentials open, or closes it again. */
  async turnPublic(): Promise<void> {
    const host = this.#pick(['hidden.example', 'owned.example']);
    const isPublic = this.model.public.delete(host);
    await gateway.ok('registry', 'set', host, isPublic ? '--no-public' : '--public', '--no-check');
    if (!isPublic) this.model.public.add(host);
    this.learn();
  }

  /** What the registries have from the start. */
  async begin(): Promise<void> {
    await this.#give('hidden.example', null, 'operator');
    await this.#give('owned.example', 'a', 'alice', ['team/one']);
    await this.#give('owned.example', 'b', 'bob', ['team/two']);
  }

  /** The operator gives credentials to other repositories or another owner, adds some, or takes them away. */
  async changeCredentials(): Promise<void> {
    const host = 'owned.example';
    const name = this.#pick(['a', 'b', null]);
    const has = this.model.rows.of(host).some((one) => one.name === name);
    if (has && this.#random() < 0.3) {
      await setCredentials(host, name, null);
      this.learn();
      this.model.rows.remove(host, name);
      return;
    }
    if (name === null) return this.#give(host, name, this.#pick(['alice', 'bob', 'operator'] as const));
    const taken = this.model.rows.of(host).flatMap((one) => (one.name === name ? [] : one.for));
    const pattern = this.#pick(PATTERNS.filter((one) => !taken.includes(one)));
    const owner = pattern === 'team/one' ? 'alice' : 'bob';
    // Mostly the account that opens it: what is denied is forgotten, and shows nothing.
    const user = this.#random() < 0.7 ? owner : this.#pick(['alice', 'bob', 'operator'] as const);
    await this.#give(host, name, user, [pattern]);
  }

  async #give(host: string, name: string | null, user: keyof typeof USERS, patterns: string[] = []): Promise<void> {
    await setCredentials(host, name, user, patterns);
    // What still came by those before.
    this.learn();
    this.model.rows.set(host, name, user, patterns);
  }

  learn(): void {
    for (const registry of registries) this.model.learn(registry, registry.takeEvents());
  }

  #pick<T>(from: readonly T[]): T {
    const picked = from[Math.floor(this.#random() * from.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }

  #ownedRegistry(): ScriptedRegistry {
    return this.#pick(registries.filter(({ host }) => host === 'owned.example'));
  }

  #place(): { registry: ScriptedRegistry; name: string; repository: Repository } {
    // Where most can go wrong most is done.
    const registry = this.#random() < 0.3 ? this.#ownedRegistry() : this.#pick(registries);
    const name = this.#pick(REPOSITORIES);
    return { registry, name, repository: registry.repository(name) };
  }

  /** An image of some blobs; a hostile registry's names blobs of others in fields that its type does not define, and in those that it does. */
  #push(): void {
    const { registry, name, repository } = this.#place();
    const isOwned = registry.host === 'owned.example';
    const half = this.#owned.length / 2;
    const [mine, others] =
      name === 'team/one'
        ? [this.#owned.slice(0, half), this.#owned.slice(half)]
        : [this.#owned.slice(half), this.#owned.slice(0, half)];
    const all = isOwned ? mine : this.#blobs;
    const blobs = [this.#pick(all), this.#pick(all)];
    const evil = registry.host === 'evil.example' && this.#random() < 0.7;
    // An owner can name another's content too; the registry takes any digest.
    const steals = isOwned && this.#random() < 0.5;
    const named = evil || steals ? [this.#pick(steals ? others : [...this.#blobs, ...this.#owned])] : blobs;
    const descriptor = ({ digest, bytes }: Item) => ({
      mediaType: 'application/octet-stream',
      digest,
      size: bytes.length,
    });
    const unchecked = evil ? { blobs: this.#blobs.map(descriptor), manifests: this.#blobs.map(descriptor) } : {};
    const [config] = named;
    const body = {
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: config === undefined ? undefined : descriptor(config),
      layers: named.map(descriptor),
      ...unchecked,
      annotations: { at: registry.host + String(this.#random()) },
    };
    const bytes = Buffer.from(JSON.stringify(body));
    const names = named.map(({ digest }) => digest);
    const manifest: Item = { digest: sha256(bytes), bytes, manifest: { mediaType: MANIFEST, names } };
    if (!evil && !steals) for (const blob of blobs) repository.items.set(blob.digest, blob);
    this.#put(registry, name, repository, manifest);
    repository.tags.set(this.#pick(['1', '2']), manifest.digest);
    const [stolen] = named;
    if (steals && stolen !== undefined) {
      // Its owner has it pulled, the thief's manifest is read, and then it is asked for by that.
      const owner = name === 'team/one' ? 'team/two' : 'team/one';
      registry.repository(owner).items.set(stolen.digest, stolen);
      this.#plan.push({ name: owner, item: stolen }, { name, item: manifest }, { name, item: stolen });
    }
    // The same manifest elsewhere, as another type says: each registry's word is for itself alone.
    const isPrivate = (host: string) => ['hidden.example', 'owned.example'].includes(host);
    if (!isPrivate(registry.host) && this.#random() < 0.3) {
      const other = this.#place();
      if (isPrivate(other.registry.host)) return;
      if (other.registry.host === 'evil.example') other.repository.types.set(manifest.digest, DOCKER_MANIFEST);
      this.#put(other.registry, other.name, other.repository, manifest);
      for (const digest of names) {
        const blob = this.#everything.get(digest);
        if (blob !== undefined && repository.items.has(digest)) other.repository.items.set(digest, blob);
      }
    }
  }

  #put(registry: ScriptedRegistry, name: string, repository: Repository, manifest: Item): void {
    repository.items.set(manifest.digest, manifest);
    this.#everything.set(manifest.digest, manifest);
    const key = `${registry.host} ${name} ${manifest.digest}`;
    const types = this.#stated.get(key) ?? new Set();
    types.add(repository.types.get(manifest.digest) ?? MANIFEST);
    this.#stated.set(key, types);
  }

  #remove(): void {
    const { repository } = this.#place();
    const [digest] = repository.items.keys();
    if (digest !== undefined) repository.items.delete(digest);
  }

  #close(): void {
    const repository = this.#pick(registries).repository(this.#pick(REPOSITORIES));
    if (this.#random() < 0.5) repository.closed = this.#pick([401, 403] as const);
    else if (repository.items.size > 0) repository.closedDigests.add(this.#pick([...repository.items.keys()]));
  }

  #open(): void {
    const { repository } = this.#place();
    repository.closed = null;
    repository.closedDigests.clear();
  }

  #lie(): void {
    const evil = registries.find(({ host }) => host === 'evil.example');
    if (evil !== undefined) evil.lie = this.#pick<Lie>(['none', 'heads', 'page', 'wrong']);
  }

  #power(): void {
    const registry = this.#pick(registries);
    registry.off = true;
    this.#offFor = OFF_STEPS;
  }

  async #pull(): Promise<void> {
    const planned = this.#random() < 0.5 ? this.#plan.shift() : undefined;
    const place = this.#place();
    const registry = planned === undefined ? place.registry : this.#ownedRegistry();
    const name = planned?.name ?? place.name;
    const repository = registry.repository(name);
    const all = [...this.#everything.values()];
    // Mostly what is there, and often enough what is not.
    const here = [...repository.items.values()];
    const named = registry.host === 'owned.example' && this.#random() < 0.5 ? this.#pick(this.#owned) : undefined;
    const item =
      planned?.item ?? named ?? (here.length > 0 && this.#random() < 0.6 ? this.#pick(here) : this.#pick(all));
    const byTag = planned === undefined && item.manifest !== null && this.#random() < 0.4;
    const what = item.manifest !== null ? 'manifests' : this.#random() < 0.03 ? 'referrers' : 'blobs';
    const { length } = item.bytes;
    const from = Math.floor(this.#random() * length);
    const asked: Asked = {
      registry,
      repository: name,
      what,
      reference: byTag ? this.#pick(['1', '2']) : item.digest,
      method: this.#random() < 0.2 ? 'HEAD' : 'GET',
      user: planned !== undefined || this.#random() < 0.5,
      way: this.#pick(['alias', 'prefix', 'ns'] as const),
      range:
        what === 'blobs' && this.#random() < 0.3
          ? {
              from,
              to: this.#random() < 0.5 ? undefined : Math.min(length, from + 1 + Math.floor(this.#random() * 5_000)),
            }
          : null,
    };
    const knownBefore = (digest: string) => this.model.mayServe(registry.host, name, digest);
    const before = new Map(all.map(({ digest }) => [digest, knownBefore(digest)]));
    const received = await ask(asked, this.#random() < 0.9 ? this.#pick(agents) : undefined);
    this.learn();
    if (what !== 'referrers') this.#judge(asked, received, before);
  }

  #judge(asked: Asked, received: Received, before: ReadonlyMap<string, boolean>): void {
    const { registry, repository: name, what, reference, method, user, range } = asked;
    const { status } = received;
    const repository = registry.repository(name);
    const facts = JSON.stringify({
      ...asked,
      registry: registry.host,
      lie: registry.lie,
      off: registry.off,
      status,
      text: received.text.slice(0, 300),
    });
    const opener = this.model.rows.opener(registry.host, name);
    const admitted = user || opener === null || this.model.public.has(registry.host);
    const served = status === 200 || status === 206;
    if (!admitted) {
      expect(status, facts).toBe(403);
      return;
    }
    const key = `${registry.host} ${name} ${reference}`;
    if (!served || received.error !== null || !received.whole) {
      this.refused++;
      this.#judgeRefusal(asked, received, before, facts);
      if (status !== 416) this.#troubled.set(key, performance.now());
      if (registry.off || registry.lie !== 'none') this.#troubled.set(registry.host, performance.now());
      return;
    }
    this.served++;
    const digest = String(received.headers['docker-content-digest']);
    const item = this.#everything.get(digest);
    // An answer to HEAD alone may be the registry's own word, passed on.
    if (method === 'HEAD' && item === undefined) return;
    expect(item, `what was served is nothing that any registry holds: ${facts}`).toBeDefined();
    if (item === undefined) return;
    if (reference.startsWith('sha256:')) expect(digest, facts).toBe(reference);
    // A part comes before its digest can be known: a hostile registry's own clients get its own bytes, nobody else does.
    const own = range !== null && registry.host === 'evil.example';
    if (method === 'GET' && !own) {
      const right = range === null || status === 200 ? item.bytes : item.bytes.subarray(range.from, range.to);
      expect(received.body.equals(right), `wrong bytes: ${facts}`).toBe(true);
    }
    const gives =
      !registry.off &&
      isOpened(registry, name, opener) &&
      repository.closed === null &&
      !repository.closedDigests.has(digest) &&
      repository.items.has(digest);
    const knows = before.get(digest) === true || this.model.mayServe(registry.host, name, digest);
    // What HEAD tells is the registry's own claim; no byte of it is known by that.
    const claimed = method === 'HEAD' && this.model.knows(registry.host, name, digest);
    expect(gives || knows || claimed, `served what this repository must not have: ${facts}`).toBe(true);
    if (what === 'manifests' && method === 'GET') {
      const types = this.#stated.get(`${registry.host} ${name} ${digest}`) ?? new Set([item.manifest?.mediaType ?? '']);
      expect([...types], `another registry's media type: ${facts}`).toContain(received.headers['content-type']);
    }
  }

  /** What an honest registry gives now, and gave no reason to doubt lately, is served. */
  #judgeRefusal(asked: Asked, received: Received, before: ReadonlyMap<string, boolean>, facts: string): void {
    const { registry, repository: name, reference, range } = asked;
    if (registry.host === 'evil.example' || received.status === 416) return;
    const now = performance.now();
    const keys = [registry.host, `${registry.host} ${name} ${reference}`];
    if (registry.off) keys.push('');
    if (keys.some((key) => now - (this.#troubled.get(key) ?? Number.NEGATIVE_INFINITY) < MEMORY_MS)) return;
    const repository = registry.repository(name);
    const digest = reference.startsWith('sha256:') ? reference : repository.tags.get(reference);
    if (digest === undefined) return;
    const opener = this.model.rows.opener(registry.host, name);
    const open =
      isOpened(registry, name, opener) && repository.closed === null && !repository.closedDigests.has(digest);
    const gives = !registry.off && open && repository.items.has(digest);
    expect(
      gives && range === null,
      `refused what its registry gives (known before: ${before.get(digest)}): ${facts}`,
    ).toBe(false);
  }
}

/** Whether the account that a repository is asked for with opens it at its registry. */
function isOpened({ login }: ScriptedRegistry, repository: string, opener: ModelCredentials | null): boolean {
  return login === null || (opener !== null && login.opens(opener.username, repository));
}

test(
  `who may have what, in ${STEPS} random steps of seed ${SEED}`,
  async () => {
    const world = new World(SEED);
    await world.begin();
    const every = Math.ceil(STEPS / (RESTARTS + 1));
    for (let step = 1; step <= STEPS; step++) {
      try {
        await world.step();
      } catch (error) {
        throw new Error(`step ${step} of seed ${SEED}`, { cause: error });
      }
      if (step % CHANGE_EVERY === 0) await world.changeCredentials();
      if (step % every !== 0) continue;
      await gateway.stop();
      await gateway.start();
      world.learn();
      await world.turnPublic();
    }
    // Both outcomes must be common, or the steps show nothing.
    expect(world.served).toBeGreaterThan(STEPS / 10);
    expect(world.refused).toBeGreaterThan(STEPS / 10);
  },
  120_000 + STEPS * 100,
);
