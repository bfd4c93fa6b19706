import type { LeftOut } from '../../aliases/additions.ts';
import type { RegistryDeclaration } from '../../aliases/import-export.ts';

/** What was found in another program's files. */
export interface MovedIn {
  readonly rows: readonly RegistryDeclaration[];
  /** What cannot be taken over, and what a person has to do about it; also what was not understood. */
  readonly leftOut: readonly LeftOut[];
  /** A sentence each: what this gateway does by itself, or otherwise. */
  readonly notes: readonly string[];
  /** Storages of a `registry`. */
  readonly storages: readonly StorageFound[];
}

/** The storage of one `registry`, as its configuration has it. */
export interface StorageFound {
  /** Its configuration, for messages. */
  readonly from: string;
  /** Where its configuration says that it lies. */
  readonly root: string;
  /** Whose pull-through cache it is; null for a registry that is pushed to. */
  readonly remote: string | null;
  /** It shows credentials to the registry. */
  readonly hasCredentials: boolean;
}

/** Gathers what is found, file by file. */
export class Findings {
  readonly leftOut: LeftOut[] = [];
  readonly notes: string[] = [];
  readonly storages: StorageFound[] = [];
  readonly #rows = new Map<string, RegistryDeclaration>();

  /** Something that a person has to do, or to look at. */
  leave(what: string, next: string): void {
    if (!this.leftOut.some((one) => one.what === what)) this.leftOut.push({ what, next });
  }

  note(sentence: string): void {
    if (!this.notes.includes(sentence)) this.notes.push(sentence);
  }

  /** A registry; what is said of it in several places comes together. */
  registry(host: string, settings: Omit<Partial<RegistryDeclaration>, 'host' | 'aliases'> = {}, alias?: string): void {
    const known = this.#rows.get(host);
    const aliases = [...(known?.aliases ?? [])];
    if (alias !== undefined && !aliases.some(({ name }) => name === alias))
      aliases.push({ name: alias, certificate: true });
    this.#rows.set(host, { ...known, ...settings, host, aliases });
  }

  /** All of it, with what other files had. */
  add(other: MovedIn): void {
    for (const { host, aliases, ...settings } of other.rows) {
      this.registry(host, settings);
      for (const { name } of aliases) this.registry(host, {}, name);
    }
    for (const { what, next } of other.leftOut) this.leave(what, next);
    for (const sentence of other.notes) this.note(sentence);
    this.storages.push(...other.storages);
  }

  result(): MovedIn {
    const { leftOut, notes, storages } = this;
    return { rows: [...this.#rows.values()], leftOut, notes, storages };
  }
}
