import { CacheError } from '../cache/blob-cache.ts';
import type { Readable } from '../cache/reader.ts';
import { SharedFile } from '../cache/shared-file.ts';
import type { FileView, Outcome } from '../cache/shared-read.ts';
import type { Channel } from './channel.ts';
import { decodeFailure } from './failure.ts';
import type { ViewMessage } from './wire.ts';

/** A blob that the owner holds or fills, read in this process from its file; its growth is asked for while someone waits. */
export class RemoteBlob implements Readable, FileView {
  readonly #channel: Channel;
  readonly #number: number;
  readonly #onIdle: () => void;
  readonly #listeners: (() => void)[] = [];
  #file: SharedFile | null = null;
  #users = 0;
  #asking = false;
  /** Ends the wait for growth that nobody is waiting for any more. */
  readonly #idle = new AbortController();
  /** The path that could not be opened the last time. */
  #missing: string | null = null;
  path: string;
  size: number | undefined;
  available = 0;
  outcome: Outcome | null = null;

  constructor(channel: Channel, number: number, view: ViewMessage, onIdle: () => void) {
    this.#channel = channel;
    this.#number = number;
    this.#onIdle = onIdle;
    this.path = view.path;
    this.#take(view);
  }

  get blob(): FileView {
    return this;
  }

  get file(): SharedFile | null {
    return this.#file;
  }

  get users(): number {
    return this.#users;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users > 0) return;
    this.#file?.release();
    this.#file = null;
    this.#idle.abort();
    this.#onIdle();
  }

  /** A newer view than the last. */
  refresh(view: ViewMessage): void {
    this.#take(view);
  }

  onAdvance(listener: () => void): void {
    this.#listeners.push(listener);
    if (!this.#asking) void this.#ask();
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    try {
      const params = { blob: this.#number, available: this.available };
      this.#take(await this.#channel.call<ViewMessage>('advance', params, this.#idle.signal));
    } catch (error) {
      this.outcome ??= { kind: 'failed', error: error as Error };
    }
    this.#asking = false;
    for (const listener of this.#listeners.splice(0)) listener();
  }

  /** Opens the file before anyone may read: a path that has just been renamed is found under the new name in the next view. */
  #take(view: ViewMessage): void {
    // Nobody would close what is opened now.
    if (this.#idle.signal.aborted) return;
    this.path = view.path;
    this.size = view.size;
    if (view.available > 0) {
      try {
        this.#file ??= SharedFile.open(view.path, 'r');
      } catch (error) {
        if (this.#missing === view.path) {
          this.outcome = { kind: 'failed', error: new CacheError('disk', `${view.path}: ${(error as Error).message}`) };
        }
        this.#missing = view.path;
        return;
      }
    }
    // Two views may arrive in another order than they were made.
    this.available = Math.max(this.available, view.available);
    if (view.outcome === 'complete') this.outcome = { kind: 'complete' };
    else if (view.outcome !== null) this.outcome = { kind: 'failed', error: decodeFailure(view.outcome.failure) };
  }
}
