import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { didYouMean } from '../kit/did-you-mean.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { parseYaml, type YamlText } from '../kit/yaml-text.ts';
import type { Config } from './config.ts';
import {
  complete,
  contradictions,
  ENVIRONMENT,
  isTree,
  keyText,
  type Path,
  type Problem,
  readSettings,
  type Tree,
} from './settings.ts';

export interface LoadOptions {
  /** `--config`; else `GATEWAY_CONFIG`, else `gateway.yaml` in `cwd` where there is one. */
  readonly file?: string | undefined;
  /** `--data-dir`; wins over everything. */
  readonly dataDir?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Relative paths start here. */
  readonly cwd: string;
  /** What `listen.workers: auto` becomes. */
  readonly cores: number;
  /** The log is `pretty` on a terminal; left out, standard output decides. */
  readonly terminal?: boolean | undefined;
}

export interface LoadedConfig {
  readonly config: Config;
  /** Whole sentences for the log or standard error. */
  readonly warnings: readonly string[];
  /** Absolute path of the file that was read, and the names of the variables that were heeded. */
  readonly source: { readonly file: string | null; readonly environment: readonly string[] };
  /** Where the value of a key comes from, by its dotted name (`listen.https`, `acme.issuers`). */
  readonly originOf: (key: string) => Origin;
}

/** Where the value of a key comes from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number }
  | { readonly kind: 'environment'; readonly variable: string }
  | { readonly kind: 'flag'; readonly flag: string };

const DEFAULT_FILE = 'gateway.yaml';
/** Where the password of `database` is; no key of the file. */
const PASSWORD_FILE = 'GATEWAY_DATABASE_PASSWORD_FILE';
/** Variables of this program that set no key. */
const OTHER_VARIABLES: ReadonlySet<string> = new Set(['GATEWAY_CONFIG', PASSWORD_FILE]);

/**
 * Reads the configuration: defaults, below the file, below the environment, below the command line. An empty variable counts as not set.
 * @throws {OperatorError} usage; the message has every problem, a line each, with its key and where it was written.
 */
export function loadConfig(options: LoadOptions): LoadedConfig {
  const { env, cwd } = options;
  const file = configFile(options);
  const yaml = file === null ? null : parseYaml(readConfig(file), file);
  const raw = asTree(yaml?.value ?? {}, file);
  const inFile = keysIn(raw);
  const { heeded, warnings } = overlay(raw, env);
  if (options.dataDir !== undefined) raw.dataDir = options.dataDir;

  const problems: Problem[] = [];
  const settings = readSettings(raw, problems);
  const bad = new Set(problems.map((problem) => problem.path.join('.')));
  problems.push(...contradictions(settings, cwd).filter((one) => !one.involves.some((key) => bad.has(key))));
  if (problems.length > 0) throw invalid(problems, { yaml, file, heeded, warnings });

  const { config, notes } = complete(settings, {
    cwd,
    cores: options.cores,
    terminal: options.terminal ?? process.stdout.isTTY === true,
    databasePasswordFile: env[PASSWORD_FILE] ? resolve(cwd, env[PASSWORD_FILE]) : null,
  });
  const originOf = (key: string): Origin => {
    // Of a list the environment sets single items.
    const variable = heeded.get(key) ?? [...heeded].find(([set]) => set.startsWith(`${key}.`))?.[1];
    if (key === 'dataDir' && options.dataDir !== undefined) return { kind: 'flag', flag: '--data-dir' };
    if (variable !== undefined) return { kind: 'environment', variable };
    const path = inFile.get(key);
    if (path === undefined || file === null || yaml === null) return { kind: 'default' };
    return { kind: 'file', file, line: yaml.lineAt(path) };
  };
  return { config, warnings: [...warnings, ...notes], source: { file, environment: [...heeded.values()] }, originOf };
}

/** Every key that a tree has a value for, items of lists too, by its dotted name. */
function keysIn(tree: Tree, at: Path = []): Map<string, Path> {
  return new Map(
    Object.entries(tree).flatMap(([name, value]): [string, Path][] => {
      const path = [...at, /^\d+$/.test(name) ? Number(name) : name];
      const below = Array.isArray(value) || isTree(value) ? keysIn(value as Tree, path) : [];
      return [[path.join('.'), path], ...below];
    }),
  );
}

function configFile({ file, env, cwd }: LoadOptions): string | null {
  const named = file ?? (env.GATEWAY_CONFIG || undefined);
  if (named !== undefined) return resolve(cwd, named);
  const usual = resolve(cwd, DEFAULT_FILE);
  return existsSync(usual) ? usual : null;
}

function readConfig(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new OperatorError(
      'CONFIG_UNREADABLE',
      `the configuration ${file} cannot be read: ${(error as Error).message.split(',')[0]}`,
      {
        next: 'check the path given with --config or GATEWAY_CONFIG',
        cause: error,
      },
    );
  }
}

function asTree(value: unknown, file: string | null): Tree {
  if (!isTree(value)) {
    throw new OperatorError('CONFIG_INVALID', `${file}: is not a mapping of keys to values`, {
      next: 'start it with a key, such as "domain: cr.example.com"',
    });
  }
  return withoutNulls(value) as Tree;
}

/** `acme:` with nothing below it means: nothing set. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isTree(value)) return value;
  const kept = Object.entries(value).filter(([, one]) => one !== null);
  return Object.fromEntries(kept.map(([key, one]) => [key, withoutNulls(one)]));
}

/** Lays the environment over the file's tree. `heeded` maps the dotted key to the variable that set it. */
function overlay(raw: Tree, env: LoadOptions['env']): { heeded: Map<string, string>; warnings: string[] } {
  const heeded = new Map<string, string>();
  const warnings: string[] = [];
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith('GATEWAY_') || OTHER_VARIABLES.has(name) || value === undefined) continue;
    const path = ENVIRONMENT.get(name);
    if (path === undefined) {
      const meant = didYouMean(name, [...ENVIRONMENT.keys(), ...OTHER_VARIABLES]);
      warnings.push(
        `${name} is no setting of this program and is ignored${meant === undefined ? '' : `; did you mean ${meant}?`}`,
      );
    } else if (value !== '') {
      put(raw, path, value);
      heeded.set(path.join('.'), name);
    }
  }
  return { heeded, warnings };
}

/** Sets a value, making the mappings and the list on the way; what stands in its way as another kind is replaced, since the variable wins. */
function put(raw: Tree, path: Path, value: string): void {
  let node: Tree = raw;
  for (const [index, key] of path.slice(0, -1).entries()) {
    const next = node[key];
    const list = typeof path[index + 1] === 'number';
    if (list ? !Array.isArray(next) : !isTree(next)) node[key] = list ? [] : {};
    node = node[key] as Tree;
  }
  node[String(path.at(-1))] = value;
}

function invalid(
  problems: readonly Problem[],
  found: {
    readonly yaml: YamlText | null;
    readonly file: string | null;
    readonly heeded: ReadonlyMap<string, string>;
    readonly warnings: readonly string[];
  },
): OperatorError {
  const { yaml, file, heeded, warnings } = found;
  const lines = problems.map(({ path, message }) => {
    const variable = heeded.get(path.join('.')) ?? heeded.get(path.slice(0, 2).join('.'));
    const where = variable ?? (yaml !== null && file !== null ? `${file}:${yaml.lineAt(path)}` : undefined);
    return `  ${keyText(path)}: ${message}${where === undefined ? '' : ` (${where})`}`;
  });
  const count = lines.length === 1 ? 'a problem' : `${lines.length} problems`;
  // A misspelt variable is often why a value is missing, so the warnings are not lost with the configuration.
  const remarks = warnings.map((warning) => `  ${warning}`);
  return new OperatorError('CONFIG_INVALID', [`the configuration has ${count}:`, ...lines, ...remarks].join('\n'), {
    next: 'correct it and start again; every key is described in the README under Configuration',
  });
}
