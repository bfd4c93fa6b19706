import { type ListenAddress, parseList, parseListen } from './values.ts';

/** What a default may depend on. */
export interface Facts {
  /** Relative paths start here. */
  readonly cwd: string;
  readonly cores: number;
  /** The log goes to a terminal. */
  readonly terminal: boolean;
  readonly domain: string;
  readonly publicDomain: boolean;
  readonly tlsMode: TlsMode;
  /** Of `cluster`, as it was set. */
  readonly cluster: {
    readonly listen?: ListenAddress | null | undefined;
    readonly address?: string | undefined;
  };
  /** `acme.dns.provider` is set. */
  readonly dnsProvider: boolean;
}

export type TlsMode = 'acme' | 'internal' | 'off';

/** One key of the configuration. */
export class Key<P, V> {
  /** From the raw value of the file, or the text of the environment. @throws {BadValue} */
  readonly parse: (raw: unknown) => P;
  /** The value in use, of what was set or of nothing. */
  readonly value: (set: P | undefined, facts: Facts) => V;
  /** The default and what it means, as the tables of README.md have it. */
  readonly doc: string;
  /** Where the name does not follow from the key: `cache.maxSize` is `GATEWAY_CACHE_MAX_SIZE` by itself. */
  readonly environment: string | undefined;

  constructor(
    parse: (raw: unknown) => P,
    value: (set: P | undefined, facts: Facts) => V,
    doc: string,
    environment?: string,
  ) {
    this.parse = parse;
    this.value = value;
    this.doc = doc;
    this.environment = environment;
  }
}

/** A key whose value is a list of mappings; in the environment, keys of its first item alone can be set. */
export class KeyList<I extends KeyTree, V> {
  readonly item: I;
  readonly value: (set: readonly SettingsOf<I>[] | undefined, facts: Facts) => V;
  readonly doc: string;
  /** What is said of a value that is no list. */
  readonly noList: string;

  constructor(options: Pick<KeyList<I, V>, 'item' | 'value' | 'doc' | 'noList'>) {
    this.item = options.item;
    this.value = options.value;
    this.doc = options.doc;
    this.noList = options.noList;
  }
}

export interface KeyTree {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the types of a key are, it is a key
  readonly [name: string]: Key<any, any> | KeyList<any, any> | KeyTree;
}

/** A key with a default that is written as the file would have it. */
export function plain<P>(parse: (raw: unknown) => P, byDefault: string, about = ''): Key<P, P> {
  return new Key(parse, (set) => set ?? parse(byDefault), `\`${byDefault}\`${about}`);
}

/** A key that is null where it is not set. */
export function optional<P>(parse: (raw: unknown) => P, doc: string, environment?: string): Key<P, P | null> {
  return new Key(parse, (set) => set ?? null, doc, environment);
}

/** A list that is empty where it is not set. */
export function list<P>(item: (raw: unknown) => P, doc: string): Key<P[], readonly P[]> {
  return new Key(parseList(item), (set) => set ?? [], doc);
}

/** An address to listen on, where null is a choice (`off`) and undefined is none. */
export function listen(
  byDefault: (facts: Facts) => ListenAddress,
  doc: string,
): Key<ListenAddress | null, ListenAddress | null> {
  return new Key(parseListen, (set, facts) => (set === undefined ? byDefault(facts) : set), doc);
}

/** What of a tree of keys was set, each value checked by itself. */
export type SettingsOf<T> = {
  readonly [N in keyof T]?:
    | (T[N] extends Key<infer P, unknown>
        ? P
        : T[N] extends KeyList<infer I, unknown>
          ? readonly SettingsOf<I>[]
          : SettingsOf<T[N]>)
    | undefined;
};

/** The values in use of a tree of keys. */
export type ConfigOf<T> = {
  readonly [N in keyof T]: T[N] extends { readonly value: (...args: never[]) => infer V } ? V : ConfigOf<T[N]>;
};
