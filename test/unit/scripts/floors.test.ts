import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { checkFloors, floors } from '../../../scripts/lib/floors.ts';

/** A tree that stands: one file in every room, and the packages that rooms may import. */
const STANDING: Readonly<Record<string, string>> = {
  'src/kit/a.ts': 'export const a = 1;\n',
  'src/oci/a.ts': "export { a } from '../kit/a.ts';\n",
  'src/config/a.ts': 'export {};\n',
  'src/telemetry/a.ts': 'export {};\n',
  'src/aliases/a.ts': "import type {} from '../oci/a.ts';\n",
  'src/certs/a.ts': 'export {};\n',
  'src/cache/a.ts': 'export {};\n',
  'src/upstream/a.ts': "import 'undici';\n",
  'src/access/a.ts': 'export {};\n',
  'src/policy/a.ts': 'export {};\n',
  'src/images/a.ts': 'export {};\n',
  'src/clients/a.ts': 'export {};\n',
  'src/cluster/a.ts': 'export {};\n',
  'src/proxy/a.ts': "import '../cache/a.ts';\nimport '../upstream/a.ts';\n",
  'src/sqlite/a.ts': "import 'better-sqlite3';\n",
  'src/postgres/a.ts': "import 'pg';\n",
  'src/s3/a.ts': "import '@aws-sdk/client-s3';\n",
  'src/acme/a.ts': "import 'acme-client';\n",
  'src/dns/a.ts': "import '../certs/a.ts';\n",
  'src/warm/a.ts': "import '../images/a.ts';\n",
  'src/edge/a.ts': "import '../proxy/a.ts';\n",
  'src/admin/a.ts': 'export {};\n',
  'src/workers/a.ts': 'export {};\n',
  'src/server/a.ts': "import './stores.ts';\nimport '../edge/a.ts';\n",
  'src/server/stores.ts': "import '../sqlite/a.ts';\n",
  'src/dashboard/a.ts': "import '../admin/a.ts';\n",
  'src/main.ts': "import './cli/a.ts';\n",
  'src/cli/a.ts': "import '../server/a.ts';\n",
  'package.json': JSON.stringify({
    type: 'module',
    dependencies: { undici: '*', 'better-sqlite3': '*', 'acme-client': '*', pg: '*', '@aws-sdk/client-s3': '*' },
    devDependencies: { vitest: '*' },
  }),
  ...Object.fromEntries(
    ['undici', 'better-sqlite3', 'acme-client', 'pg', '@aws-sdk/client-s3', 'vitest'].flatMap((name) => [
      [`node_modules/${name}/package.json`, JSON.stringify({ name, version: '1.0.0', main: 'index.js' })],
      [`node_modules/${name}/index.js`, 'module.exports = {};\n'],
    ]),
  ),
};

/** For every rule of the table, a change that breaks it and nothing else. */
const BREAKING: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'kit-looks-down-only': { 'src/kit/b.ts': "import '../oci/b.ts';\n", 'src/oci/b.ts': 'export {};\n' },
  'oci-looks-down-only': { 'src/oci/b.ts': "import '../config/a.ts';\n" },
  'config-looks-down-only': { 'src/config/b.ts': "import '../telemetry/a.ts';\n" },
  'telemetry-looks-down-only': { 'src/telemetry/b.ts': "import type {} from '../config/a.ts';\n" },
  'aliases-looks-down-only': { 'src/aliases/b.ts': "import '../certs/a.ts';\n" },
  'certs-looks-down-only': { 'src/certs/b.ts': "import '../acme/a.ts';\n" },
  'cache-looks-down-only': { 'src/cache/b.ts': "await import('../upstream/a.ts');\n" },
  'upstream-looks-down-only': { 'src/upstream/b.ts': "export * from '../cache/a.ts';\n" },
  'access-looks-down-only': { 'src/access/b.ts': "import '../sqlite/a.ts';\n" },
  'cluster-looks-down-only': { 'src/cluster/b.ts': "import '../cache/a.ts';\n" },
  'clients-looks-down-only': { 'src/clients/b.ts': "import '../aliases/a.ts';\n" },
  'policy-looks-down-only': { 'src/policy/b.ts': "import '../cache/a.ts';\n" },
  'images-looks-down-only': { 'src/images/b.ts': "import '../upstream/a.ts';\n" },
  'proxy-looks-down-only': { 'src/proxy/b.ts': "import '../edge/b.ts';\n", 'src/edge/b.ts': 'export {};\n' },
  'sqlite-looks-down-only': { 'src/sqlite/b.ts': "import '../acme/a.ts';\n" },
  'postgres-looks-down-only': { 'src/postgres/b.ts': "import '../sqlite/a.ts';\n" },
  's3-looks-down-only': { 'src/s3/b.ts': "import '../sqlite/a.ts';\n" },
  'dns-looks-down-only': { 'src/dns/b.ts': "import '../acme/a.ts';\n" },
  'warm-looks-down-only': { 'src/warm/b.ts': "import '../proxy/a.ts';\n" },
  'acme-looks-down-only': { 'src/acme/b.ts': "import '../proxy/a.ts';\n" },
  'edge-looks-down-only': { 'src/edge/b.ts': "import '../admin/a.ts';\n" },
  'admin-looks-down-only': { 'src/admin/b.ts': "import '../edge/a.ts';\n" },
  'workers-looks-down-only': { 'src/workers/b.ts': "import '../server/a.ts';\n" },
  'server-looks-down-only': { 'src/server/b.ts': "import '../cli/b.ts';\n", 'src/cli/b.ts': 'export {};\n' },
  'dashboard-looks-down-only': { 'src/dashboard/b.ts': "import '../server/a.ts';\n" },
  'better-sqlite3-only-in-sqlite': { 'src/cache/b.ts': "import 'better-sqlite3';\n" },
  'pg-only-in-postgres': { 'src/sqlite/b.ts': "import 'pg';\n" },
  '@aws-sdk-only-in-s3': { 'src/cache/b.ts': "import '@aws-sdk/client-s3';\n" },
  'acme-client-only-in-acme': { 'src/certs/b.ts': "import type {} from 'acme-client';\n" },
  'undici-only-in-upstream': { 'src/edge/b.ts': "import 'undici';\n" },
  'stores-are-chosen-in-one-file': { 'src/server/b.ts': "import '../sqlite/a.ts';\n" },
  'no-cycles': { 'src/cache/b.ts': "import './c.ts';\n", 'src/cache/c.ts': "import './b.ts';\n" },
  'src-stands-alone': { 'src/cli/b.ts': "import '../../test/b.ts';\n", 'test/b.ts': 'export {};\n' },
  'no-dev-packages': { 'src/cli/b.ts': "import 'vitest';\n" },
  resolvable: { 'src/cli/b.ts': "import './not-there.ts';\n" },
};

/** Nothing in src lies above it, so nothing can break this one; it starts to matter when a floor is added. */
const TOP_FLOOR = 'cli-looks-down-only';

const made: string[] = [];
afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function tree(...layers: Readonly<Record<string, string | null>>[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'floors-'));
  made.push(folder);
  for (const [path, text] of Object.entries(Object.assign({}, ...layers) as Record<string, string | null>)) {
    if (text === null) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

describe('the floors', () => {
  it('lets a tree stand whose imports all lead down', async () => {
    const report = await checkFloors(tree(STANDING));
    expect(report.problems).toEqual([]);
    expect(report.seen).toBe(report.files);
    expect(report.files).toBe(Object.keys(STANDING).filter((path) => path.startsWith('src/')).length);
  });

  it('has a breaking example for every rule', () => {
    const names = floors.forbidden.map(({ name }) => name).filter((name) => name !== TOP_FLOOR);
    expect(Object.keys(BREAKING).sort()).toEqual(names.sort());
  });

  it.each(Object.entries(BREAKING))('%s bites', async (name, change) => {
    const report = await checkFloors(tree(STANDING, change));
    expect(report.broken).toEqual([name]);
  });

  it('reports a file in no room', async () => {
    const report = await checkFloors(tree(STANDING, { 'src/attic/a.ts': 'export {};\n' }));
    expect(report.problems).toEqual([expect.stringContaining('in no room: src/attic/a.ts')]);
  });

  it('reports a file that was not read', async () => {
    const blind = { ...floors.options, exclude: { path: '^src/access/' } };
    const report = await checkFloors(tree(STANDING), blind);
    expect(report.problems).toEqual(['not read: src/access/a.ts']);
    expect(report.seen).toBe(report.files - 1);
  });

  it('reports a room that has lost its files', async () => {
    const report = await checkFloors(tree(STANDING, { 'src/access/a.ts': null }));
    expect(report.problems).toEqual(['a room without files: access']);
  });
});
