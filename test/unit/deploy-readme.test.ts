import { readFileSync } from 'node:fs';
import { PassThrough, Readable } from 'node:stream';
import { expect, test } from 'vitest';
import { run } from '../../src/cli/run.ts';

const text = readFileSync(new URL('../../deploy/README.md', import.meta.url), 'utf8');

/** Lines of the shell: those of fenced blocks, and what stands in code within the text. */
const code = [...text.matchAll(/```sh\n([\s\S]*?)```|`([^`\n]+)`/g)].flatMap(([, block, span]) =>
  (block ?? span ?? '').split('\n').map((line) => line.replace(/\s#.*$/, '')),
);
/** Every `gateway …` in them, without what follows it in the shell. */
const commands = [
  ...new Set(
    code.flatMap((line) => [...line.matchAll(/(?:^|[\s/])gateway ([^|>;&#]*)/g)].map(([, rest = '']) => rest.trim())),
  ),
].filter((line) => line !== '--version' && !line.endsWith('…'));

async function helpOf(words: readonly string[]): Promise<{ code: number; out: string }> {
  const stdout = new PassThrough();
  const signal = new AbortController().signal;
  const io = { stdout, stderr: new PassThrough(), stdin: Readable.from([]), env: {}, cwd: '/', signal };
  const code = await run({ argv: [...words, '--help'], ...io });
  return { code, out: String(stdout.read() ?? '') };
}

test('deploy/README.md has commands', () => {
  expect(commands.length).toBeGreaterThan(20);
});

test.each(commands)('gateway %s is a command with these options', async (line) => {
  const words = line.replace(/^--config \S+ /, '').split(/\s+/);
  const named = words.slice(0, words.findIndex((word) => !/^[a-z]+$/.test(word)) >>> 0);
  const path = named.slice(0, 2);
  // Two words are a group and its command, or a command and its argument.
  const two = await helpOf(path);
  const help = two.code === 0 ? two : await helpOf(path.slice(0, 1));
  expect(help.code, line).toBe(0);
  expect(help.out).toMatch(new RegExp(`^Usage: gateway ${path[0]}`, 'm'));
  for (const option of words.filter((word) => word.startsWith('--'))) expect(help.out, line).toContain(option);
});

test('its links lead to headings that are there', () => {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  const links = [...text.matchAll(/\]\(#([\w-]+)\)/g)].map(([, anchor]) => anchor);
  expect(links.length).toBeGreaterThan(3);
  for (const link of links) expect(headings).toContain(link);
});
