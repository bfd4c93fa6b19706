import { registryOf } from '../../aliases/lookup.ts';
import type { TableSnapshot } from '../../aliases/table.ts';
import type { Fact } from '../../cache/index-port.ts';
import type { Intake } from '../../cache/intake.ts';
import type { Shown } from '../../oci/credentials.ts';
import { readDocument } from '../../oci/document-reader.ts';
import type { NamedContent } from '../../oci/documents.ts';
import { manifestTypeOf } from '../../oci/documents.ts';
import { canonicalRegistry, DOCKER_HUB } from '../../oci/known-registries.ts';
import { acceptClass, variantOf } from '../../oci/media-types.ts';
import { type Digest, isRegistryHost, type RepositoryKey, repositoryId } from '../../oci/names.ts';
import type { LayersImported } from '../contract.ts';
import { type DistributionStorage, isStoredRepository, type StoredTag } from './distribution-storage.ts';

/** A pull-through cache asks for every type that it knows, so what it has under a tag is what was pushed there. */
const EVERYTHING = acceptClass(undefined);
/** What is damaged is listed up to here; it is counted to its end. */
const MAX_LISTED = 100;

export interface LayersOptions {
  readonly storage: DistributionStorage;
  /** Whose content it is; null where the first part of each repository's name says so. */
  readonly registry: string | null;
  /** How far what a repository gave to the pull-through cache is a proof: with the credentials that it showed, or without. */
  readonly shown: (repository: RepositoryKey) => Shown;
  readonly link: boolean;
  readonly table: () => TableSnapshot;
  readonly intake: Intake;
  /** `cache.tagTtl`, ms. */
  readonly tagTtl: number;
  readonly now: number;
  readonly progress: (done: number, total: number, bytes: number) => void;
  readonly signal: AbortSignal;
}

interface Found {
  /** As the storage calls it. */
  readonly name: string;
  readonly key: RepositoryKey;
  readonly tags: readonly StoredTag[];
}

/**
 * Takes over what a `registry` has kept as a pull-through cache, as what its registry *gave* the operator: the storage is the operator's own
 * record of GETs, and each digest is proved again here. What was given while the cache showed credentials is closed, as if this gateway had fetched
 * it with them. A repository that its registry has refused since gets nothing back. Tags count as asked for when that cache asked last,
 * and never as fresh: the registry is asked before they are believed, and they are served while it fails.
 */
export async function importLayers(options: LayersOptions): Promise<LayersImported> {
  return new LayersImport(options).run();
}

class LayersImport {
  readonly #options: LayersOptions;
  readonly #count = { repositories: 0, manifests: 0, tags: 0, blobs: 0, bytes: 0, linked: 0, held: 0, damaged: 0 };
  readonly #damaged: { digest: string; repository: string; reason: string }[] = [];
  readonly #unknown = new Set<string>();
  readonly #denied: string[] = [];
  readonly #odd: string[] = [];
  #left = 0;

  constructor(options: LayersOptions) {
    this.#options = options;
  }

  async run(): Promise<LayersImported> {
    const { progress, signal } = this.#options;
    const found = await this.#find();
    for (const [at, repository] of found.entries()) {
      signal.throwIfAborted();
      progress(at, found.length, this.#count.bytes);
      const done = await this.#repository(repository);
      if (!done) {
        this.#left = found.length - at;
        break;
      }
      this.#count.repositories++;
    }
    progress(found.length, found.length, this.#count.bytes);
    return {
      ...this.#count,
      damagedList: this.#damaged,
      unknownRegistries: [...this.#unknown].sort(),
      denied: this.#denied,
      notUnderstood: this.#odd,
      left: this.#left,
    };
  }

  /** What was asked for last comes first, so that a small cache gets what is in use. */
  async #find(): Promise<Found[]> {
    const { storage, intake, table, signal } = this.#options;
    const found: Found[] = [];
    for await (const name of storage.repositories()) {
      signal.throwIfAborted();
      const key = this.#keyOf(name);
      if (key === null) continue;
      if (registryOf(table(), key.registry) === undefined) this.#unknown.add(key.registry);
      else if (intake.wasDenied(key)) this.#denied.push(repositoryId(key));
      else found.push({ name, key, tags: await storage.tags(name) });
    }
    const newest = ({ tags }: Found) => Math.max(0, ...tags.map(({ at }) => at));
    return found.sort((one, other) => newest(other) - newest(one));
  }

  #keyOf(name: string): RepositoryKey | null {
    const { registry, table } = this.#options;
    const [first = '', ...rest] = name.split('/');
    const host = registry ?? (isRegistryHost(first) && rest.length > 0 ? first : null);
    const repository = registry === null ? rest.join('/') : name;
    if (host === null || !isStoredRepository(repository)) {
      if (this.#odd.length < MAX_LISTED) this.#odd.push(name);
      return null;
    }
    // Docker Hub's images of one name have two.
    const known = registryOf(table(), host)?.host ?? canonicalRegistry(host);
    const whole = known === DOCKER_HUB && !repository.includes('/') ? `library/${repository}` : repository;
    return { registry: known, repository: whole };
  }

  /** False where there is no room for more. */
  async #repository({ name, key, tags }: Found): Promise<boolean> {
    const { storage, intake } = this.#options;
    const shown = this.#options.shown(key);
    const taken = new Set<Digest>();
    let room = true;
    for (const digest of await storage.manifests(name)) {
      const body = await storage.readManifest(digest);
      if (body === null) {
        this.#damage(digest, key, 'its file is gone, or larger than a manifest');
        continue;
      }
      const mediaType = manifestTypeOf(body);
      if (mediaType === null) {
        if (this.#odd.length < MAX_LISTED) this.#odd.push(`${repositoryId(key)}@${digest}`);
        continue;
      }
      if (!intake.manifest(digest, body, await storage.manifestAt(name, digest))) {
        this.#damage(digest, key, 'its bytes are not those of its digest');
        continue;
      }
      taken.add(digest);
      this.#count.manifests++;
      const reading = await readDocument('manifest', body, { mediaType }, { registry: key.registry });
      const named = reading?.named ?? [];
      const facts: Fact[] = [{ repository: key, digest, said: null, gave: shown, mediaType }];
      for (const one of named) facts.push(saidOf(key, one, shown));
      for (const one of named) {
        if (one.kind !== 'blob' || !(await storage.hasLayer(name, one.digest))) continue;
        const held = room ? await this.#blob(key, one.digest) : 'no-room';
        if (held === 'no-room') room = false;
        else if (held) facts.push({ repository: key, digest: one.digest, said: null, gave: shown, mediaType: null });
      }
      intake.facts(facts);
    }
    for (const tag of tags) if (taken.has(tag.digest)) await this.#tag(key, tag);
    return room;
  }

  /** Whether the cache has it now. */
  async #blob(key: RepositoryKey, digest: Digest): Promise<boolean | 'no-room'> {
    const { storage, intake, link, signal } = this.#options;
    signal.throwIfAborted();
    const taken = await intake.blob(storage.blob(digest), digest, { link, signal });
    if (taken.outcome === 'no-room') return 'no-room';
    if (taken.outcome === 'damaged') {
      this.#damage(digest, key, taken.reason);
      return false;
    }
    if (taken.outcome === 'held') this.#count.held++;
    else {
      this.#count.blobs++;
      this.#count.bytes += taken.bytes;
      if (taken.linked) this.#count.linked++;
    }
    return true;
  }

  async #tag(key: RepositoryKey, { tag, digest, at }: StoredTag): Promise<void> {
    const { storage, intake, tagTtl, now } = this.#options;
    const body = await storage.readManifest(digest);
    const mediaType = body === null ? null : manifestTypeOf(body);
    if (mediaType === null) return;
    const checkedAt = Math.min(at, now - tagTtl - 1);
    intake.tag(key, tag, variantOf(EVERYTHING, mediaType), { digest, checkedAt });
    this.#count.tags++;
  }

  #damage(digest: Digest, key: RepositoryKey, reason: string): void {
    this.#count.damaged++;
    if (this.#damaged.length < MAX_LISTED) this.#damaged.push({ digest, repository: repositoryId(key), reason });
  }
}

function saidOf(repository: RepositoryKey, { digest, mediaType }: NamedContent, said: Shown): Fact {
  return { repository, digest, said, gave: null, mediaType: mediaType ?? null };
}
