import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { RegistryEntry } from '../../../src/aliases/table.ts';
import { Facts } from '../../../src/cache/facts.ts';
import type { CacheIndex } from '../../../src/cache/index-port.ts';
import { DEFAULT_CREDENTIAL, type NamedCredentials, openerOf } from '../../../src/oci/credentials.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import type { Digest } from '../../../src/oci/names.ts';
import { RepositoryAccess } from '../../../src/proxy/repository-access.ts';
import { SqliteCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { digestOf } from '../../conformance/cache-index.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

const home = mkdtempSync(join(tmpdir(), 'credentials-model-'));
afterAll(() => rmSync(home, { recursive: true, force: true }));

const STEPS = 4_000;
const SEED = Number(process.env.GATEWAY_TEST_SEED ?? randomInt(2 ** 31));
const HOSTS = ['one.example', 'two.example'];
const REPOSITORIES = ['a/app', 'a/tool', 'b/app'];
const PATTERNS = ['a/*', 'b/*', 'a/app', '*'];
const DIGESTS = Array.from({ length: 4 }, (_, at) => digestOf(`content ${at}`));

/** Random numbers that follow from a seed (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** One that was opened, by whom: an id, or null for nobody's credentials. */
interface Opened {
  readonly host: string;
  readonly repository: string;
  readonly digest: Digest;
  readonly by: number | null;
  readonly gave: boolean;
}

describe.each<[string, () => CacheIndex]>([
  ['memory', () => new MemoryCacheIndex()],
  [
    'SQLite',
    () => new SqliteCacheIndex(openDatabase(join(home, 'cache.db'), cacheMigrations, { durability: 'normal' })),
  ],
])('over the index in %s', (_, open) => {
  test(`no byte that only one account opened goes through a repository of another, in ${STEPS} steps of seed ${SEED}`, () => {
    const dice = random(SEED);
    const pick = <T>(from: readonly T[]): T => from[dice(from.length)] as T;
    let registries = new Map<string, RegistryEntry>();
    let ids = DEFAULT_CREDENTIAL;
    const index = open();
    let facts = new Facts(index, (error) => {
      throw error;
    });
    const make = () => new RepositoryAccess(() => ({ registries }) as never, facts);
    let access = make();
    let opened: Opened[] = [];

    const put = (host: string) => {
      const login = { username: 'user', password: 'secret' };
      const patterns = PATTERNS.filter(() => dice(2) === 0);
      const before = registries.get(host)?.named ?? [];
      const named = patterns.map((pattern, at): NamedCredentials => {
        // Mostly those that were there, with other repositories.
        const id = dice(3) > 0 ? before[at]?.id : undefined;
        return { name: `${at}`, id: id ?? ++ids, for: [pattern], ...login };
      });
      const credentials = dice(2) === 0 ? login : null;
      const row = { host, endpoints: [], proxy: null, realms: [], ca: null, public: dice(6) === 0, credentials, named };
      registries = new Map(registries).set(host, row);
      access.invalidate();
    };
    for (const host of HOSTS) put(host);

    /** The rule, from all that was ever opened. */
    const mayHave = (host: string, repository: string, digest: Digest): boolean => {
      const row = registries.get(host);
      if (row === undefined) return false;
      const opener = openerOf(row, repository);
      const own = opened.filter((one) => one.host === host && one.repository === repository && one.digest === digest);
      const count = own.filter(({ by }) => by === null || by === opener);
      if (count.some(({ gave }) => gave)) return true;
      const has = ({ host: at, by }: Opened) => {
        const giver = registries.get(at);
        const isThere =
          by === DEFAULT_CREDENTIAL ? giver?.credentials != null : giver?.named.some(({ id }) => id === by);
        return isThere === true && (giver?.public === true || (at === host && by === opener));
      };
      const isOpen = opened.some((one) => one.digest === digest && one.gave && (one.by === null || has(one)));
      return count.length > 0 && isOpen;
    };

    let served = 0;
    for (let step = 0; step < STEPS; step++) {
      const [host, repository, digest] = [pick(HOSTS), pick(REPOSITORIES), pick(DIGESTS)];
      const row = registries.get(host);
      if (row === undefined) throw new Error('no row');
      const key = { registry: host, repository };
      const what = dice(100);
      if (what < 4) put(host);
      else if (what < 8) {
        const all = dice(2) === 0;
        access.failed(all ? key : { ...key, digest }, new RegistryError('upstreamDenied', { denied: true }));
        opened = opened.filter(
          (one) => one.host !== host || one.repository !== repository || (!all && one.digest !== digest),
        );
      } else if (what < 14) facts.flushAll();
      else if (what < 16) {
        // As after a restart.
        facts.flushAll();
        facts = new Facts(index, (error) => {
          throw error;
        });
        access = make();
      } else if (what < 50) {
        const gave = dice(2) === 0;
        if (gave) access.gave(row, key, digest, access.denials.now);
        else access.said(row, key, [digest], access.denials.now);
        opened.push({ host, repository, digest, by: openerOf(row, repository), gave });
      } else if (access.mayServe(row, key, digest)) {
        served++;
        expect(mayHave(host, repository, digest), `step ${step} of seed ${SEED}: ${host}/${repository}`).toBe(true);
      }
    }
    expect(served).toBeGreaterThan(STEPS / 50);
    index.close();
  });
});
