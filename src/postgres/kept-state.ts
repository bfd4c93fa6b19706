import { readFileSync } from 'node:fs';
import type { KeptUsers } from '../access/users.ts';
import type { StoredTable } from '../aliases/store.ts';
import type { HostRecord, StoredCertificate } from '../certs/store.ts';
import { PrivateDraft } from '../kit/durable-files.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { Logger } from '../telemetry/log.ts';

/** What a node serves by, as it was when the database was last there. */
export interface KeptParts {
  readonly identity: string;
  readonly aliases: StoredTable;
  readonly users: KeptUsers;
  readonly certificates: readonly StoredCertificate[];
  readonly records: readonly HostRecord[];
  /** The secrets that the fleet shares, by name. */
  readonly secrets: Readonly<Record<string, string>>;
}

/** What the file is sealed for. */
const CONTEXT = 'the state that a node keeps';
/** After a change, ms, until it is written: a burst of changes is one file. */
const WRITE_AFTER = 1_000;

/**
 * The last state of the shared database, in a file of this node's data directory, sealed, mode 0600: a node that starts while the database is away
 * serves by it. It is written after each load that brought something new.
 */
export class KeptState {
  readonly #file: string;
  readonly #sealer: Sealer;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #before: Partial<KeptParts>;
  #now: Partial<KeptParts>;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: string, sealer: Sealer, log: Pick<Logger, 'warn'>, before: Partial<KeptParts>) {
    this.#file = file;
    this.#sealer = sealer;
    this.#log = log;
    this.#before = before;
    this.#now = before;
  }

  /** Reads the file, where there is one that these keys open. @throws the system's error */
  static open(file: string, sealer: Sealer, log: Pick<Logger, 'warn'>): KeptState {
    let sealed: string;
    try {
      sealed = readFileSync(file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return new KeptState(file, sealer, log, {});
    }
    try {
      const before = JSON.parse(sealer.open(sealed, CONTEXT), revived) as Partial<KeptParts>;
      return new KeptState(file, sealer, log, upToDate(before));
    } catch (error) {
      log.warn({ err: error }, `${file} is passed over, and written anew`);
      return new KeptState(file, sealer, log, {});
    }
  }

  /** Whether the file has enough to serve by. */
  get isWhole(): boolean {
    const { identity, aliases, users, certificates } = this.#before;
    return identity !== undefined && aliases !== undefined && users !== undefined && certificates !== undefined;
  }

  /** As the file had it when this process started. */
  before<N extends keyof KeptParts>(part: N): KeptParts[N] | undefined {
    return this.#before[part];
  }

  /** Has it written, soon. */
  put<N extends keyof KeptParts>(part: N, value: KeptParts[N]): void {
    this.#now = { ...this.#now, [part]: value };
    this.#timer ??= setTimeout(() => this.#write(), WRITE_AFTER).unref();
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    if (this.#timer !== undefined) this.#write();
    await this.#writing;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(async () => {
      try {
        const draft = await PrivateDraft.begin(this.#file);
        try {
          await draft.write(Buffer.from(this.#sealer.seal(JSON.stringify(this.#now, plain), CONTEXT)));
          await draft.keep({ replace: true });
        } catch (error) {
          await draft.drop();
          throw error;
        }
      } catch (error) {
        this.#log.warn(
          { err: error },
          `${this.#file} could not be written: a start while the database is away would be by an older state`,
        );
      }
    });
  }
}

/** What a version has kept that knew less, as this one has it: a node may be updated while the database is away. */
function upToDate({ aliases, ...rest }: Partial<KeptParts>): Partial<KeptParts> {
  if (aliases === undefined) return rest;
  // Older than several credentials a registry, it has no list of them.
  const registries = aliases.registries.map((entry) => ({ ...entry, named: entry.named ?? [] }));
  return { ...rest, aliases: { ...aliases, registries } };
}

/** Bytes are text in JSON. */
function plain(_name: string, value: unknown): unknown {
  return value instanceof Uint8Array ? { base64: Buffer.from(value).toString('base64') } : value;
}

function revived(_name: string, value: unknown): unknown {
  const base64 = typeof value === 'object' && value !== null ? (value as { base64?: unknown }).base64 : undefined;
  return typeof base64 === 'string' ? new Uint8Array(Buffer.from(base64, 'base64')) : value;
}
