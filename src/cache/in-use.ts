import type { Digest } from '../oci/digest.ts';
import type { Fill } from './fill.ts';
import { Resident } from './resident.ts';

/** Blobs that someone uses, whole or growing, and those whose files are on their way out. */
export class InUse {
  readonly #residents = new Map<Digest, Resident>();
  readonly #leaving = new Map<Digest, Promise<void>>();

  /** The one that the next client is given. */
  find(digest: Digest): Resident | null {
    return this.#residents.get(digest) ?? null;
  }

  /** In use: its files stay. */
  has(digest: Digest): boolean {
    return this.#residents.has(digest);
  }

  /** In use, or on its way out: its files are not for others to touch. */
  busy(digest: Digest): boolean {
    return this.#residents.has(digest) || this.#leaving.has(digest);
  }

  /** @throws as `Resident.whole` */
  open(digest: Digest, path: string, size: number): Resident {
    const resident = Resident.whole(path, size, (idle) => this.#idle(digest, idle));
    this.#residents.set(digest, resident);
    return resident;
  }

  grow(fill: Fill): Resident {
    const resident = Resident.growing(fill, (idle) => this.#idle(fill.digest, idle));
    this.#residents.set(fill.digest, resident);
    return resident;
  }

  /** The next client does not find this one; who reads it goes on. One that took its place stays. */
  forget(digest: Digest, resident: Resident): void {
    if (this.#residents.get(digest) === resident) this.#residents.delete(digest);
  }

  /** Files are on their way out, until `gone` ends. */
  leave(digest: Digest, gone: Promise<void>): void {
    const left = gone
      .catch(() => {})
      .then(() => {
        if (this.#leaving.get(digest) === left) this.#leaving.delete(digest);
      });
    this.#leaving.set(digest, left);
  }

  /** Resolves when what an earlier fill or an eviction still does to the files is done. */
  async gone(digest: Digest): Promise<void> {
    await this.#leaving.get(digest);
  }

  async allGone(): Promise<void> {
    await Promise.allSettled(this.#leaving.values());
  }

  /** Nobody uses it any more. One that was replaced meanwhile only closes its own descriptor. */
  #idle(digest: Digest, resident: Resident): void {
    this.forget(digest, resident);
    resident.dispose();
  }
}
