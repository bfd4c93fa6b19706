import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { ImageName } from './image-name.ts';
import { type ImageSource, SourceError, type SourceManifest } from './image-source.ts';
import { type Descriptor, type ManifestContent, readManifestContent } from './manifest.ts';
import { isPlatform, type Platform, platformText } from './platform.ts';

/** Which parts of an image are wanted. */
export interface Selection {
  /** Of an index, the images for these; null for all of them. */
  readonly platforms: readonly Platform[] | null;
  /** With signatures, attestations and whatever else refers to the image. */
  readonly referrers: boolean;
}

/** One manifest of an image. */
export interface PlannedManifest extends SourceManifest {
  readonly content: ManifestContent;
  /** As its index says. */
  readonly platform: Platform | null;
  /** A tag by which it is found, beside the image's own: `sha256-….sig`. Null for all others. */
  readonly tag: string | null;
}

/** All that belongs to an image, as far as it is wanted. */
export interface ImagePlan {
  readonly image: ImageName;
  readonly root: PlannedManifest;
  /** Each once, what is named before what names it, so that they can be put into a registry in this order; the root among them. */
  readonly manifests: readonly PlannedManifest[];
  /** Each once, configurations before layers. Without those that are to be had elsewhere. */
  readonly blobs: readonly Descriptor[];
}

/** An index in an index is allowed; nobody nests them deeper. */
const MAX_DEPTH = 4;
/** No real image has more. */
const MAX_MANIFESTS = 2_000;
/** Bytes of all of an image's manifests, which are in memory together: real ones have some KiB each. */
const MAX_MANIFEST_BYTES = 32 * 1024 * 1024;

/** Tags under which cosign puts what belongs to an image, where a registry has no referrers API. */
const SIGNATURE_SUFFIXES = ['.sig', '.att', '.sbom'];

/**
 * Finds out what an image consists of, by its manifests.
 * @throws {SourceError} where one of them cannot be had, or the image is for none of the platforms
 */
export async function planImage(
  source: ImageSource,
  image: ImageName,
  selection: Selection,
  signal: AbortSignal,
): Promise<ImagePlan> {
  const walk = new Walk(source, image, selection, signal);
  const root = await walk.add(await source.manifest(image, image.reference, signal), null, 0);
  if (selection.referrers) await walk.addReferrers();
  const { manifests } = walk;
  if (manifests.every(({ content }) => content.kind === 'index')) throw noPlatform(image, selection, root.content);
  return { image, root, manifests, blobs: blobsOf(manifests) };
}

/** What the manifests name that a registry holds: each once, configurations before layers. Without what is to be had elsewhere. */
export function blobsOf(manifests: readonly Pick<PlannedManifest, 'content'>[]): Descriptor[] {
  const images = manifests.flatMap(({ content }) => (content.kind === 'image' ? [content] : []));
  const configs = images.flatMap(({ config }) => (config === null ? [] : [config]));
  const all = [...configs, ...images.flatMap(({ layers }) => layers)].filter(({ isForeign }) => !isForeign);
  return [...new Map(all.map((blob) => [blob.digest, blob])).values()];
}

/** Bytes of an image's blobs, as far as its manifests say. */
export function plannedBytes({ blobs }: Pick<ImagePlan, 'blobs'>): number {
  return blobs.reduce((sum, { size = 0 }) => sum + size, 0);
}

class Walk {
  readonly manifests: PlannedManifest[] = [];
  readonly #seen = new Map<Digest, PlannedManifest>();
  readonly #source: ImageSource;
  readonly #repository: RepositoryKey;
  readonly #selection: Selection;
  readonly #signal: AbortSignal;
  #bytes = 0;

  constructor(source: ImageSource, repository: RepositoryKey, selection: Selection, signal: AbortSignal) {
    this.#source = source;
    this.#repository = repository;
    this.#selection = selection;
    this.#signal = signal;
  }

  /** Adds a manifest and, before it, what it names. */
  async add(
    manifest: SourceManifest,
    platform: Platform | null,
    depth: number,
    tag: string | null = null,
  ): Promise<PlannedManifest> {
    const known = this.#seen.get(manifest.digest);
    if (known !== undefined) return known;
    const { registry, repository } = this.#repository;
    this.#bytes += manifest.body.length;
    if (this.#bytes > MAX_MANIFEST_BYTES)
      throw new SourceError(502, 'UNAVAILABLE', `${registry}/${repository} has more than 32 MiB of manifests`);
    const content = readManifestContent(manifest.body, manifest.mediaType);
    if (content === null || depth > MAX_DEPTH || this.#seen.size >= MAX_MANIFESTS)
      throw new SourceError(502, 'UNAVAILABLE', `${registry}/${repository}@${manifest.digest} is no image's manifest`);
    const planned = { ...manifest, content, platform, tag };
    this.#seen.set(manifest.digest, planned);
    if (content.kind === 'index') {
      for (const child of this.#wanted(content.manifests)) {
        const reference = { kind: 'digest', digest: child.digest } as const;
        await this.add(
          await this.#source.manifest(this.#repository, reference, this.#signal),
          child.platform,
          depth + 1,
        );
      }
    }
    this.manifests.push(planned);
    return planned;
  }

  /** What refers to any of the manifests, by the referrers API or by cosign's tags. */
  async addReferrers(): Promise<void> {
    for (const { digest } of [...this.manifests]) {
      const index = await this.#source.referrers(this.#repository, digest, this.#signal).catch(unlessMissing);
      const found = index === null ? null : readManifestContent(index, '');
      for (const { digest: referrer } of found?.kind === 'index' ? found.manifests : []) {
        const reference = { kind: 'digest', digest: referrer } as const;
        await this.add(await this.#source.manifest(this.#repository, reference, this.#signal), null, 1);
      }
      for (const suffix of SIGNATURE_SUFFIXES) {
        const tag = `${digest.replace(':', '-')}${suffix}`;
        const signature = await this.#source
          .manifest(this.#repository, { kind: 'tag', tag }, this.#signal)
          .catch(unlessMissing);
        if (signature !== null) await this.add(signature, null, 1, tag);
      }
    }
  }

  #wanted(manifests: readonly Descriptor[]): readonly Descriptor[] {
    const { platforms } = this.#selection;
    if (platforms === null) return manifests;
    // What is in an index without a platform (an artifact's parts) belongs to all of them; `unknown` is what buildkit's attestations have.
    return manifests.filter(
      ({ platform }) => platform === null || platforms.some((wanted) => isPlatform(platform, wanted)),
    );
  }
}

function unlessMissing(error: unknown): null {
  if (error instanceof SourceError && error.isMissing) return null;
  throw error;
}

function noPlatform({ text }: ImageName, { platforms }: Selection, content: ManifestContent): SourceError {
  const offered =
    content.kind === 'index'
      ? content.manifests.flatMap(({ platform }) => (platform === null ? [] : [platformText(platform)]))
      : [];
  const wanted = (platforms ?? []).map(platformText).join(', ');
  const has = offered.length === 0 ? '' : `; it is for ${[...new Set(offered)].join(', ')}`;
  return new SourceError(
    404,
    'MANIFEST_UNKNOWN',
    `${text} is not for ${wanted === '' ? 'any platform' : wanted}${has}`,
  );
}
