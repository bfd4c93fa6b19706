import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { floors } from '../../scripts/lib/floors.ts';
import { CLIENT_KINDS } from '../../src/admin/contract.ts';
import { seedRows } from '../../src/aliases/yaml.ts';
import { ENVIRONMENT } from '../../src/config/schema.ts';
import { CATALOGUE } from '../../src/oci/errors.ts';

const read = (name: string) => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');

/** Text as a cell of a Markdown table shows it. */
const cell = (text: string) => text.replace(/[<|]/g, '\\$&');

describe.each(['README.md', 'README.zh-CN.md'])('%s', (name) => {
  const readme = read(name);

  it('has every key of the configuration with its variable, and no other', () => {
    const expected = [...ENVIRONMENT].map(([variable, path]) => {
      const key = path.reduce<string>(
        (left, part) => (typeof part === 'number' ? `${left}[${part}]` : left === '' ? part : `${left}.${part}`),
        '',
      );
      return `| \`${key}\` | \`${variable}\` |`;
    });
    expect(expected.filter((row) => !readme.includes(row))).toEqual([]);
    const variables = new Set(readme.match(/GATEWAY_[A-Z_]+/g));
    variables.delete('GATEWAY_CONFIG');
    expect([...variables].sort()).toEqual([...ENVIRONMENT.keys()].sort());
  });

  it('names every client', () => {
    for (const kind of CLIENT_KINDS) expect(readme).toContain(kind);
  });

  it('has every room on its floor', () => {
    const picture = readme.match(/```\n(floor 6[\s\S]*?)```/)?.[1]?.split(/\n(?=floor)/) ?? [];
    expect(picture).toHaveLength(7);
    for (const { name: room, floor } of floors.rooms) {
      const shown = room === 'gateway' ? 'gateway.ts' : `${room}/`;
      expect(
        picture.find((part) => part.includes(`floor ${floor}`)),
        room,
      ).toContain(shown);
    }
  });
});

describe('README.md', () => {
  const readme = read('README.md');

  it('has the catalogue of errors, row by row', () => {
    const expected = Object.values(CATALOGUE).map(
      ({ status, code, message, next }) => `| ${status} | \`${code}\` | ${cell(message)} | ${cell(next)} |`,
    );
    expect(readme.split('\n').filter((line) => /^\| \d{3} \|/.test(line))).toEqual(expected);
  });

  it('has the aliases of a new table', () => {
    const expected = seedRows().flatMap(({ host, aliases }) => aliases.map(({ name }) => `\`${name}\` → ${host}`));
    expect(expected.length).toBeGreaterThan(0);
    expect((readme.match(/`[a-z0-9-]+` → [a-z0-9.]+[a-z]/g) ?? []).sort()).toEqual(expected.sort());
  });
});
