import { yamlLibrary } from '../kit/yaml-text.ts';

/** A value as TOML and JSON have it. */
export type Value = string | boolean | number | readonly Value[] | { readonly [key: string]: Value };

/** A table of a TOML file: `[host."https://cr.example.com"]`. */
export interface TomlTable {
  readonly path: readonly string[];
  /** An array among them whose name is in `before` is put before what the file has there; any other value replaces the file's. */
  readonly values: { readonly [key: string]: Value };
  readonly before?: readonly string[];
}

/** A registry's entry in containers-registries.conf(5), version 2. */
export interface MirroredRegistry {
  readonly registry: string;
  readonly mirror: string;
  /** Plain http. */
  readonly insecure: boolean;
}

/** A place in a JSON or YAML document and what is to be there; an array's elements are put before those that are there already. */
export interface Placed {
  readonly at: readonly string[];
  readonly value: Value;
}

/**
 * One file of a client and what is to be in it, as data: written out for a person where there is no such file, merged into it where there is.
 * A file without `shown` is for machines that have it already.
 */
export type Edit = {
  readonly path: string;
  /** It holds a password: mode 0600. */
  readonly secret?: boolean;
} & (
  | { readonly format: 'whole'; readonly content: string }
  /** A certificate, beside those that the file has. */
  | { readonly format: 'pem'; readonly content: string }
  | { readonly format: 'json'; readonly places: readonly Placed[] }
  | { readonly format: 'yaml'; readonly places: readonly Placed[] }
  | {
      readonly format: 'toml';
      readonly tables: readonly TomlTable[];
      /** New tables go before the first one of this name, since clients take them in the file's order. */
      readonly ahead?: string;
      /** What a file that is not there yet begins with. */
      readonly head?: string;
      /** Lines in comments that a file that is not there yet ends with. */
      readonly hint?: string;
    }
  | { readonly format: 'registries'; readonly registries: readonly MirroredRegistry[] }
  /** `NAME="words"` as shells and service managers read it: these words are added to it. */
  | { readonly format: 'variable'; readonly name: string; readonly words: readonly string[] }
);

/** The text of a file that is not there yet. */
export function newFile(edit: Edit): string {
  switch (edit.format) {
    case 'whole':
    case 'pem':
      return edit.content;
    case 'json':
      return `${JSON.stringify(nested(edit.places), null, 2)}\n`;
    case 'yaml':
      // Anchors would be valid, and unreadable to those who paste.
      return yamlLibrary().stringify(nested(edit.places), { aliasDuplicateObjects: false, lineWidth: 0 });
    case 'toml':
      return (
        [...(edit.head === undefined ? [] : [edit.head]), ...edit.tables.map(tomlTable)].join('\n') + (edit.hint ?? '')
      );
    case 'registries':
      return edit.registries.map(registryEntry).join('\n');
    case 'variable':
      return `${edit.name}="${edit.words.join(' ')}"\n`;
  }
}

function nested(places: readonly Placed[]): object {
  const document: Record<string, unknown> = {};
  for (const { at, value } of places) {
    let node = document;
    for (const key of at.slice(0, -1)) {
      node[key] ??= {};
      node = node[key] as Record<string, unknown>;
    }
    node[at.at(-1) ?? ''] = value;
  }
  return document;
}

/** A table with its header, its values indented as clients' documentation does. */
export function tomlTable({ path, values }: TomlTable): string {
  const lines = Object.entries(values).map(([key, value]) => `  ${tomlKey(key)} = ${tomlValue(value)}\n`);
  return `[${path.map(tomlKey).join('.')}]\n${lines.join('')}`;
}

export function registryEntry({ registry, mirror, insecure }: MirroredRegistry): string {
  const plain = insecure ? 'insecure = true\n' : '';
  return `[[registry]]\nprefix = "${registry}"\nlocation = "${registry}"\n\n[[registry.mirror]]\nlocation = "${mirror}"\n${plain}`;
}

function tomlKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key);
}

function tomlValue(value: Value): string {
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(', ')}]`;
  if (typeof value === 'object')
    return `{ ${Object.entries(value)
      .map(([key, inner]) => `${tomlKey(key)} = ${tomlValue(inner)}`)
      .join(', ')} }`;
  // A JSON string is a TOML basic string, but for DEL, which no value here has (TOML 1.0, String).
  return JSON.stringify(value);
}
