import { OperatorError } from '../kit/operator-error.ts';
import type { RegistryDeclaration } from './import-export.ts';
import { planImport } from './import-export.ts';
import { registryOf } from './lookup.ts';
import { parseAliasName, parseEndpoints, registryKey } from './names.ts';
import type { TableChange } from './store.ts';
import type { RegistryEntry, TableSnapshot } from './table.ts';

/** What another program's table would add to this one. */
export interface Additions {
  /** A sentence each: what is added. */
  readonly differences: readonly string[];
  /** How many of the registries and aliases are in the table as they are. */
  readonly present: number;
  /** What is not added, since the table has something else there or a row is not valid: why, and what to do. */
  readonly leftOut: readonly LeftOut[];
  /** Aliases that are added and are to have a certificate. */
  readonly certificates: number;
}

/** Something that a person has to do. */
export interface LeftOut {
  readonly what: string;
  readonly next: string;
}

/**
 * Plans what another program's rows add to a table. What the table has stays as it is: only credentials are added to a registry that has none.
 * Rows that cannot be added are told of, and keep no others out.
 */
export function planAdditions(
  rows: readonly RegistryDeclaration[],
  snapshot: TableSnapshot,
): { change: TableChange; result: Additions } {
  const plan = new Plan(snapshot);
  for (const row of rows) plan.add(row);
  const { change, result } = planImport(plan.rows, snapshot);
  const { differences, leftOut, present } = plan;
  return { change, result: { differences, leftOut, present, certificates: result.certificates } };
}

class Plan {
  readonly rows: RegistryDeclaration[] = [];
  readonly differences: string[] = [];
  readonly leftOut: LeftOut[] = [];
  present = 0;
  readonly #snapshot: TableSnapshot;
  /** Of this plan: registry by name. */
  readonly #aliases = new Map<string, string>();
  readonly #registries = new Map<string, RegistryDeclaration>();

  constructor(snapshot: TableSnapshot) {
    this.#snapshot = snapshot;
  }

  add(row: RegistryDeclaration): void {
    this.#attempt(() => {
      const key = registryKey(row.host, this.#snapshot.registries);
      const settings = this.#settings(key, row);
      const aliases = row.aliases.filter((alias) => this.#attempt(() => this.#takes(key, alias.name)) === true);
      if (settings === null && aliases.length === 0) return;
      const declared: RegistryDeclaration = { host: key, ...settings, aliases };
      // As a whole, so that a row with a fault is told of here and keeps no others out.
      planImport([declared], this.#snapshot);
      this.rows.push(declared);
      this.#registries.set(key, declared);
      if (settings !== null) this.differences.push(describe(key, settings, this.#known(key) === undefined));
      for (const { name, certificate } of aliases) {
        this.#aliases.set(name, key);
        this.differences.push(`the alias ${name} for ${key}${certificate ? '' : ', without a certificate'}`);
      }
    });
  }

  #known(key: string): RegistryEntry | undefined {
    return registryOf(this.#snapshot, key);
  }

  /** What of the row is new; null where nothing is. */
  #settings(
    key: string,
    { aliases: _, host: __, ...given }: RegistryDeclaration,
  ): Omit<RegistryDeclaration, 'host' | 'aliases'> | null {
    if (this.#registries.has(key)) return null;
    const known = this.#known(key);
    if (known === undefined) return given;
    const { endpoints = known.endpoints, credentials, public: open } = given;
    const others = parseEndpoints(endpoints).filter((endpoint) => !known.endpoints.includes(endpoint));
    if (others.length > 0) {
      this.leftOut.push({
        what: `${key} stays as it is, fetched from ${known.endpoints.join(', ')}; there it is fetched from ${endpoints.join(', ')}`,
        next: `where that is wanted: gateway registry set ${key} ${endpoints.map((one) => `--endpoint ${one}`).join(' ')}`,
      });
      return null;
    }
    if (credentials === undefined) {
      this.present++;
      return null;
    }
    if (known.credentials === null) return { credentials, ...(open === undefined ? {} : { public: open }) };
    const isSame =
      known.credentials.username === credentials.username && known.credentials.password === credentials.password;
    if (isSame) this.present++;
    else {
      this.leftOut.push({
        what: `${key} keeps the credentials that it has, of ${known.credentials.username}; there they are of ${credentials.username}`,
        next: `where those are wanted: gateway registry set ${key} --username ${credentials.username} --password-stdin`,
      });
    }
    return null;
  }

  /** Whether an alias is added. @throws {OperatorError} where it cannot be */
  #takes(key: string, text: string): boolean {
    const { name, host } = parseAliasName(text, this.#snapshot.domain);
    const held = this.#snapshot.aliases.get(name) ?? this.#snapshot.hosts.get(host);
    const stands = held?.registry ?? this.#aliases.get(name);
    if (stands === undefined) return true;
    if (stands === key) {
      if (held !== undefined) this.present++;
      return false;
    }
    throw new OperatorError('ALIAS_TAKEN', `the alias ${name} stays with ${stands}; there it stands for ${key}`, {
      next: `where that is wanted: gateway alias rm ${name}, then gateway alias add ${name} ${key}`,
    });
  }

  #attempt<T>(step: () => T): T | undefined {
    try {
      return step();
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      this.leftOut.push({ what: error.message, next: error.next });
      return undefined;
    }
  }
}

function describe(key: string, settings: Omit<RegistryDeclaration, 'host' | 'aliases'>, isNew: boolean): string {
  const { endpoints, credentials, public: open } = settings;
  const parts = [
    ...(endpoints === undefined ? [] : [`fetched from ${endpoints.join(', ')}`]),
    ...(credentials === undefined ? [] : [`with the credentials of ${credentials.username}`]),
    ...(credentials === undefined
      ? []
      : [open ? 'what they open is for all clients (--public)' : 'what they open is for clients that log in']),
  ];
  return `the registry ${key}${isNew ? '' : ', which is there,'} ${parts.join(', ') || 'with its own host as endpoint'}`;
}
