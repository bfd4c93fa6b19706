import { afterEach, expect, test } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import { FakeRegistry, QUIRKS } from '../support/fake-registry/index.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { type GatewayClient, openClient, type Received } from '../support/http-client.ts';

const LIMIT = 100;
const JOBS = 500;
const IMAGES_OF_JOB = 40;
/** Jobs at a time. */
const WIDTH = 40;
const TAG_TTL_S = 1;
/** What an answer may be older than `cache.tagTtl` without a mark, ms: a HEAD that was answered before the tag moved, and took so long to come. */
const SLACK_MS = 5_000;
const ROBOT = 'robot';

const started: { close(): unknown }[] = [];

afterEach(async () => {
  for (const each of started.splice(0).reverse()) await each.close();
});

/** What a tag stands for, with when it began and ended to. */
interface Stood {
  readonly digest: string;
  /** Of an index, those of its platforms; else empty. */
  readonly children: readonly string[];
  readonly from: number;
  until: number;
}

interface Image {
  readonly repository: string;
  readonly stood: Stood[];
}

/** Images of a registry, whose tags move: one with each job. */
class Images {
  readonly all: Image[];
  readonly #fake: FakeRegistry;
  readonly #platforms: number;
  #moves = 0;

  constructor(fake: FakeRegistry, count: number, platforms: number) {
    this.#fake = fake;
    this.#platforms = platforms;
    this.all = Array.from({ length: count }, (_, i) => ({ repository: `library/app${i}`, stood: [] }));
    for (const image of this.all) this.#move(image);
  }

  moveOne(): void {
    const image = this.all[Math.floor(Math.random() * this.all.length)];
    if (image !== undefined) this.#move(image);
  }

  #move({ repository, stood }: Image): void {
    const held = this.#fake.repository(repository);
    const label = `${repository} ${this.#moves++}`;
    const children = Array.from({ length: this.#platforms }, (_, i) =>
      held.addImage(undefined, [`layer of ${label} ${i}`], { label: `${label} ${i}` }),
    );
    const { digest } =
      children.length > 0
        ? held.addIndex('1', children)
        : held.addImage('1', [`layer of ${label}`], { label, docker: this.#moves % 2 === 0 });
    const now = performance.now();
    const last = stood.at(-1);
    if (last !== undefined) last.until = now;
    stood.push({
      digest,
      children: children.map((child) => child.digest),
      from: now,
      until: Number.POSITIVE_INFINITY,
    });
  }
}

interface Outcome {
  answers: number;
  stale: number;
  readonly wrong: string[];
}

/** A job of CI: pulls its images, some as Docker does (by tag), some as containerd does (HEAD of the tag, GET by digest). */
class Job {
  readonly #client: GatewayClient;
  readonly #images: Images;
  readonly #outcome: Outcome;

  constructor(client: GatewayClient, images: Images, outcome: Outcome) {
    this.#client = client;
    this.#images = images;
    this.#outcome = outcome;
  }

  async run(number: number): Promise<void> {
    // Somebody has pushed.
    this.#images.moveOne();
    const chosen = [...this.#images.all].sort(() => Math.random() - 0.5).slice(0, IMAGES_OF_JOB);
    for (const [i, image] of chosen.entries()) {
      const stood = (i + number) % 3 === 0 ? await this.#asContainerd(image) : await this.#asDocker(image);
      const child = stood?.children[number % stood.children.length];
      if (child !== undefined) await this.#byDigest(image, child);
    }
  }

  async #asDocker(image: Image): Promise<Stood | undefined> {
    const began = performance.now();
    const answer = await this.#get(`/v2/${image.repository}/manifests/1`);
    const stood = this.#judge(image, answer, began);
    if (stood !== undefined && answer.digest !== stood.digest)
      this.#outcome.wrong.push(`${image.repository}: its bytes`);
    return stood;
  }

  async #asContainerd(image: Image): Promise<Stood | undefined> {
    const began = performance.now();
    const answer = await this.#get(`/v2/${image.repository}/manifests/1`, 'HEAD');
    const stood = this.#judge(image, answer, began);
    if (stood !== undefined) await this.#byDigest(image, stood.digest);
    return stood;
  }

  async #byDigest({ repository }: Image, digest: string): Promise<void> {
    const { status, digest: came, text } = await this.#get(`/v2/${repository}/manifests/${digest}`);
    if (status !== 200 || came !== digest)
      this.#outcome.wrong.push(`${repository}@${digest}: ${status} ${text.slice(0, 300)}`);
  }

  /** What the tag stood for that is answered. */
  #judge(image: Image, { status, headers, text }: Received, began: number): Stood | undefined {
    const digest = headers['docker-content-digest'];
    const stood = image.stood.find((one) => one.digest === digest);
    const isMarked = headers.warning !== undefined;
    this.#outcome.answers += 1;
    if (isMarked) this.#outcome.stale += 1;
    if (status !== 200 || stood === undefined)
      this.#outcome.wrong.push(`${image.repository}: ${status} ${digest} ${text.slice(0, 300)}`);
    else if (!isMarked && began > stood.until + TAG_TTL_S * 1000 + SLACK_MS)
      this.#outcome.wrong.push(`${image.repository}: not marked, ${Math.round(began - stood.until)} ms after it moved`);
    return stood;
  }

  #get(path: string, method = 'GET'): Promise<Received> {
    return this.#client.get(path, { method, headers: { accept: ACCEPT } });
  }
}

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

async function bed(): Promise<{ fake: FakeRegistry; gateway: TestGateway; client: GatewayClient }> {
  const fake = await FakeRegistry.start({
    ...QUIRKS.docker,
    auth: { ...QUIRKS.docker.auth, users: { [ROBOT]: 'secret' } },
    pullLimit: { limit: LIMIT },
  });
  started.push(fake);
  const gateway = await startGateway({ config: { cache: { tagTtl: `${TAG_TTL_S}s` } } });
  started.push(gateway);
  const set = [
    'registry',
    'set',
    'docker.io',
    '--endpoint',
    fake.url,
    '--username',
    ROBOT,
    '--password-stdin',
    '--public',
  ];
  const ran = await gateway.cli(set, { input: 'secret\n' });
  expect(ran.code, ran.stderr).toBe(0);
  const client = openClient(gateway);
  started.push(client);
  return { fake, gateway, client };
}

// The last: moved ones that are fetched at least, where the half that they may have is not used up by what was not here.
test.each([
  ['60 images of one platform', 60, 0, 0],
  // An index and two platforms each: what all of them cost once is less than the half of the limit that no moved tag takes.
  ['12 images of two platforms', 12, 2, 1],
])(
  `${JOBS} jobs pull ${IMAGES_OF_JOB} images each, %s, whose tags move, through one account that allows ${LIMIT} pulls`,
  async (_, count, platforms, fetched) => {
    const { fake, gateway, client } = await bed();
    const images = new Images(fake, count, platforms);
    const outcome: Outcome = { answers: 0, stale: 0, wrong: [] };
    let next = 0;
    await Promise.all(
      Array.from({ length: WIDTH }, async () => {
        while (next < JOBS) await new Job(client, images, outcome).run(next++);
      }),
    );

    expect(outcome.wrong.slice(0, 10)).toEqual([]);
    expect(outcome.answers).toBe(JOBS * Math.min(IMAGES_OF_JOB, count));
    expect([fake.pulls.refused(), fake.pulls.counted(ROBOT)]).toEqual([0, fake.pulls.counted()]);
    expect(fake.pulls.counted()).toBeLessThanOrEqual(LIMIT);
    // New ones were fetched while there was enough, and then old ones were given, with a mark.
    expect(fake.pulls.counted()).toBeGreaterThanOrEqual(count * (1 + platforms) + fetched);
    expect(outcome.stale).toBeGreaterThan(0);

    const { budgets } = JSON.parse(await gateway.ok('status', '--json')) as StatusReport;
    expect(budgets).toMatchObject([
      { registry: 'docker.io', endpoint: fake.url, account: ROBOT, limit: LIMIT, kind: 'pulls', windowSeconds: 21_600 },
    ]);
    expect(budgets[0]?.remaining).toBe(LIMIT - fake.pulls.counted());
    expect(await gateway.ok('status')).toMatch(
      /what registries allow[\s\S]*docker\.io\s+robot\s+\d+ of 100 pulls in 6 h/,
    );
    expect(await gateway.ok('registry', 'show', 'docker.io')).toMatch(/allows:\s+\d+ of 100 pulls in 6 h \(robot, /);
  },
  280_000,
);

test('a limit that is used up is told of by doctor, with what to do; what is kept is served over it', async () => {
  const { fake, gateway, client } = await bed();
  fake.repository('library/app').addImage('1', ['layer']);
  fake.repository('library/other').addImage('1', ['other']);
  expect((await client.get('/v2/library/app/manifests/1')).status).toBe(200);
  fake.pulls.spend(ROBOT, LIMIT);
  // A HEAD tells of it.
  expect((await client.get('/v2/library/other/manifests/1', { method: 'HEAD' })).status).toBe(200);
  const refused = await client.get('/v2/library/other/manifests/1');
  expect([refused.status, Number(refused.headers['retry-after'])]).toEqual([429, expect.any(Number)]);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(21_000);
  expect(refused.text).toContain(
    "docker.io limits pulls: the 100 pulls in 6 h that it allows this gateway's account are used up until ",
  );
  expect(refused.text).not.toContain(ROBOT);
  expect(fake.pulls.refused()).toBe(0);
  expect((await client.get('/v2/library/app/manifests/1')).status).toBe(200);
  const { checks } = JSON.parse((await gateway.cli(['doctor', '--json'])).stdout) as {
    checks: { name: string; level: string; message: string; next: string }[];
  };
  const [found] = checks.filter(({ name }) => name === 'budget docker.io');
  expect(found).toMatchObject({
    level: 'warn',
    message: expect.stringContaining('gives the account robot no more pulls until '),
    next: expect.stringContaining('gateway registry set docker.io --username U --password-stdin'),
  });
});
