import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestRow } from '../cache/index-port.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { type AcceptClass, accepts, SHARED_VARIANTS, variantOf } from '../oci/media-types.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { Access } from './access.ts';
import { type Answer, type HotAnswers, makeAnswer } from './hot.ts';

/** What tags stood for when they were last asked: ready in memory, else in the store. */
export class KeptTags {
  readonly #store: ManifestStore;
  readonly #access: Access;
  readonly #hot: HotAnswers;
  readonly #tagTtl: number;
  readonly #now: () => number;

  constructor(store: ManifestStore, access: Access, hot: HotAnswers, tagTtl: number, now: () => number) {
    this.#store = store;
    this.#access = access;
    this.#hot = hot;
    this.#tagTtl = tagTtl;
    this.#now = now;
  }

  /** The newest answer that this client may have through this registry's row, however old. */
  find(entry: RegistryEntry, key: RepositoryKey, tag: string, client: AcceptClass): Answer | null {
    if (this.#access.isClosed(key)) return null;
    const name = nameOf(key, tag);
    const hot = this.#hot.find(name, client, this.#now());
    if (hot !== null && !(hot.private && entry.credentials === null)) return hot;
    const found = this.#load(entry, key, tag, client);
    if (found !== null) this.#hot.put(name, found);
    return found;
  }

  /** The upstream has just said that the tag stands for this. */
  put(entry: RegistryEntry, key: RepositoryKey, tag: string, client: AcceptClass, row: ManifestRow): Answer {
    const checkedAt = this.#now();
    const variant = variantOf(client, row.mediaType);
    this.#store.putTag(key, tag, variant, { digest: row.digest, checkedAt });
    const answer = this.#answer(entry, row, variant, checkedAt);
    this.#hot.put(nameOf(key, tag), answer);
    return answer;
  }

  /** The same, but its manifest is not here: kept in memory only. */
  putHead(key: RepositoryKey, tag: string, answer: Answer): void {
    this.#hot.put(nameOf(key, tag), answer);
  }

  /** The tag is gone, for whoever asks. */
  drop(key: RepositoryKey, tag: string, client: AcceptClass): void {
    this.#hot.drop(nameOf(key, tag));
    for (const variant of SHARED_VARIANTS) this.#store.dropTag(key, tag, variant);
    this.#store.dropTag(key, tag, client.key);
  }

  #load(entry: RegistryEntry, key: RepositoryKey, tag: string, client: AcceptClass): Answer | null {
    let best: Answer | null = null;
    for (const variant of client.variants) {
      const kept = this.#store.getTag(key, tag, variant);
      if (kept === null || (best !== null && best.checkedAt >= kept.checkedAt)) continue;
      if (!this.#access.holds(entry, key, kept.digest)) continue;
      const row = this.#store.getManifest(kept.digest);
      const fits = row !== null && (variant === client.key || accepts(client, row.mediaType));
      if (fits) best = this.#answer(entry, row, variant, kept.checkedAt);
    }
    return best;
  }

  #answer(entry: RegistryEntry, row: ManifestRow, variant: string, checkedAt: number): Answer {
    const { digest, mediaType, body } = row;
    return makeAnswer({
      digest,
      mediaType,
      body,
      size: body.length,
      variant,
      checkedAt,
      freshUntil: checkedAt + this.#tagTtl,
      private: entry.credentials !== null,
      loadedAt: this.#now(),
    });
  }
}

function nameOf(key: RepositoryKey, tag: string): string {
  return `${key.registry}/${key.repository}:${tag}`;
}
