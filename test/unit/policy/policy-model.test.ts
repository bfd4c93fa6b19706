import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { type ImageRule, imageRuleText, parseImageRules } from '../../../src/config/images.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import type { Digest, RepositoryKey, Target } from '../../../src/oci/names.ts';
import { ImagePolicy } from '../../../src/policy/image-policy.ts';
import { MemoryTags } from '../../support/memory-tags.ts';

// Random rules against a model that says the same in the plainest way: regular expressions, one rule after the other.

const ROUNDS = Number(process.env.GATEWAY_TEST_POLICIES ?? 200);
const SEED = Number(process.env.GATEWAY_TEST_SEED ?? randomInt(2 ** 31));

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

const REPOSITORIES: RepositoryKey[] = [
  { registry: 'docker.io', repository: 'library/nginx' },
  { registry: 'docker.io', repository: 'team/app' },
  { registry: 'quay.io', repository: 'team/app' },
];
const TAGS = ['1.0', '1.1', '2.0', 'latest'];
const DIGESTS = [...'abcdef'].map((letter) => `sha256:${letter.repeat(64)}` as Digest);
const NAMES = [
  '*',
  '*/*',
  'docker.io/*',
  'docker.io/nginx',
  'docker.io/library/*',
  '*/team/*',
  'quay.io/team/app',
  'index.docker.io/team/app',
  '*/app',
];
const ENDS = ['', '', '', ':latest', ':1.*', ':*', ':*.0', '@*', `@${DIGESTS[0]}`, '@sha256:b*'];
const WHOM = [{}, {}, {}, { users: ['ci'] }, { networks: ['10.0.0.0/8'] }, { users: ['ci'], networks: ['10.0.0.0/8'] }];
const CLIENTS = [
  { user: null, address: '192.0.2.1', inside: false },
  { user: 'ci', address: '192.0.2.1', inside: false },
  { user: null, address: '10.0.0.1', inside: true },
  { user: 'ci', address: '10.0.0.1', inside: true },
  { user: 'anna', address: '10.0.0.1', inside: true },
];
type Client = (typeof CLIENTS)[number];

class Model {
  readonly #rules: readonly ImageRule[];
  readonly #tags: MemoryTags;

  constructor(rules: readonly ImageRule[], tags: MemoryTags) {
    this.#rules = rules;
    this.#tags = tags;
  }

  /** Of an image with this tag, this digest, or both; the rules that count, in order. */
  #decide(
    key: RepositoryKey,
    client: Client,
    counts: (tag: string | undefined, digest: string | undefined, allows: boolean) => boolean,
  ): boolean {
    let passes = !this.#rules.some(({ allows }) => allows);
    for (const { pattern, allows, users, networks } of this.#rules) {
      const [, name = '', tag, digest] = /^(.*?)(?::([^/@]+))?(?:@(.+))?$/.exec(pattern) ?? [];
      if (users.length > 0 && !users.includes(client.user ?? '')) continue;
      if (networks.length > 0 && !client.inside) continue;
      const named = expression(name.replace('index.docker.io', 'docker.io'));
      const short = `${key.registry}/${key.repository}`.replace('docker.io/library/', 'docker.io/');
      if (!named.test(`${key.registry}/${key.repository}`) && !named.test(short)) continue;
      if (counts(tag, digest, allows)) passes = allows;
    }
    return passes;
  }

  tag(key: RepositoryKey, client: Client, asked: string): boolean {
    return this.#decide(
      key,
      client,
      (tag, digest) => digest === undefined && (tag === undefined || expression(tag).test(asked)),
    );
  }

  #tagged(key: RepositoryKey, client: Client, asked: string, of: Digest): boolean {
    return this.#decide(key, client, (tag, digest, allows) => {
      if (digest !== undefined) return !allows && expression(digest).test(of);
      return tag === undefined || expression(tag).test(asked);
    });
  }

  digest(key: RepositoryKey, client: Client, of: Digest): boolean {
    let opened = false;
    const plain = this.#decide(key, client, (tag, digest, allows) => {
      const counts = tag === undefined && (digest === undefined || expression(digest).test(of));
      if (counts) opened = allows && (opened || digest !== undefined);
      return counts;
    });
    if (opened) return true;
    // Where patterns for tags say nothing else than what holds without them, no tag has to be known.
    let differs = false;
    this.#decide(key, client, (tag, digest, allows) => {
      if (tag === undefined && (digest === undefined || expression(digest).test(of))) differs = false;
      else if (tag !== undefined && allows !== plain) differs = true;
      return false;
    });
    if (!differs) return plain;
    return [...this.#tags.of(key, of)].some((tag) => this.#tagged(key, client, tag, of));
  }
}

const expressions = new Map<string, RegExp>();

function expression(pattern: string): RegExp {
  const known = expressions.get(pattern);
  if (known !== undefined) return known;
  const made = new RegExp(
    `^${pattern
      .split('*')
      .map((part) => part.replace(/[.\\/:]/g, '\\$&'))
      .join('.*')}$`,
  );
  expressions.set(pattern, made);
  return made;
}

test(`${ROUNDS} lists of random rules decide as the model does (seed ${SEED})`, async () => {
  const next = random(SEED);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)] as T;
  const counts = { passed: 0, refused: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const rules = parseImageRules(
      Array.from({ length: Math.floor(next() * 7) }, () => ({
        image: `${next() < 0.5 ? '!' : ''}${pick(NAMES)}${pick(ENDS)}`,
        ...pick(WHOM),
      })),
    );
    const tags = new MemoryTags();
    for (let n = 0; n < 6; n++) tags.tag(pick(REPOSITORIES), pick(TAGS), pick(DIGESTS));
    for (let n = 0; n < 6; n++) tags.names(pick(REPOSITORIES), pick(DIGESTS), pick(DIGESTS));
    const policy = new ImagePolicy({ rules, history: tags });
    const model = new Model(rules, tags);
    const told = rules.map(imageRuleText).join(', ');
    for (const client of CLIENTS) {
      const audience = policy.audience(client.user, client.address);
      const compare = async (what: Target['what'], key: RepositoryKey, expected: boolean) => {
        const found = await passes(policy, { ...key, what }, audience);
        counts[found ? 'passed' : 'refused'] += 1;
        const agree = (one: boolean, other: boolean) => {
          if (one !== other) expect(one, JSON.stringify({ told, key, what, client })).toBe(other);
        };
        agree(found, expected);
        // A process that has other rules is never given more.
        if (!found) return;
        if (await passes(policy, { ...key, what }, 'of.others'))
          for (const { user, address } of CLIENTS)
            agree(await passes(policy, { ...key, what }, policy.audience(user, address)), true);
        if (what.kind === 'blob') agree(policy.mayPassForSomebody(key, what.digest), true);
      };
      for (const key of REPOSITORIES) {
        for (const tag of TAGS)
          await compare({ kind: 'manifest', reference: { kind: 'tag', tag } }, key, model.tag(key, client, tag));
        for (const digest of DIGESTS) {
          const expected = model.digest(key, client, digest);
          await compare({ kind: 'manifest', reference: { kind: 'digest', digest } }, key, expected);
          await compare({ kind: 'blob', digest }, key, expected);
        }
      }
    }
  }
  // Both happen, or the model proves nothing.
  expect(counts.passed).toBeGreaterThan(ROUNDS);
  expect(counts.refused).toBeGreaterThan(ROUNDS);
}, 120_000);

async function passes(policy: ImagePolicy, target: Target, audience: string): Promise<boolean> {
  try {
    await policy.admit(target, audience);
    return true;
  } catch (error) {
    if (error instanceof RegistryError && error.kind === 'imageRefused') return false;
    throw error;
  }
}
