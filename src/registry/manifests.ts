import type { RegistryEntry } from '../aliases/table.ts';
import type { ManifestStore } from '../cache/manifest-store.ts';
import { SingleFlight } from '../kit/single-flight.ts';
import type { Digest } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import { type AcceptClass, accepts, variantOf } from '../oci/media-types.ts';
import type { Reference, RepositoryKey } from '../oci/target.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Upstream, UpstreamManifest } from '../upstream/upstream.ts';
import type { Access } from './access.ts';
import { isDenial, isMissing } from './access.ts';
import { type Answer, HOT_FOR, type HotAnswers, makeAnswer } from './hot.ts';
import { KeptTags } from './kept-tags.ts';
import { Misses } from './misses.ts';
import { namedBlobs } from './named.ts';
import { Patience } from './patience.ts';
import type { Sizes } from './sizes.ts';

export type Method = 'GET' | 'HEAD';

/** Variant of what is kept for a digest: its content is one, whoever asks. */
const OF_DIGEST = 'digest';

export interface ManifestsOptions {
  readonly upstream: Upstream;
  readonly store: ManifestStore;
  readonly access: Access;
  readonly hot: HotAnswers;
  readonly sizes: Sizes;
  readonly config: { readonly tagTtl: number; readonly staleFor: number };
  readonly log: Logger;
  readonly now: () => number;
  /** Ends what no client waits for any more when the gateway stops. */
  readonly signal: AbortSignal;
}

/** An answer, and how it came about. */
export interface Found {
  readonly answer: Answer;
  readonly from: 'cache' | 'upstream' | 'stale';
}

/** Manifests by tag and by digest: kept, revalidated, fetched once for all who ask at the same time. */
export class Manifests {
  readonly #options: ManifestsOptions;
  readonly #tags: KeptTags;
  readonly #flights = new SingleFlight<Answer>();
  readonly #misses: Misses;
  readonly #patience: Patience;
  /** Of the store, when what is ready was last known to be in it. */
  #generation: number;

  constructor(options: ManifestsOptions) {
    this.#options = options;
    this.#generation = options.store.generation;
    this.#tags = new KeptTags(options.store, options.access, options.hot, options.config.tagTtl, options.now);
    this.#misses = new Misses(options.now);
    this.#patience = new Patience(options.now);
  }

  /**
   * What the reference stands for, for a client of this class. For GET the answer has a body.
   * @throws {RegistryError} the upstream's, where nothing that is kept may stand in
   */
  find(
    entry: RegistryEntry,
    key: RepositoryKey,
    reference: Reference,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { generation } = this.#options.store;
    if (generation !== this.#generation) {
      this.#generation = generation;
      this.#options.hot.clear();
    }
    return reference.kind === 'tag'
      ? this.#byTag(entry, key, reference.tag, client, method)
      : this.#byDigest(entry, key, reference.digest, client, method);
  }

  clear(): void {
    this.#misses.clear();
    this.#patience.clear();
  }

  #byTag(
    entry: RegistryEntry,
    key: RepositoryKey,
    tag: string,
    client: AcceptClass,
    method: Method,
  ): Promise<Found> | Found {
    const { config, now } = this.#options;
    const kept = this.#tags.find(entry, key, tag, client);
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
      if (isMissing(error) || isDenial(error)) this.#tags.drop(key, tag, client);
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
      const answer = this.#fromHead(entry, key, tag, client, await this.#request(key, reference, 'HEAD', client));
      if (answer !== null && (method === 'HEAD' || answer.get !== null)) return answer;
    }
    const manifest = await this.#request(key, reference, 'GET', client);
    return this.#tags.put(entry, key, tag, client, this.#keep(entry, key, manifest));
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
      this.#learn(entry, key, row.body);
      return this.#tags.put(entry, key, tag, client, row);
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
    this.#tags.putHead(key, tag, answer);
    return answer;
  }

  #byDigest(
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
    const { store, access } = this.#options;
    const flight = `${id} ${client.key}`;
    this.#misses.check(flight);
    const answer = await this.#flights.do(`${method} ${flight}`, async () => {
      const reference: Reference = { kind: 'digest', digest };
      try {
        const row = store.getManifest(digest);
        // It is here for another repository: this one only has to show that it has it too.
        if (row !== null && accepts(client, row.mediaType)) {
          await this.#request(key, reference, 'HEAD', client);
          access.proved(entry, key, [digest]);
          this.#learn(entry, key, row.body);
          return this.#ready(entry, id, row);
        }
        if (method === 'HEAD') {
          const head = await this.#request(key, reference, 'HEAD', client);
          if (head.size !== undefined) return this.#headOfDigest(entry, digest, head.mediaType, head.size);
        }
        return this.#ready(entry, id, this.#keep(entry, key, await this.#request(key, reference, 'GET', client)));
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

  #ready(entry: RegistryEntry, id: string, row: { digest: Digest; mediaType: string; body: Uint8Array }): Answer {
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

  async #request(
    key: RepositoryKey,
    reference: Reference,
    method: Method,
    client: AcceptClass,
  ): Promise<UpstreamManifest> {
    const { upstream, signal } = this.#options;
    const manifest = await upstream.manifest(key, reference, { method, accept: client.header, signal });
    const wrong = (reason: string) => new RegistryError('upstreamWrong', { facts: { registry: key.registry, reason } });
    // A login page or a proxy's message must never take an image's place.
    if (!/json/.test(manifest.mediaType) && /^(text|image|application\/(octet|xhtml|xml))/.test(manifest.mediaType)) {
      throw wrong(`a manifest of the type ${manifest.mediaType}`);
    }
    if (reference.kind === 'digest' && manifest.digest !== undefined && manifest.digest !== reference.digest) {
      throw wrong(`a manifest whose digest is ${manifest.digest}`);
    }
    if (method === 'GET' && (manifest.body === null || manifest.digest === undefined)) throw wrong('no manifest');
    return manifest;
  }

  /** Puts a fetched manifest away, with what follows from it: its repository holds it and the blobs that it names. */
  #keep(
    entry: RegistryEntry,
    key: RepositoryKey,
    manifest: UpstreamManifest,
  ): { digest: Digest; mediaType: string; body: Uint8Array } {
    const { digest, mediaType, body } = manifest;
    if (digest === undefined || body === null) throw new TypeError('a GET without body or digest');
    const row = { digest, mediaType, body };
    this.#options.store.putManifest(row);
    this.#options.access.proved(entry, key, [digest]);
    this.#learn(entry, key, body);
    return row;
  }

  #learn(entry: RegistryEntry, key: RepositoryKey, body: Uint8Array): void {
    const named = namedBlobs(body);
    if (named.length === 0) return;
    this.#options.access.proved(
      entry,
      key,
      named.map(({ digest }) => digest),
    );
    for (const { digest, size } of named) if (size !== undefined) this.#options.sizes.set(key, digest, size);
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
