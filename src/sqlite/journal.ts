import { closeSync, fdatasync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import type Database from 'better-sqlite3';
import { Mutex } from '../kit/async.ts';

/** How often it is looked whether a checkpoint is due, ms … */
const LOOK_EVERY = 1_000;
/** … and how many pages of the log make it due, 1 MiB: a small disk should hold blobs, and nobody waits for it. */
const CHECKPOINT_PAGES = 256;

const syncFile = promisify(fdatasync);

export type Durability = 'full' | 'normal';

/**
 * Writes and syncs the log of one database (SQLite's WAL) so that the event loop never waits for the disk. SQLite itself syncs nothing
 * (`synchronous = OFF`) and makes no checkpoint; both is done here, and the syncs run in the thread pool.
 *
 * A checkpoint copies the log's pages into the database. After a power cut the database is sound only if a page was synced in the log before it
 * was copied, and the copy before SQLite begins to overwrite the log. So while a sync runs nothing may be added to the log, and nobody may
 * have to wait: changes go on inside one open transaction, in memory, which is committed when the sync is over.
 */
export class Journal {
  readonly #database: Database.Database;
  readonly #durability: Durability;
  readonly #log: number;
  readonly #file: number;
  readonly #timer: NodeJS.Timeout;
  /** One sync, or one checkpoint, at a time. */
  readonly #tasks = new Mutex();
  readonly #lostListeners: (() => void)[] = [];
  #waiting: Promise<void> | null = null;
  #holding = false;
  /** How many times changes were lost that had been made, but not committed. */
  #losses = 0;
  #loss: unknown = null;
  #closed = false;

  /** The database is in WAL mode and locked by this process alone. Its files stay open until `close`, since closing one would free that lock. */
  constructor(database: Database.Database, path: string, durability: Durability) {
    this.#database = database;
    this.#durability = durability;
    this.#log = openSync(`${path}-wal`, 'r+');
    this.#file = openSync(path, 'r+');
    database.pragma('wal_autocheckpoint = 0');
    // Changes of an open transaction stay in memory, so that they add nothing to the log before they are committed.
    database.pragma('cache_spill = OFF');
    database.pragma('synchronous = OFF');
    this.#timer = setInterval(() => void this.#look(), LOOK_EVERY).unref();
  }

  /** Resolves when every change that was made before survives a power cut. @throws where it was lost instead */
  async durable(): Promise<void> {
    if (this.#durability !== 'full') return;
    const losses = this.#losses;
    this.#waiting ??= this.#tasks.run(async () => {
      this.#waiting = null;
      if (!this.#closed) await syncFile(this.#log);
    });
    await this.#waiting;
    if (losses !== this.#losses) throw new Error('the change could not be written', { cause: this.#loss });
  }

  /** Calls whenever changes were lost that had been made: what is in memory of them is not in the database. */
  onLoss(listener: () => void): void {
    this.#lostListeners.push(listener);
  }

  /** Makes a checkpoint now, where the log has anything to copy. */
  checkpoint(): Promise<void> {
    return this.#tasks.run(() => this.#checkpoint());
  }

  /** Syncs and closes the database, in this thread: nobody is served any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    if (this.#holding) this.#release();
    if (this.#database.open) {
      this.#database.pragma('synchronous = FULL');
      this.#database.close();
    }
    // A sync may be under way on them.
    void this.#tasks.run(async () => {
      closeSync(this.#log);
      closeSync(this.#file);
    });
  }

  async #look(): Promise<void> {
    // Closed by whoever opened it.
    if (!this.#database.open) this.close();
    try {
      if (this.#unsaved() >= CHECKPOINT_PAGES) await this.checkpoint();
    } catch {
      // Tried again at the next look; a disk that fails is told of by those who write to it.
    }
  }

  async #checkpoint(): Promise<void> {
    const pages = this.#unsaved();
    if (pages === 0) return;
    await this.#syncHolding(this.#log);
    // What was changed meanwhile is in the log now, and not synced. With `full` the next look may find a pause; with `normal` it goes along:
    // were the power cut in the moments until it is synced below, the newest changes would be in doubt, as `normal` has it.
    const more = this.#unsaved() !== pages;
    if (this.#closed || (more && this.#durability === 'full')) return;
    this.#database.pragma('wal_checkpoint(PASSIVE)');
    if (more) await this.#syncHolding(this.#log, this.#file);
    else await this.#syncHolding(this.#file);
  }

  /** Syncs files, one after the other, while changes are held in memory. */
  async #syncHolding(...files: number[]): Promise<void> {
    if (this.#closed) return;
    this.#database.exec('BEGIN IMMEDIATE');
    this.#holding = true;
    try {
      for (const file of files) await syncFile(file);
    } finally {
      if (this.#holding) this.#release();
    }
  }

  /** Commits what was changed meanwhile. */
  #release(): void {
    this.#holding = false;
    try {
      if (!this.#database.inTransaction) throw new Error('the disk failed while a transaction was open');
      this.#database.exec('COMMIT');
    } catch (error) {
      if (this.#database.inTransaction) this.#database.exec('ROLLBACK');
      this.#losses++;
      this.#loss = error;
      for (const listener of this.#lostListeners) listener();
    }
  }

  /** Pages in the log that are not in the database yet. */
  #unsaved(): number {
    if (this.#closed || this.#holding) return 0;
    const [state] = this.#database.pragma('wal_checkpoint(NOOP)') as { log: number; checkpointed: number }[];
    return state === undefined ? 0 : state.log - state.checkpointed;
  }
}
