import { describe, expect, it } from 'vitest';
import { type Block, blocksOf, readDocument } from '../support/documents.ts';

// Both READMEs say the same: whoever changes one changes the other.

const english = readDocument('README.md');
const chinese = readDocument('README.zh-CN.md');

const SECTIONS: Readonly<Record<string, string>> = {
  'Three ways to pull': '三种拉取方式',
  'Try it': '试一试',
  'A real deployment': '正式部署',
  'More than one machine': '多台机器',
  Clients: '客户端',
  Routes: '路由',
  Configuration: '配置',
  'What may pass': '哪些镜像可以通过',
  Cooldown: '冷却期',
  'When a registry limits pulls': '当仓库限制拉取次数时',
  'Private images of several owners': '多个所有者的私有镜像',
  'DNS-01': '用 DNS-01 证明域名',
  Commands: '命令',
  'Before a roll-out or an outage': '上线或断网之前',
  Errors: '错误',
  Performance: '性能',
  Architecture: '架构',
  Development: '开发',
};

interface Section {
  readonly heading: string;
  readonly text: string;
}

const outsideBlocks = (text: string): string => text.replace(/^```\w*\n[\s\S]*?^```$/gm, '');

const sectionsOf = (text: string): Section[] =>
  text
    .split(/^(?=#{2,} )/m)
    .slice(1)
    .map((part) => ({ heading: part.split('\n', 1)[0]?.replace(/^#+ /, '') ?? '', text: part }));

/** Its tables, each a list of rows, each a list of cells. */
const tablesOf = (text: string): string[][][] =>
  [...outsideBlocks(text).matchAll(/(?:^\|.*\|\n)+/gm)].map(([table]) =>
    table
      .trimEnd()
      .split('\n')
      .filter((row) => !/^[|-]+$/.test(row))
      .map((row) =>
        row
          .slice(2, -2)
          .split(/(?<!\\) \| /)
          .map((cell) => cell.trim()),
      ),
  );

/** What no translation changes: code and figures. */
const untranslated = (cell: string): string[] =>
  [...new Set(cell.match(/`[^`]+`|(?<![\w.])\d+(?:[.,]\d+)*(?![\w])/g))].sort();

const cjk = /\p{Script=Han}/u;

/** A block without what may be translated in it: comments, the labels of a drawing, what is said of each room. */
function bareLines({ language, lines }: Block): string[] {
  return lines.map((line) => {
    if (language === 'mermaid') {
      return line
        .replace(/(["'(]).*\1/g, '$1$1')
        .replace(/"[^"]*"/g, '""')
        .replace(/-- .* -->/, '-->')
        .replace(/-\. .* \.->/, '-.->');
    }
    if (/^(floor \d| {9})/.test(line)) return /^(?:floor \d)?\s+\S+(?:, \S+)*/.exec(line)?.[0] ?? line;
    return line.replace(/\s+#.*$/, '');
  });
}

describe('README.zh-CN.md', () => {
  const level = ({ text }: Section) => /^#+/.exec(text)?.[0];

  it('has the sections of README.md, in their order', () => {
    expect(sectionsOf(chinese).map(level)).toEqual(sectionsOf(english).map(level));
    const expected = sectionsOf(english).map(
      ({ heading }) => SECTIONS[heading] ?? `(no translation of "${heading}" in this test)`,
    );
    expect(sectionsOf(chinese).map(({ heading }) => heading)).toEqual(expected);
  });

  it.each(Object.entries(SECTIONS))('has the tables of: %s', (title, translated) => {
    const one = tablesOf(sectionsOf(english).find(({ heading }) => heading === title)?.text ?? '');
    const other = tablesOf(sectionsOf(chinese).find(({ heading }) => heading === translated)?.text ?? '');
    const shape = (tables: string[][][]) => tables.map((rows) => rows.map((cells) => cells.map(untranslated)));
    expect(shape(other)).toEqual(shape(one));
  });

  it.each(Object.entries(SECTIONS))('has the blocks of: %s', (title, translated) => {
    const one = blocksOf(sectionsOf(english).find(({ heading }) => heading === title)?.text ?? '');
    const other = blocksOf(sectionsOf(chinese).find(({ heading }) => heading === translated)?.text ?? '');
    expect(other.map(({ language }) => language)).toEqual(one.map(({ language }) => language));
    expect(other.map(bareLines)).toEqual(one.map(bareLines));
  });

  it('has the links of README.md, and leads to it, as that leads here', () => {
    const links = (text: string) =>
      [...new Set([...text.matchAll(/\]\(([^)]+)\)/g)].map(([, link = '']) => link))].sort();
    const others = (text: string) => links(text).filter((link) => !link.startsWith('README'));
    expect(others(chinese)).toEqual(others(english));
    expect(links(chinese)).toContain('README.md');
    expect(links(english)).toContain('README.zh-CN.md');
  });

  it('is Chinese in each paragraph and in each row of a table that README.md says in words', () => {
    const paragraphs = outsideBlocks(chinese)
      .split(/\n\n/)
      .filter((part) => /[a-z]{3}/i.test(part.replace(/`[^`]+`|\[[^\]]*\]\([^)]*\)/g, '')));
    expect(paragraphs.filter((part) => !cjk.test(part))).toEqual([]);
  });
});
