import { createRequire } from 'node:module';
import type { LineCounter, Node } from 'yaml';
import { OperatorError } from './operator-error.ts';

/** The library, loaded when the first file is read: most starts read none, and it costs about 50 ms. */
export const yamlLibrary = (): typeof import('yaml') => createRequire(import.meta.url)('yaml') as typeof import('yaml');

/** A YAML file as data that still knows its lines. */
export interface YamlText {
  /** Plain JSON data; null for an empty file. */
  readonly value: unknown;
  /** Line (from 1) of the deepest part of `path` that is there; for a key of a mapping, that key's line. */
  lineAt(path: readonly (string | number)[]): number;
}

/** Largest YAML file read, characters: ten thousand aliases take less than one million. */
const MAX_LENGTH = 16 * 1024 * 1024;

/** Shown of what is wrong: a file that is no YAML at all has thousands. */
const MAX_PROBLEMS = 10;

/**
 * Parses YAML 1.2, refusing what would surprise: duplicate keys, several documents, custom tags.
 * @throws {OperatorError} usage, `YAML_INVALID`, with the first syntax errors as `<name>:<line>: …`.
 */
export function parseYaml(text: string, name: string): YamlText {
  if (text.length > MAX_LENGTH) throw invalid(name, [`${name}: is longer than ${MAX_LENGTH} characters`]);
  const { LineCounter, parseDocument } = yamlLibrary();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const problems = [...document.errors, ...document.warnings].map(
    (error) => `${name}:${lines.linePos(error.pos[0]).line}: ${error.message}`,
  );
  if (problems.length > MAX_PROBLEMS) {
    problems.splice(MAX_PROBLEMS, Number.POSITIVE_INFINITY, `${name}: and ${problems.length - MAX_PROBLEMS} more`);
  }
  if (problems.length > 0) throw invalid(name, problems);
  let value: unknown;
  try {
    value = document.toJS();
  } catch (error) {
    throw invalid(name, [`${name}: ${(error as Error).message}`]);
  }
  return { value: value ?? null, lineAt: (path) => lineOf(document.contents, path, lines) };
}

function lineOf(root: Node | null, path: readonly (string | number)[], lines: LineCounter): number {
  const { isMap, isNode, isPair } = yamlLibrary();
  let node: unknown = root;
  let start = root?.range?.[0] ?? 0;
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isPair(item) && String(item.key) === String(key));
      if (pair === undefined) break;
      if (isNode(pair.key)) start = pair.key.range?.[0] ?? start;
      node = pair.value;
    } else {
      const item: unknown = (node as { items?: unknown[] } | null)?.items?.[Number(key)];
      if (!isNode(item)) break;
      start = item.range?.[0] ?? start;
      node = item;
    }
  }
  return lines.linePos(start).line;
}

function invalid(name: string, problems: readonly string[]): OperatorError {
  return new OperatorError('YAML_INVALID', problems.join('\n'), {
    next: `correct ${name}; text with : [ ] { } # or * in it is written in quotes`,
  });
}
