import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { YAMLMap } from 'yaml';
import { didYouMean } from '../kit/did-you-mean.ts';
import { isObject } from '../kit/json.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { parseYaml, yamlLibrary } from '../kit/yaml-text.ts';
import type { AliasDeclaration, RegistryDeclaration } from './import-export.ts';
import { parseAliasName, parseCa, parseEndpoint, parseRealm, parseRegistryHost, parseRegistryProxy } from './names.ts';
import { parseCredentials } from './registry-credentials.ts';

const HEADER = ` Registries and the aliases that stand for them. The format is described in aliases/registries.yaml of the program.
 Passwords are not exported: neither a registry's credentials nor the password of a proxy. Set them again with
   gateway registry set HOST --username U --password-stdin
   gateway registry set HOST --credential NAME --for PATTERN --username U --password-stdin
   gateway registry set HOST --proxy URL`;

/** The alias table as a YAML file. Rows have no secrets (`AliasTable.exportRows`), and none is written. */
export function writeAliasYaml(rows: readonly RegistryDeclaration[]): string {
  const registries = Object.fromEntries(
    rows.map((row) => [
      row.host,
      {
        ...(row.endpoints === undefined ? {} : { endpoints: row.endpoints }),
        ...(row.proxy ? { proxy: row.proxy } : {}),
        ...(row.public === true ? { public: true } : {}),
        ...(row.realms === undefined || row.realms.length === 0 ? {} : { realms: row.realms }),
        ...(row.ca ? { ca: row.ca } : {}),
        aliases: row.aliases.map((alias) =>
          alias.certificate ? alias.name : { name: alias.name, certificate: false },
        ),
      },
    ]),
  );
  const { Document } = yamlLibrary();
  const document = new Document({ registries });
  document.commentBefore = HEADER;
  shortLists(document.get('registries'));
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

/** Lists of plain words go on one line. */
function shortLists(registries: unknown): void {
  const { isMap, isScalar, isSeq } = yamlLibrary();
  if (!isMap(registries)) return;
  for (const { value } of registries.items) {
    for (const { value: list } of isMap(value) ? (value as YAMLMap).items : []) {
      if (isSeq(list) && list.items.every(isScalar)) list.flow = true;
    }
  }
}

type Path = (string | number)[];
type Note = (path: Path, message: string) => void;

const REGISTRY_KEYS = ['endpoints', 'proxy', 'public', 'realms', 'ca', 'credentials', 'aliases'];

/**
 * Reads the format that `aliases/registries.yaml` describes. Names are checked here against no domain; the table checks them once more against its own.
 * @throws {OperatorError} usage; every problem as `<file>:<line>: …`.
 */
export function readAliasYaml(text: string, file: string): RegistryDeclaration[] {
  const yaml = parseYaml(text, file);
  const problems: string[] = [];
  const note: Note = (path, message) => problems.push(`${file}:${yaml.lineAt(path)}: ${message}`);
  const rows = readRoot(yaml.value, note);
  if (problems.length > 0) {
    throw new OperatorError('YAML_INVALID', problems.join('\n'), {
      next: `correct ${file}; the format is described at the top of aliases/registries.yaml`,
    });
  }
  return rows;
}

function readRoot(value: unknown, note: Note): RegistryDeclaration[] {
  if (!isObject(value)) {
    note([], 'the file does not start with "registries:"');
    return [];
  }
  refuseUnknown(value, ['registries'], [], note);
  const registries = value.registries ?? {};
  if (!isObject(registries)) {
    note(['registries'], 'registries is not a mapping of hosts, such as "quay.io: {aliases: [quay]}"');
    return [];
  }
  return Object.entries(registries).map(([host, settings]) => readRegistry(host, settings ?? {}, note));
}

function readRegistry(host: string, value: unknown, note: Note): RegistryDeclaration {
  const path: Path = ['registries', host];
  check(path, note, () => parseRegistryHost(host));
  if (!isObject(value)) {
    note(path, `${host} is not a mapping with the keys ${REGISTRY_KEYS.join(', ')}`);
    return { host, aliases: [] };
  }
  refuseUnknown(value, REGISTRY_KEYS, path, note);
  const { proxy, credentials, public: open, ca } = value;
  const endpoints = readTexts(value.endpoints, [...path, 'endpoints'], note);
  for (const [index, one] of (endpoints ?? []).entries())
    check([...path, 'endpoints', index], note, () => parseEndpoint(one));
  const realms = readTexts(value.realms, [...path, 'realms'], note);
  for (const [index, one] of (realms ?? []).entries()) check([...path, 'realms', index], note, () => parseRealm(one));
  if (typeof proxy === 'string') check([...path, 'proxy'], note, () => parseRegistryProxy(proxy));
  else if (proxy !== undefined && proxy !== null) note([...path, 'proxy'], 'proxy is not the URL of a proxy');
  if (typeof ca === 'string') check([...path, 'ca'], note, () => parseCa(ca));
  else if (ca !== undefined && ca !== null)
    note([...path, 'ca'], 'ca is not the text of a PEM file (ca: | and the lines below)');
  if (open !== undefined && typeof open !== 'boolean') note([...path, 'public'], 'public is neither true nor false');
  return {
    host,
    ...(endpoints === undefined ? {} : { endpoints }),
    ...(typeof proxy === 'string' ? { proxy } : {}),
    ...(typeof open === 'boolean' ? { public: open } : {}),
    ...(realms === undefined ? {} : { realms }),
    ...(typeof ca === 'string' ? { ca } : {}),
    ...readCredentials(credentials, [...path, 'credentials'], note),
    aliases: readAliases(value.aliases ?? [], [...path, 'aliases'], note),
  };
}

function readCredentials(value: unknown, path: Path, note: Note): Pick<RegistryDeclaration, 'credentials'> {
  if (value === undefined || value === null) return {};
  if (!isObject(value) || typeof value.username !== 'string' || typeof value.password !== 'string') {
    note(path, 'credentials is not a mapping with the texts username and password');
    return {};
  }
  refuseUnknown(value, ['username', 'password'], path, note);
  const credentials = { username: value.username, password: value.password };
  check(path, note, () => parseCredentials(credentials));
  return { credentials };
}

function readAliases(value: unknown, path: Path, note: Note): AliasDeclaration[] {
  if (!Array.isArray(value)) {
    note(path, 'aliases is not a list, such as [quay, hub.corp.example]');
    return [];
  }
  return value.flatMap((item: unknown, index) => {
    const here = [...path, index];
    const name = isObject(item) ? item.name : item;
    const certificate = isObject(item) ? (item.certificate ?? true) : true;
    if (isObject(item)) refuseUnknown(item, ['name', 'certificate'], here, note);
    if (typeof name !== 'string') {
      note(here, 'an alias is a name in text, or {name: …, certificate: false}; a number stands in quotes');
      return [];
    }
    if (typeof certificate !== 'boolean') note([...here, 'certificate'], 'certificate is neither true nor false');
    check(here, note, () => parseAliasName(name, ''));
    return [{ name, certificate: certificate === true }];
  });
}

function readTexts(value: unknown, path: Path, note: Note): string[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  note(path, `${path.at(-1)} is not a list of texts`);
  return undefined;
}

function refuseUnknown(value: Record<string, unknown>, known: readonly string[], path: Path, note: Note): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const meant = didYouMean(key, known);
    note(
      [...path, key],
      `there is no key "${key}" here; ${meant === undefined ? `known are ${known.join(', ')}` : `did you mean ${meant}?`}`,
    );
  }
}

function check(path: Path, note: Note, parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    note(path, error.message);
  }
}

/**
 * The rows of `aliases/*.yaml` of the package, which fill a new table.
 * The package's root is the first directory above this file with a `package.json`: one place from `src/`, another from `dist/src/`.
 */
export function seedRows(root = packageRoot(import.meta.dirname)): RegistryDeclaration[] {
  const directory = join(root, 'aliases');
  return readdirSync(directory)
    .filter((name) => name.endsWith('.yaml'))
    .sort()
    .flatMap((name) => readAliasYaml(readFileSync(join(directory, name), 'utf8'), `aliases/${name}`));
}

function packageRoot(from: string): string {
  for (let directory = from; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'package.json'))) return directory;
    if (dirname(directory) === directory) throw new Error(`no package.json above ${from}`);
  }
}
