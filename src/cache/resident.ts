import type { Fill } from './fill.ts';
import { SharedFile } from './shared-file.ts';
import type { FileView } from './shared-read.ts';

/** A blob that someone uses right now: its growth, its one descriptor, and a count of users that pins it. */
export class Resident {
  readonly blob: FileView;
  readonly #fill: Fill | null;
  readonly #file: SharedFile | null;
  readonly #onIdle: (resident: Resident) => void;
  #users = 0;

  private constructor(
    blob: FileView,
    fill: Fill | null,
    file: SharedFile | null,
    onIdle: (resident: Resident) => void,
  ) {
    this.blob = blob;
    this.#fill = fill;
    this.#file = file;
    this.#onIdle = onIdle;
  }

  /** @throws {Error} the system's, or one that says that the size is wrong; the file is not what was kept then. */
  static whole(path: string, size: number, onIdle: (resident: Resident) => void): Resident {
    const file = SharedFile.open(path, 'r');
    if (file.size === size) return new Resident(wholeBlob(path, size), null, file, onIdle);
    const found = file.size;
    file.release();
    throw new Error(`${path} has ${found} bytes instead of ${size}`);
  }

  static growing(fill: Fill, onIdle: (resident: Resident) => void): Resident {
    return new Resident(fill, fill, null, onIdle);
  }

  get users(): number {
    return this.#users;
  }

  get file(): SharedFile | null {
    return this.#file ?? this.#fill?.file ?? null;
  }

  copyRecent(into: Uint8Array, length: number, position: number): number {
    return this.#fill?.copyRecent(into, length, position) ?? 0;
  }

  sizeKnown(): Promise<number | undefined> {
    return this.#fill?.sizeKnown() ?? Promise.resolve(this.blob.size);
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0) this.#onIdle(this);
  }

  /** Closes the descriptor; for the cache, when nobody uses it any more. */
  dispose(): void {
    this.file?.release();
  }
}

/** A blob that lies in the cache whole. */
function wholeBlob(path: string, size: number): FileView {
  return { path, size, available: size, outcome: { kind: 'complete' }, onAdvance: () => {} };
}
