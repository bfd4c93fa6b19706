import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestRow } from '../cache/index-port.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { SingleFlight } from '../kit/single-flight.ts';
import type { Digest } from '../oci/digest.ts';
import { type AcceptClass, accepts } from '../oci/media-types.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { Access } from './access.ts';
import type { Found, ManifestFetching, Method } from './fetching.ts';
import { type Answer, HOT_FOR, type HotAnswers, makeAnswer } from './hot.ts';
import { Misses } from './misses.ts';

/** Variant of what is kept for a digest: its content is one, whoever asks. */
const OF_DIGEST = 'digest';

export interface DigestedOptions {
  readonly fetching: ManifestFetching;
  readonly store: ManifestStore;
  readonly access: Access;
  readonly hot: HotAnswers;
  readonly now: () => number;
}

/** Manifests by digest: kept for good, and given to repositories that are known to hold them. */
export class DigestedManifests {
  readonly #options: DigestedOptions;
  readonly #flights = new SingleFlight<Answer>();
  readonly #misses: Misses;

  constructor(options: DigestedOptions) {
    this.#options = options;
    this.#misses = new Misses(options.now);
  }

  clear(): void {
    this.#misses.clear();
  }

  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { access, hot, now } = this.#options;
    const id = `${key.registry}/${key.repository}@${digest}`;
    const ready = hot.ofDigest(id, now());
    const mine = ready === null || (ready.private && entry.credentials === null) || access.isClosed(key) ? null : ready;
    const kept = mine ?? this.#loadDigest(entry, key, digest, id);
    if (kept !== null && accepts(client, kept.mediaType)) return { answer: kept, from: 'cache' };
    return this.#fetchDigest(entry, key, digest, client, method, id);
  }

  /** From the store, where this repository is known to hold it. */
  #loadDigest(entry: RegistryEntry, key: RepositoryKey, digest: Digest, id: string): Answer | null {
    const { access, store } = this.#options;
    if (!access.holds(entry, key, digest)) return null;
    const row = store.getManifest(digest);
    return row === null ? null : this.#ready(entry, id, row);
  }

  async #fetchDigest(
    entry: RegistryEntry,
    key: RepositoryKey,
    digest: Digest,
    client: AcceptClass,
    method: Method,
    id: string,
  ): Promise<Found> {
    const { store, access, fetching } = this.#options;
    const flight = `${id} ${client.key}`;
    this.#misses.check(flight);
    const answer = await this.#flights.do(`${method} ${flight}`, async () => {
      const reference: Reference = { kind: 'digest', digest };
      try {
        const row = store.getManifest(digest);
        // It is here for another repository: this one only has to show that it has it too.
        if (row !== null && accepts(client, row.mediaType)) {
          await fetching.request(key, reference, 'HEAD', client);
          access.proved(entry, key, [digest]);
          fetching.learn(entry, key, row.body);
          return this.#ready(entry, id, row);
        }
        if (method === 'HEAD') {
          const head = await fetching.request(key, reference, 'HEAD', client);
          if (head.size !== undefined) return this.#headOfDigest(entry, digest, head.mediaType, head.size);
        }
        return this.#ready(entry, id, fetching.keep(entry, key, await fetching.request(key, reference, 'GET', client)));
      } catch (error) {
        access.failed(key, error);
        this.#misses.note(flight, error);
        throw error;
      }
    });
    return { answer, from: 'upstream' };
  }

  #headOfDigest(entry: RegistryEntry, digest: Digest, mediaType: string, size: number): Answer {
    const at = this.#options.now();
    return makeAnswer({
      digest,
      mediaType,
      size,
      variant: OF_DIGEST,
      body: null,
      private: entry.credentials !== null,
      checkedAt: at,
      loadedAt: at,
    });
  }

  #ready(entry: RegistryEntry, id: string, row: ManifestRow): Answer {
    const at = this.#options.now();
    const answer = makeAnswer({
      ...row,
      size: row.body.length,
      variant: OF_DIGEST,
      private: entry.credentials !== null,
      checkedAt: at,
      loadedAt: at,
      freshUntil: at + HOT_FOR,
    });
    this.#options.hot.put(id, answer);
    return answer;
  }
}
