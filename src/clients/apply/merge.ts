import { isDeepStrictEqual } from 'node:util';
import jsonc from 'jsonc-parser';
import { isObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { yamlLibrary } from '../../kit/yaml-text.ts';
import {
  type Edit,
  type MirroredRegistry,
  newFile,
  type Placed,
  registryEntry,
  type TomlTable,
  tomlTable,
  type Value,
} from '../edits.ts';
import { patchToml, readToml } from '../toml.ts';

const BOM = '\uFEFF';

type Data = Record<string, unknown>;
/** What a file says once an edit is in it: the new text, and what it must mean. */
interface Merged {
  readonly text: string;
  readonly means: unknown;
}

/**
 * A file with an edit in it: its comments, layout, line ends and byte order mark stay. What was merged already is not merged again.
 * @throws {OperatorError} CLIENT_FILE_REFUSED where it cannot be read, or what it has leaves no place for ours
 */
export function merge(edit: Edit, before: string | null): string {
  if (before === null || edit.format === 'whole') return newFile(edit);
  const mark = before.startsWith(BOM) ? BOM : '';
  const text = before.slice(mark.length);
  if (text.trim() === '' && edit.format !== 'toml' && edit.format !== 'registries') {
    return mark + text + withEnds(newFile(edit), lineEnd(text));
  }
  return mark + merged(edit, text);
}

function merged(edit: Edit, text: string): string {
  const { path } = edit;
  switch (edit.format) {
    case 'json':
      return checked(path, readJson, mergeJson(path, text, edit.places));
    case 'yaml':
      return checked(path, readYaml, mergeYaml(path, text, edit.places));
    case 'toml':
      return checked(path, readToml, mergeToml(path, text, edit.tables, edit.ahead));
    case 'registries':
      return checked(path, readToml, mergeRegistries(path, text, edit.registries));
    case 'variable':
      return mergeVariable(text, edit.name, edit.words);
    case 'pem':
      return text.replace(/\s/g, '').includes(edit.content.replace(/\s/g, ''))
        ? text
        : `${endedLine(text)}${withEnds(edit.content, lineEnd(text))}`;
    case 'whole':
      return edit.content;
  }
}

/** Whether a client could read this as a file of that format. */
export function isReadable(format: Edit['format'], path: string, text: string): boolean {
  const bare = text.replace(BOM, '');
  try {
    if (format === 'json') readJson(path, bare);
    if (format === 'yaml') readYaml(path, bare);
    if (format === 'toml' || format === 'registries') readToml(path, bare);
    return true;
  } catch {
    return false;
  }
}

/** The text, once it means what it is to mean: whatever a library or a strange layout did to it. */
function checked(path: string, read: (path: string, text: string) => unknown, { text, means }: Merged): string {
  let meant: unknown;
  try {
    meant = read(path, text);
  } catch {
    meant = undefined;
  }
  if (isDeepStrictEqual(plain(meant), plain(means))) return text;
  throw refused(path, 'is written in a way that leaves no place for the gateway');
}

function plain(value: unknown): unknown {
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value));
}

function refused(path: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError('CLIENT_FILE_REFUSED', `${path} ${why}; nothing was changed`, { cause });
}

// JSON, as daemon.json has it: without comments.

function readJson(path: string, text: string): unknown {
  try {
    return text.trim() === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw refused(path, `is no JSON: ${(cause as Error).message}`, cause);
  }
}

function mergeJson(path: string, text: string, places: readonly Placed[]): Merged {
  const means = objectIn(path, readJson(path, text));
  const indent = /^([ \t]+)\S/m.exec(text)?.[1] ?? '  ';
  const formattingOptions = { insertSpaces: !indent.startsWith('\t'), tabSize: indent.length, eol: lineEnd(text) };
  let now = text;
  const put = (at: readonly (string | number)[], value: Value, isArrayInsertion: boolean) => {
    now = jsonc.applyEdits(now, jsonc.modify(now, [...at], value, { formattingOptions, isArrayInsertion }));
  };
  for (const { at, value } of places) {
    const had = place(path, means, at, value);
    if (!Array.isArray(value) || had === undefined) put(at, value, false);
    else for (const item of missing(value, had as unknown[]).toReversed()) put([...at, 0], item, true);
  }
  return { text: now, means };
}

// YAML, by the library's documents, which keep comments.

function readYaml(path: string, text: string): unknown {
  const { parseDocument } = yamlLibrary();
  const document = parseDocument(text, { prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) throw refused(path, `is no YAML: ${error.message}`, error);
  return document.toJS();
}

function mergeYaml(path: string, text: string, places: readonly Placed[]): Merged {
  const { parseDocument, isScalar, isSeq } = yamlLibrary();
  const means = objectIn(path, readYaml(path, text) ?? {});
  const document = parseDocument(text);
  let changed = false;
  try {
    for (const { at, value } of places) {
      const had = place(path, means, at, value);
      // `mirrors:` with nothing behind it is null, into which nothing can be put.
      for (let depth = 1; depth <= at.length; depth++) {
        const node = document.getIn(at.slice(0, depth), true);
        if (isScalar(node) && node.value === null) document.deleteIn(at.slice(0, depth));
      }
      const list = document.getIn(at, true);
      const fresh = Array.isArray(value) && had !== undefined ? missing(value, had as unknown[]) : [];
      if (Array.isArray(value) && had !== undefined) {
        if (!isSeq(list)) throw new Error(`${at.join('.')} is an alias`);
        list.items.unshift(...fresh.map((item) => document.createNode(item)));
        changed ||= fresh.length > 0;
      } else if (!isDeepStrictEqual(had, value)) {
        document.setIn(at, document.createNode(value));
        changed = true;
      }
    }
  } catch (cause) {
    throw refused(path, `has no place for the gateway: ${(cause as Error).message}`, cause);
  }
  if (!changed) return { text, means };
  const indent = Math.min(8, Math.max(2, /^( +)[^\s#-]/m.exec(text)?.[1]?.length ?? 2));
  const indentSeq = !/^( *)[^\s#-][^\n]*:[ \t]*\r?\n\1- /m.test(text);
  const written = document.toString({ lineWidth: 0, indent, indentSeq });
  return { text: withEnds(written, lineEnd(text)), means };
}

// TOML: values in tables that are there by a library that keeps comments, new tables as text.

function mergeToml(path: string, text: string, tables: readonly TomlTable[], ahead: string | undefined): Merged {
  const means = structuredClone(readToml(path, text)) as Data;
  const there = structuredClone(means);
  const fresh: TomlTable[] = [];
  for (const table of tables) {
    const parent = tables.find((one) => one.path.join('\0') === table.path.slice(0, -1).join('\0'));
    const inFile = [table, parent].some((one) => one !== undefined && isObject(at(there, one.path)));
    if (!inFile) fresh.push(table);
    for (const data of inFile ? [means, there] : [means]) {
      for (const [key, value] of Object.entries(table.values)) {
        const spot = [...table.path, key];
        const had = at(data, spot);
        const isMore = table.before?.includes(key) && Array.isArray(value) && Array.isArray(had);
        set(path, data, spot, isMore ? [...missing(value, had), ...had] : value);
      }
    }
  }
  const patched = isDeepStrictEqual(there, readToml(path, text)) ? text : patchToml(text, there);
  if (fresh.length === 0) return { text: patched, means };
  // In another form than tables, `host."https://m".ca = …`, those that are there would stand first, and clients take them in the file's order.
  if (ahead !== undefined && ahead in there && firstTable(patched, ahead) === null)
    throw refused(path, `has ${ahead} in another form than [${ahead}."…"], which leaves no place before it`);
  return { text: inserted(patched, fresh.map(tomlTable).join('\n'), ahead), means };
}

function mergeRegistries(path: string, text: string, registries: readonly MirroredRegistry[]): Merged {
  const there = structuredClone(readToml(path, text)) as { registry?: RegistryTable[] };
  const fresh: MirroredRegistry[] = [];
  let changed = false;
  for (const wanted of registries) {
    const entry = there.registry?.find(({ prefix, location }) => (prefix || location) === wanted.registry);
    if (entry === undefined) fresh.push(wanted);
    else if (!entry.mirror?.some(({ location }) => location === wanted.mirror)) {
      entry.mirror = [
        { location: wanted.mirror, ...(wanted.insecure ? { insecure: true } : {}) },
        ...(entry.mirror ?? []),
      ];
      changed = true;
    }
  }
  const patched = changed ? patchToml(text, there) : text;
  const added = fresh.map(({ registry, mirror, insecure }) => ({
    prefix: registry,
    location: registry,
    mirror: [{ location: mirror, ...(insecure ? { insecure: true } : {}) }],
  }));
  const means = added.length === 0 ? there : { ...there, registry: [...(there.registry ?? []), ...added] };
  const block = fresh.map(registryEntry).join('\n');
  return { text: fresh.length === 0 ? patched : inserted(patched, block, undefined), means };
}

interface RegistryTable {
  readonly prefix?: string;
  readonly location?: string;
  mirror?: { readonly location?: string; readonly insecure?: boolean }[];
}

/** A block of tables at the end, or before the first table whose name begins so, and before the comments that stand right over that. */
function inserted(text: string, block: string, ahead: string | undefined): string {
  const end = lineEnd(text);
  const added = withEnds(block, end);
  const first = ahead === undefined ? null : firstTable(text, ahead);
  if (first === null) {
    return text.trim() === '' ? text + added : `${endedLine(text)}${end}${added}`;
  }
  const before = text.slice(0, first.index).replace(/(?:^[ \t]*#[^\n]*\n)+$/m, '');
  return `${before}${added}${end}${text.slice(before.length)}`;
}

function firstTable(text: string, name: string): RegExpExecArray | null {
  return new RegExp(`^[ \\t]*\\[+[ \\t]*["']?${name}["']?[ \\t]*[.\\]]`, 'm').exec(text);
}

// NAME="words", as shells read it.

function mergeVariable(text: string, name: string, words: readonly string[]): string {
  const lines = [...text.matchAll(new RegExp(`^[ \\t]*(?:export[ \\t]+)?${name}=(.*?)\\r?$`, 'gm'))];
  const last = lines.at(-1);
  const fresh = words.filter((word) => !(last?.[1] ?? '').split(/[\s"']+/).includes(word));
  if (fresh.length === 0) return text;
  const quoted = /^(["'])([^"'`\\]*)\1[ \t]*$/.exec(last?.[1] ?? '');
  if (last === undefined || quoted === null) {
    const own = last === undefined ? '' : `$${name} `;
    return `${endedLine(text)}${name}="${own}${fresh.join(' ')}"${lineEnd(text)}`;
  }
  const closing = last.index + last[0].lastIndexOf(quoted[1] ?? '"');
  const space = quoted[2] === '' ? '' : ' ';
  return `${text.slice(0, closing)}${space}${fresh.join(' ')}${text.slice(closing)}`;
}

// What all of them need.

/** Puts a value into data as an edit says; returns what was there. @throws {OperatorError} */
function place(path: string, data: Data, spot: readonly string[], value: Value): unknown {
  const found = at(data, spot) ?? undefined;
  const had = found === undefined ? undefined : structuredClone(found);
  if (Array.isArray(value) && had !== undefined && !Array.isArray(had)) {
    throw refused(path, `has ${spot.join('.')} as something else than a list`);
  }
  const list = Array.isArray(value) && Array.isArray(had) ? [...missing(value, had), ...had] : value;
  set(path, data, spot, list);
  return had;
}

function missing(wanted: readonly Value[], had: readonly unknown[]): Value[] {
  return wanted.filter((value) => !had.some((one) => isDeepStrictEqual(plain(one), plain(value))));
}

function at(data: unknown, spot: readonly string[]): unknown {
  let node = data;
  for (const key of spot) node = (node as Data | null | undefined)?.[key];
  return node;
}

function set(path: string, data: Data, spot: readonly string[], value: unknown): void {
  let node: Data = data;
  for (const [depth, key] of spot.slice(0, -1).entries()) {
    node[key] ??= {};
    if (typeof node[key] !== 'object')
      throw refused(path, `has ${spot.slice(0, depth + 1).join('.')} as a plain value`);
    node = node[key] as Data;
  }
  node[spot.at(-1) ?? ''] = value;
}

function objectIn(path: string, value: unknown): Data {
  if (!isObject(value)) throw refused(path, 'has no mapping at its top');
  return structuredClone(value);
}

function lineEnd(text: string): '\n' | '\r\n' {
  return text.includes('\r\n') ? '\r\n' : '\n';
}

function withEnds(text: string, end: '\n' | '\r\n'): string {
  return text.replace(/\r?\n/g, end);
}

function endedLine(text: string): string {
  return text === '' || text.endsWith('\n') ? text : text + lineEnd(text);
}
