import { closeSync, fdatasync, fsyncSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import type Database from 'better-sqlite3';
import { Mutex } from '../kit/async.ts';

/** How often it is looked whether a checkpoint is due, ms … */
const LOOK_EVERY = 1_000;
/** … and how many pages of the log make it due, 1 MiB: a small disk should hold blobs, and nobody waits for it. */
const CHECKPOINT_PAGES = 256;
/** Of so many pages, 16 MiB, it is not waited any longer for a pause in the changes. */
const MANY_PAGES = 4_096;
/** The header of the log (SQLite, *WAL File Format*); without a valid one nothing in the log counts. */
const NO_HEADER = Buffer.alloc(32);

const syncFile = promisify(fdatasync);

export type Durability = 'full' | 'normal';

/**
 * Writes and syncs the log of one database (SQLite's WAL) so that the event loop never waits for the disk. SQLite itself syncs nothing
 * (`synchronous = OFF`) and makes no checkpoint; both is done here, and the syncs run in the thread pool.
 *
 * A checkpoint copies the log's pages into the database. After a power cut the database is sound only if a page was synced in the log before it
 * was copied, and the copy before SQLite begins to overwrite the log. So while a sync runs nothing may be added to the log, and nobody may
 * have to wait: changes go on inside one open transaction, in memory, which is committed when the sync is over.
 *
 * What is being overwritten must not be read after a power cut: a disk may have got the end of the new transaction and not its beginning, and what
 * stands before it would be taken for the newest changes. (SQLite syncs the log's new header against that, where it syncs at all.) So
 * the log of a checkpoint is made void, and that is synced, before anything overwrites it.
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
  #isHolding = false;
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
    // SQLite would make the new log's name durable with its first sync, which never comes.
    syncDirectory(dirname(path));
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
    if (this.#isHolding) this.#release();
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
    await this.#holding(() => syncFile(this.#log));
    // What was changed meanwhile is in the log now, and not synced: the next look may find a pause. With `normal` a log that has become long goes
    // along: were the power cut in the moments until it is synced below, the database could be damaged, and would be made anew.
    const more = this.#unsaved() !== pages;
    if (this.#closed || (more && (this.#durability === 'full' || pages < MANY_PAGES))) return;
    const [state] = this.#database.pragma('wal_checkpoint(PASSIVE)') as CheckpointState[];
    const complete = state !== undefined && state.log === state.checkpointed;
    await this.#holding(async () => {
      if (more) await syncFile(this.#log);
      await syncFile(this.#file);
      // A log that was not copied whole goes on to be read, and is not overwritten. Nor is one void that has new changes: a failed disk or `close`
      // may have ended the transaction. No await may come between the look and the write, which goes no further than the kernel's memory.
      if (!complete || !this.#isHolding || !this.#database.inTransaction) return;
      writeSync(this.#log, NO_HEADER, 0, NO_HEADER.length, 0);
      await syncFile(this.#log);
    });
  }

  /** Does what needs the log as it is, while changes are held in memory. */
  async #holding(task: () => Promise<void>): Promise<void> {
    if (this.#closed) return;
    this.#database.exec('BEGIN IMMEDIATE');
    this.#isHolding = true;
    try {
      await task();
    } finally {
      if (this.#isHolding) this.#release();
    }
  }

  /** Commits what was changed meanwhile. */
  #release(): void {
    this.#isHolding = false;
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
    if (this.#closed || this.#isHolding) return 0;
    const [state] = this.#database.pragma('wal_checkpoint(NOOP)') as CheckpointState[];
    return state === undefined ? 0 : state.log - state.checkpointed;
  }
}

/** What `wal_checkpoint` answers: pages in the log, and those of them that are in the database. */
interface CheckpointState {
  readonly log: number;
  readonly checkpointed: number;
}

function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
