import { afterAll, expect, test } from 'vitest';
import { parseImagePattern } from '../../src/config/images.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts';
import { CooldownModel, type ModelRules } from '../support/cooldown-model/model.ts';
import { FakeRegistry, sha256 } from '../support/fake-registry/index.ts';
import { type Answered, RegistryBed } from '../support/registry-bed.ts';

// Tags that move at random through two repositories, asked for by every door, against a model that knows all that the registry ever answered.

/** The runs of every build; `GATEWAY_TEST_COOLDOWN` runs that many more seeds, `GATEWAY_TEST_SEED` that one alone. */
const SEEDS = process.env.GATEWAY_TEST_SEED
  ? [Number(process.env.GATEWAY_TEST_SEED)]
  : Array.from({ length: 12 + Number(process.env.GATEWAY_TEST_COOLDOWN ?? 0) }, (_, seed) => seed + 1);
const STEPS = 400;

const SECOND = 1_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const HUB = 'docker.io';
const REPOSITORIES = ['team/a', 'team/b'];
const TAGS = ['v1', 'v2', 'edge'];
const LAYERS = Array.from({ length: 8 }, (_, at) => `layer ${at}`.repeat(50));

/** What the cooldown may be for, in patterns and in words of the model. */
const EXCEPTIONS: readonly (readonly [patterns: readonly string[], excepts: ModelRules['excepts']])[] = [
  [[], () => false],
  [['!docker.io/team/b'], (repository) => repository === 'team/b'],
  [['!*:edge'], (_, tag) => tag === 'edge'],
  [['!*@*'], (_, tag) => tag === null],
  [['docker.io/team/a'], (repository) => repository !== 'team/a'],
];
const REFUSALS: readonly (readonly [patterns: readonly string[], refuses: ModelRules['refuses'], tags: boolean])[] = [
  [[], () => false, false],
  [['!docker.io/team/b'], (repository) => repository === 'team/b', false],
  [['!*:v1'], (_, tag) => tag === 'v1', true],
];

let moves = 0;
afterAll(() => {
  if (SEEDS.length >= 12) expect(moves).toBeGreaterThan(1_000);
});

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

class Run {
  readonly #bed: RegistryBed;
  readonly #fake: FakeRegistry;
  readonly #chance: () => number;
  readonly #tagTtl: number;
  readonly #model = new CooldownModel();
  #rules: ModelRules = { cooldown: 3 * DAY, excepts: () => false, refuses: () => false, refusesTags: false };
  #needsNames = true;
  #read = 0;
  /** All bytes that were ever pushed, and what manifests name. */
  readonly #content = new Map<string, { readonly bytes: Buffer; readonly children: readonly string[] | null }>();
  readonly story: string[] = [];

  constructor(bed: RegistryBed, fake: FakeRegistry, chance: () => number, tagTtl: number) {
    this.#bed = bed;
    this.#fake = fake;
    this.#chance = chance;
    this.#tagTtl = tagTtl;
  }

  async step(): Promise<void> {
    // Nothing that is remembered for seconds is remembered by the next step.
    this.#bed.clock += 10 * SECOND;
    const dice = this.#chance();
    if (dice < 0.3) this.#push();
    else if (dice < 0.4) this.#bed.clock += Math.floor(this.#chance() * 1.5 * DAY);
    else if (dice < 0.6) await this.#askTag();
    else if (dice < 0.75) await this.#askManifest();
    else if (dice < 0.9) await this.#askBlob();
    else if (dice < 0.93) this.#delete();
    else if (dice < 0.95) this.#evict();
    else if (dice < 0.97) await this.#restart();
    else this.#change();
    this.#hear();
  }

  #one<T>(of: readonly T[]): T {
    return of[Math.floor(this.#chance() * of.length)] as T;
  }

  #repository() {
    const name = this.#one(REPOSITORIES);
    return { name, content: this.#fake.repository(name) };
  }

  /** An image, an index, or what is there already, under a tag or none. */
  #push(): void {
    const { name, content } = this.#repository();
    const tag = this.#chance() < 0.8 ? this.#one(TAGS) : undefined;
    const kind = this.#chance();
    const there = [...content.manifests.keys()];
    let digest: string;
    if (kind < 0.5 || there.length === 0) digest = this.#pushImage(name, tag);
    else if (kind < 0.75) {
      const images = there.filter((each) => content.manifest(each)?.mediaType === OCI_MANIFEST);
      const parts = [...new Set([this.#pushImage(name, undefined), this.#one(images) ?? '', this.#one(images) ?? ''])];
      const index = content.addIndex(
        tag,
        parts.flatMap((each) => content.manifest(each) ?? []),
      );
      digest = index.digest;
      this.#keep(
        name,
        digest,
        index.body,
        parts.filter((each) => each !== ''),
      );
    } else {
      digest = this.#one(there);
      if (tag !== undefined) content.tags.set(tag, digest as never);
    }
    if (tag !== undefined) moves++;
    this.story.push(`${name}:${tag ?? '-'} is ${digest.slice(7, 15)}`);
  }

  #pushImage(name: string, tag: string | undefined): string {
    const layers = [this.#one(LAYERS), this.#one(LAYERS)];
    // Of few kinds, so that both repositories come to have the same ones.
    const image = this.#fake.repository(name).addImage(tag, layers, { label: `${Math.floor(this.#chance() * 40)}` });
    const parts = [image.config, ...image.layers];
    for (const part of parts) this.#keep(name, part.digest, part.read(0, part.size), null);
    this.#keep(name, image.digest, image.body, [...new Set(parts.map((part) => part.digest))]);
    return image.digest;
  }

  #keep(name: string, digest: string, bytes: Uint8Array, children: readonly string[] | null): void {
    this.#content.set(digest, { bytes: Buffer.from(bytes), children });
    if (children !== null) this.#model.pushed(name, digest, children);
  }

  #delete(): void {
    const { name, content } = this.#repository();
    const tag = this.#one(TAGS);
    const digest = content.tags.get(tag);
    content.tags.delete(tag);
    if (digest !== undefined && this.#chance() < 0.5) {
      content.manifests.delete(digest);
      for (const [other, of] of content.tags) if (of === digest) content.tags.delete(other);
    }
    this.story.push(`${name}:${tag} is deleted`);
  }

  #evict(): void {
    const digests = [...this.#content].filter(([, { children }]) => children !== null).map(([digest]) => digest);
    const gone = digests.filter(() => this.#chance() < 0.3);
    this.#bed.rig.index.removeManifests(gone as never);
    this.#bed.core.invalidate();
    this.story.push('manifests leave the cache');
  }

  async #restart(): Promise<void> {
    const crash = this.#chance() < 0.3;
    if (crash) this.#model.crashed();
    else {
      await this.#bed.history?.close();
      this.#model.written();
    }
    this.#bed.restartCore();
    this.story.push(crash ? 'it crashes' : 'it starts anew');
  }

  #change(): void {
    const [excepted, excepts] = this.#one(EXCEPTIONS);
    const [refused, refuses, refusesTags] = this.#one(REFUSALS);
    const cooldown = this.#one([null, DAY, 3 * DAY, 3 * DAY]);
    const [images, cooldownImages] = [refused, excepted].map((list) => list.map((one) => parseImagePattern(one)));
    this.#bed.setRules({ cooldown, images: images ?? [], cooldownImages: cooldownImages ?? [] });
    this.#rules = { cooldown, excepts, refuses, refusesTags };
    this.#needsNames = cooldown !== null || refusesTags;
    this.story.push(`rules: ${cooldown} ${excepted.join()} / ${refused.join()}`);
  }

  /** Learns what the registry has answered since. Nothing was pushed meanwhile. */
  #hear(sure = true): void {
    const { all } = this.#fake.log;
    const now = this.#bed.clock;
    for (const { kind, method, status, repository = '', reference = '' } of all.slice(this.#read)) {
      if (status !== 200 && status !== 206) continue;
      if (kind === 'blob') this.#model.shown(repository, reference, now, false);
      if (kind !== 'manifest') continue;
      const isTag = !reference.includes(':');
      const digest = isTag ? (this.#fake.repository(repository).tags.get(reference) ?? '') : reference;
      this.#model.shown(repository, digest, now, true);
      if (isTag) this.#model.tagShown(repository, reference, digest, now, sure);
      if (method === 'GET') this.#learn(repository, digest);
    }
    this.#read = all.length;
  }

  #learn(repository: string, digest: string): void {
    const children = this.#content.get(digest)?.children;
    if (children != null && this.#needsNames) this.#model.learnt(repository, digest, children);
  }

  async #askTag(): Promise<void> {
    const { name: repository, content } = this.#repository();
    const tag = this.#one(TAGS);
    const method = this.#one(['GET', 'HEAD'] as const);
    // What clients of another class were given may be unknown to this one.
    const other = this.#chance() < 0.15;
    const accept = other ? `${OCI_INDEX}, ${OCI_MANIFEST}` : undefined;
    const current = content.tags.get(tag) ?? null;
    const now = this.#bed.clock;
    // By what it knew before: what is learnt by this very answer counts for the next.
    const must = current === null ? null : this.#model.mustStandFor(this.#rules, { repository, tag, current }, now);
    const reply = await outcome(this.#bed.manifest(HUB, repository, tag, { method, accept }));
    this.#hear(!other);
    const what = `${method} ${repository}:${tag}, which is ${current?.slice(7, 15)}: ${told(reply)}`;
    this.story.push(what);
    const rules = this.#rules;
    if (rules.refuses(repository, tag)) return expect(reply, what).toBe('imageRefused');
    const believed = this.#tagTtl === 0;
    if (typeof reply !== 'string') {
      const digest = this.#check(reply, method, what);
      if (method === 'GET') this.#learn(repository, digest);
      // What it believed a while ago is as good as what the tag stands for now.
      const currents = believed ? [current ?? ''] : [current ?? '', digest, ...TAGS];
      const may = currents.some((each) =>
        this.#model.mayStandFor(rules, { repository, tag, current: each }, digest, now),
      );
      expect(may, what).toBe(true);
      if (believed && digest !== current) expect(reply.headers.warning, what).toContain(current);
    }
    if (!believed || other) return;
    if (current === null) return expect(reply, what).toBe('manifestUnknown');
    if (typeof reply === 'string') {
      expect(reply, what).toBe('imageTooYoung');
      // What it would give may be gone everywhere, and it is not known which of those that it may give that is.
      const isGone = [...this.#content.keys()].some(
        (each) =>
          !content.manifests.has(each) &&
          each !== current &&
          this.#model.mayStandFor(rules, { repository, tag, current }, each, now),
      );
      if (!isGone) expect(must, what).toBeNull();
    } else if (must === current) expect(reply.headers['docker-content-digest'], what).toBe(current);
  }

  async #askManifest(): Promise<void> {
    const digests = [...this.#content].filter(([, { children }]) => children !== null).map(([digest]) => digest);
    const { name: repository, content } = this.#repository();
    const method = this.#one(['GET', 'HEAD'] as const);
    const digest = this.#chance() < 0.1 ? sha256(`${this.#chance()}`) : this.#one(digests);
    if (digest === undefined) return;
    const reply = await outcome(this.#bed.manifest(HUB, repository, digest, { method }));
    this.#judge(
      `${method} ${repository}@${digest.slice(7, 15)}`,
      repository,
      digest,
      reply,
      content.manifests.has(digest),
    );
    if (typeof reply === 'string') return;
    this.#check(reply, method, digest);
    if (method === 'GET') this.#learn(repository, digest);
  }

  async #askBlob(): Promise<void> {
    const digests = [...this.#content].filter(([, { children }]) => children === null).map(([digest]) => digest);
    const { name: repository, content } = this.#repository();
    const digest = this.#one(digests);
    if (digest === undefined) return;
    const method = this.#one(['GET', 'GET', 'HEAD'] as const);
    const range = this.#one([undefined, undefined, 'bytes=0-9', 'bytes=-5', 'bytes=0-3,10-12']);
    const reply = await outcome(this.#bed.blob(HUB, repository, digest, { method, range }));
    const what = `${method} ${range ?? ''} ${repository} blob ${digest.slice(7, 15)}`;
    this.#judge(what, repository, digest, reply, content.blobs.has(digest));
    if (typeof reply !== 'string' && reply.status === 200) this.#check(reply, method, what, digest);
  }

  #judge(asked: string, repository: string, digest: string, reply: Answered | string, isThere: boolean): void {
    const now = this.#bed.clock;
    this.#hear();
    const what = `${asked}: ${told(reply)}`;
    this.story.push(what);
    if (typeof reply !== 'string') {
      expect(this.#model.mayGive(this.#rules, repository, digest, now), what).toBe(true);
      return;
    }
    if (this.#rules.refuses(repository, null)) expect(reply, what).toBe('imageRefused');
    if (reply === 'imageTooYoung') {
      expect(this.#model.mustBeOld(this.#rules, repository, digest, now), what).toBe(false);
    } else if (reply !== 'imageRefused') {
      expect(reply, what).toMatch(/^(?:manifest|blob|name)Unknown$/);
      expect(isThere, what).toBe(false);
    } else expect(this.#rules.refusesTags || this.#rules.refuses(repository, null), what).toBe(true);
  }

  /** The bytes are those of the digest. */
  #check(
    { body, headers }: Answered,
    method: string,
    what: string,
    of = headers['docker-content-digest'] ?? '',
  ): string {
    if (method === 'GET') expect(body.equals(this.#content.get(of)?.bytes ?? Buffer.alloc(0)), what).toBe(true);
    return of;
  }
}

/** The reply; the kind of the refusal where it is refused. */
async function outcome(asked: Promise<Answered>): Promise<Answered | string> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof RegistryError) return error.kind;
    throw error;
  }
}

function told(reply: Answered | string): string {
  return typeof reply === 'string'
    ? reply
    : `${reply.status} ${(reply.headers['docker-content-digest'] ?? '').slice(7, 15)}`;
}

test.each(SEEDS)(
  'nothing too young goes out by any door, and what is old enough does: seed %i',
  { timeout: 240_000 },
  async (seed) => {
    const chance = random(seed);
    const tagTtl = chance() < 0.7 ? 0 : 6 * HOUR;
    const fake = await FakeRegistry.start();
    const bed = await RegistryBed.start({ registries: { [HUB]: { fake } }, rules: { cooldown: 3 * DAY }, tagTtl });
    const run = new Run(bed, fake, chance, tagTtl);
    try {
      for (let step = 0; step < STEPS; step++) await run.step();
    } catch (error) {
      throw new Error(`seed ${seed}:\n${run.story.slice(-40).join('\n')}`, { cause: error });
    } finally {
      await bed.stop();
      await fake.close();
    }
  },
);
