import { existsSync, globSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { floors } from '../../scripts/lib/floors.ts';
import { seedRows } from '../../src/aliases/yaml.ts';
import { CLIENT_KINDS } from '../../src/clients/facts.ts';
import { KEY_ROWS, type KeyRow } from '../../src/config/settings.ts';

const root = (name: string) => new URL(`../../${name}`, import.meta.url);
const read = (name: string) => readFileSync(root(name), 'utf8');

/** The first two cells of a key's row. */
const rowStart = ({ key, variable }: KeyRow) => `| \`${key}\` |${variable === null ? '' : ` \`${variable}\``} |`;

/** The rows of the table of keys, which is the one whose rows name a variable or none between a key and a default. */
function configurationRows(readme: string): { readonly start: string; readonly doc: string }[] {
  const heading = /^\| \S+ \| \S+ \| \S+ \|\n\|---\|---\|---\|\n(?=\| `domain`)/m.exec(readme);
  const table = readme.slice((heading?.index ?? 0) + (heading?.[0].length ?? 0)).split('\n\n', 1)[0] ?? '';
  return table.split('\n').map((line) => {
    const [, start = line, doc = ''] = /^(\|[^|]*\|[^|]*\|) (.*) \|$/.exec(line) ?? [];
    return { start, doc };
  });
}

/** Values and keys, which no translation changes, each once. */
const codeIn = (text: string) => [...new Set(text.match(/`[^`]+`/g))].sort();

describe.each(['README.md', 'README.zh-CN.md'])('%s', (name) => {
  const readme = read(name);

  it('has every key of the configuration with its variable, in the order of its declaration, and no other', () => {
    expect(configurationRows(readme).map(({ start }) => start)).toEqual(KEY_ROWS.map(rowStart));
    const variables = new Set(readme.match(/GATEWAY_[A-Z0-9_]+/g));
    // They set no key.
    for (const name of ['GATEWAY_CONFIG', 'GATEWAY_DATABASE_PASSWORD_FILE']) variables.delete(name);
    expect([...variables].sort()).toEqual(KEY_ROWS.flatMap(({ variable }) => variable ?? []).sort());
  });

  it('has every default of the configuration as it is declared', () => {
    const shown = configurationRows(readme).map(({ doc }) => codeIn(doc));
    expect(shown).toEqual(KEY_ROWS.map(({ doc }) => codeIn(doc)));
  });

  it('names every client', () => {
    for (const kind of CLIENT_KINDS) expect(readme).toContain(kind);
  });

  it('has every room on its floor', () => {
    const picture = readme.match(/```\n(floor 6[\s\S]*?)```/)?.[1]?.split(/\n(?=floor)/) ?? [];
    expect(picture).toHaveLength(7);
    for (const { name: room, floor } of floors.rooms) {
      const shown = `${room}/`;
      expect(
        picture.find((part) => part.includes(`floor ${floor}`)),
        room,
      ).toContain(shown);
    }
  });
});

describe('README.md', () => {
  const readme = read('README.md');

  it('has what is declared of every key, word for word', () => {
    expect(configurationRows(readme).map(({ doc }) => doc)).toEqual(KEY_ROWS.map(({ doc }) => doc));
  });

  it('has the aliases of a new table', () => {
    const expected = seedRows().flatMap(({ host, aliases }) => aliases.map(({ name }) => `\`${name}\` → ${host}`));
    expect(expected.length).toBeGreaterThan(0);
    expect((readme.match(/`[a-z0-9-]+` → [a-z0-9.]+[a-z]/g) ?? []).sort()).toEqual(expected.sort());
  });
});

describe('what the documents point to', () => {
  it.each(['README.md', 'README.zh-CN.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md'])(
    'is there: %s',
    (name) => {
      const text = read(name);
      const code = [...text.matchAll(/`((?:src|test|scripts|deploy|aliases)\/[\w./-]*)`/g)];
      const links = [...text.matchAll(/\]\(([\w./-]+)\)/g)];
      const missing = [...code, ...links].map((match) => match[1] ?? '').filter((path) => !existsSync(root(path)));
      expect(missing).toEqual([]);
    },
  );

  it('are tests that hold the promises of SECURITY.md', () => {
    const rows = [...read('SECURITY.md').matchAll(/\| `(test\/[^`]+)`: \*(.+)\* \|$/gm)];
    expect(rows.length).toBeGreaterThan(20);
    const missing = rows.filter(
      ([, file = '', title = '']) => !read(file).includes(title.replaceAll("'", "\\'")) && !read(file).includes(title),
    );
    expect(missing.map(([row]) => row)).toEqual([]);
  });
});

describe('deploy/METRICS.md', () => {
  it('has every metric of the source, and no other', () => {
    const sources = globSync('src/**/*.ts', { cwd: root('') })
      .map(read)
      .join('\n');
    const made = [
      ...[...sources.matchAll(/metrics\s*\.(?:counter|gauge|histogram|tally|timings)\(\s*'([a-z_]+)'/g)].map(
        ([, name]) => name,
      ),
      ...[...sources.matchAll(/: '(cache_[a-z_]+_total)'/g)].map(([, name]) => name),
    ];
    const told = [...read('deploy/METRICS.md').matchAll(/^\| `gateway_([a-z_]+)` \|/gm)].map(([, name]) => name);
    expect(told.sort()).toEqual([...new Set(made)].sort());
  });
});
