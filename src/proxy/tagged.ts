import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { SingleFlight } from '../kit/single-flight.ts';
import { type AcceptClass, variantOf } from '../oci/media-types.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { Logger } from '../telemetry/log.ts';
import type { UpstreamManifest } from '../upstream/upstream.ts';
import { type Access, isDenial, isMissing } from './access.ts';
import type { Found, ManifestFetching, Method } from './fetching.ts';
import { type Answer, makeAnswer } from './hot.ts';
import type { KeptTags } from './kept-tags.ts';
import { Misses } from './misses.ts';
import { Patience } from './patience.ts';

export interface TaggedOptions {
  readonly fetching: ManifestFetching;
  readonly kept: KeptTags;
  readonly store: ManifestStore;
  readonly access: Access;
  readonly config: { readonly tagTtl: number; readonly staleFor: number };
  readonly log: Logger;
  readonly now: () => number;
}

/** Manifests by tag: kept for a while, then revalidated; a kept one stands in while the upstream fails. */
export class TaggedManifests {
  readonly #options: TaggedOptions;
  readonly #flights = new SingleFlight<Answer>();
  readonly #misses: Misses;
  readonly #patience: Patience;

  constructor(options: TaggedOptions) {
    this.#options = options;
    this.#misses = new Misses(options.now);
    this.#patience = new Patience(options.now);
  }

  clear(): void {
    this.#misses.clear();
    this.#patience.clear();
  }

  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { config, now } = this.#options;
    const kept = this.#options.kept.find(entry, key, tag, client);
    const usable = kept !== null && (method === 'HEAD' || kept.get !== null) ? kept : null;
    if (usable !== null && now() - usable.checkedAt < config.tagTtl) return { answer: usable, from: 'cache' };
    return this.#newest(entry, key, tag, client, method, usable);
  }

  async #newest(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
    kept: Answer | null,
  ): Promise<Found> {
    const id = `${key.registry}/${key.repository}:${tag} ${client.key}`;
    this.#misses.check(id);
    const lent = kept !== null && this.#options.now() - kept.checkedAt <= this.#options.config.staleFor ? kept : null;
    if (lent !== null && this.#patience.isSpent(id)) {
      return this.#stale(key, tag, lent, null);
    }
    const flight = this.#flights.do(`${method} ${id}`, () => this.#ask(entry, key, tag, client, method, kept, id));
    if (lent === null) return { answer: await flight, from: 'upstream' };
    try {
      const answer = await this.#patience.within(id, flight);
      if (answer === null) return this.#stale(key, tag, lent, 'it has not answered yet');
      return { answer, from: answer.digest === lent.digest ? 'cache' : 'upstream' };
    } catch (error) {
      if (!this.#patience.isSpent(id)) throw error;
      return this.#stale(key, tag, lent, error instanceof Error ? error.message : String(error));
    }
  }

  /** One upstream conversation about a tag, for everyone who waits for it. */
  async #ask(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
    kept: Answer | null,
    id: string,
  ): Promise<Answer> {
    try {
      const answer = await this.#askAnew(entry, key, tag, client, method, kept);
      this.#patience.restore(id);
      return answer;
    } catch (error) {
      this.#options.access.failed(key, error);
      if (isMissing(error) || isDenial(error)) this.#options.kept.drop(key, tag, client);
      this.#misses.note(id, error);
      this.#patience.note(id, error);
      throw error;
    }
  }

  async #askAnew(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
    kept: Answer | null,
  ): Promise<Answer> {
    const reference: Reference = { kind: 'tag', tag };
    // HEAD costs nothing at Docker Hub; where something is kept, it is most often all that is needed.
    if (kept !== null || method === 'HEAD') {
      const answer = this.#fromHead(
        entry,
        key,
        tag,
        client,
        await this.#options.fetching.request(key, reference, 'HEAD', client),
      );
      if (answer !== null && (method === 'HEAD' || answer.get !== null)) return answer;
    }
    const manifest = await this.#options.fetching.request(key, reference, 'GET', client);
    return this.#options.kept.put(entry, key, tag, client, this.#options.fetching.keep(entry, key, manifest));
  }

  /** Null where the HEAD says too little, so that a GET must. */
  #fromHead(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    head: UpstreamManifest,
  ): Answer | null {
    const { digest, mediaType, size } = head;
    if (digest === undefined) return null;
    const { store, access, now } = this.#options;
    access.proved(entry, key, [digest]);
    const row = store.getManifest(digest);
    if (row !== null) {
      this.#options.fetching.learn(entry, key, row.body);
      return this.#options.kept.put(entry, key, tag, client, row);
    }
    if (size === undefined) return null;
    const at = now();
    const answer = makeAnswer({
      digest,
      mediaType,
      size,
      variant: variantOf(client, mediaType),
      body: null,
      private: entry.credentials !== null,
      checkedAt: at,
      loadedAt: at,
    });
    this.#options.kept.putHead(key, tag, answer);
    return answer;
  }

  /** `reason` is null where the failure was told a moment ago. */
  #stale(key: RepositoryKey, tag: string, answer: Answer, reason: string | null): Found {
    if (reason !== null) {
      const age = Math.round((this.#options.now() - answer.checkedAt) / 1000);
      this.#options.log.warn(
        { registry: key.registry, repository: key.repository, tag, age, reason },
        'the registry fails; a kept answer is served in its place',
      );
    }
    return { answer, from: 'stale' };
  }
}
