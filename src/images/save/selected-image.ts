import { createHash } from 'node:crypto';
import { isObject, parseJsonObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED } from '../../oci/media-types.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../oci/names.ts';
import type { ImageName } from '../image-name.ts';
import { type ImagePlan, type PlannedManifest, planImage } from '../image-plan.ts';
import type { ImageSource } from '../image-source.ts';
import type { Descriptor } from '../manifest.ts';
import { isPlatform, isUsualVariant, ownPlatform, type Platform, platformText } from '../platform.ts';
import { SteadyBlob } from '../steady-blob.ts';

/**
 * `docker-archive`: what `docker save` writes and every `docker load` takes, an image for one platform under each name. `oci`: an image layout, in
 * which indexes and what refers to images have their place (image-spec, *Image Layout*).
 */
export type ArchiveFormat = 'docker-archive' | 'oci';

/** What is to be in an archive. */
export interface SaveRequest {
  readonly images: readonly ImageName[];
  readonly format: ArchiveFormat;
  /** Null: of this machine for a docker-archive, all that there are for a layout. */
  readonly platforms: readonly Platform[] | null;
  readonly referrers: boolean;
}

/** Content whose size is known. */
export type SizedDescriptor = Descriptor & { readonly size: number };

/** One image as it goes into an archive. */
export interface SelectedImage {
  readonly image: ImageName;
  /** What the name stands for in the archive. */
  readonly top: PlannedManifest;
  /** All of its manifests, what is named before what names it, without those that refer to it. */
  readonly manifests: readonly PlannedManifest[];
  /** Manifests of signatures and whatever else refers to it. */
  readonly referrers: readonly PlannedManifest[];
  /** Configurations that were read already. */
  readonly configs: ReadonlyMap<Digest, ImageConfig>;
  /** What the person should know, a sentence each. */
  readonly notes: readonly string[];
}

/** The configuration of a container image (image-spec, *Image Configuration*). */
export interface ImageConfig {
  readonly bytes: Uint8Array;
  /** Null where it does not say, as those of artifacts. */
  readonly platform: Platform | null;
  /** How many layers its file system has; null for what is no container image. */
  readonly layers: number | null;
}

/** The largest configuration that is read; skopeo and podman read no larger one. */
const MAX_CONFIG = 4 * 1024 * 1024;
/** No layer is larger; a manifest that says so is not believed. */
const MAX_BLOB = 1024 ** 4;

/**
 * Finds an image's manifests and chooses those that go into the archive.
 * @throws {SourceError}
 * @throws {OperatorError} `IMAGE_UNSUITABLE`, `IMAGE_DAMAGED`
 */
export async function selectImage(
  source: ImageSource,
  image: ImageName,
  { format, platforms: asked, referrers }: SaveRequest,
  signal: AbortSignal,
): Promise<SelectedImage> {
  const platforms = asked ?? (format === 'docker-archive' ? [ownPlatform()] : null);
  const plan = await planImage(source, image, { platforms, referrers }, signal);
  for (const manifest of plan.manifests) checkManifest(image, manifest);
  const belonging = reachable(plan);
  const referring = plan.manifests.filter((manifest) => !belonging.has(manifest));
  const stale = plan.root.warning === null ? [] : [`${image.text}: ${plan.root.warning}`];
  // An index with attestations beside one image is not worth keeping where the image alone was asked for.
  const only =
    platforms?.length === 1 && referring.length === 0 ? onlyImage(plan, platforms[0] as Platform, format) : null;
  const top = only ?? plan.root;
  const manifests = only === null ? plan.manifests.filter((manifest) => belonging.has(manifest)) : [only];
  const configs = new Map<Digest, ImageConfig>();
  const notes = [...stale];
  if (format === 'docker-archive') {
    const { digest, config } = await readConfig(source, image, top, signal);
    configs.set(digest, config);
    checkLoadable(image, top, config);
  }
  if (top === plan.root && top.content.kind === 'image' && platforms !== null)
    notes.push(...(await checkPlatform(source, image, top, { platforms, asked, configs }, signal)));
  const foreign = manifests.flatMap(layersOf).filter(({ isForeign }) => isForeign);
  if (foreign.length > 0)
    notes.push(
      `${image.text} has ${foreign.length} layers that are to be had elsewhere (urls in their descriptors); they are not in the archive`,
    );
  return { image, top, manifests, referrers: referring, configs, notes };
}

/** A blob of an image whose size its manifest tells, and can be true. @throws {OperatorError} `IMAGE_DAMAGED` */
export function sized(image: ImageName, blob: Descriptor): SizedDescriptor {
  const { size, digest } = blob;
  if (size === undefined || size > MAX_BLOB)
    throw damaged(image, `its manifest says of ${digest} that it has ${size ?? 'no'} bytes`);
  return { ...blob, size };
}

export function layersOf({ content }: PlannedManifest): readonly Descriptor[] {
  return content.kind === 'image' ? content.layers : [];
}

export function configOf({ content }: PlannedManifest): Descriptor | null {
  return content.kind === 'image' ? content.config : null;
}

function checkManifest(image: ImageName, { digest, mediaType, body, content }: PlannedManifest): void {
  if (mediaType === DOCKER_SCHEMA1 || mediaType === DOCKER_SCHEMA1_SIGNED)
    throw unsuitable(
      image,
      "is in Docker's first form (schema 1), which neither docker load nor image layouts know",
      'pull it with an old Docker and push it again, or ask its publisher for a newer one',
    );
  const hash = createHash(digestAlgorithm(digest)).update(body).digest('hex');
  if (hash !== digestHex(digest)) throw damaged(image, `what came as the manifest ${digest} is something else`);
  if (content.kind === 'index') for (const child of content.manifests) sized(image, child);
}

/** The root and all below it. */
function reachable({ root, manifests }: ImagePlan): ReadonlySet<PlannedManifest> {
  const byDigest = new Map(manifests.map((manifest) => [manifest.digest, manifest]));
  const found = new Set<PlannedManifest>();
  const add = (manifest: PlannedManifest | undefined): void => {
    if (manifest === undefined || found.has(manifest)) return;
    found.add(manifest);
    if (manifest.content.kind === 'index')
      for (const { digest } of manifest.content.manifests) add(byDigest.get(digest));
  };
  add(root);
  return found;
}

/** The one image for a platform; null where several are meant. @throws {OperatorError} `IMAGE_UNSUITABLE` */
function onlyImage(plan: ImagePlan, wanted: Platform, format: ArchiveFormat): PlannedManifest | null {
  if (plan.root.content.kind === 'image') return plan.root;
  const images = plan.manifests.filter(({ content }) => content.kind === 'image');
  const named = images.filter(({ platform }) => platform !== null && isPlatform(platform, wanted));
  const candidates = named.length > 0 ? named : images;
  if (candidates.length === 1) return candidates[0] as PlannedManifest;
  if (format === 'oci') return null;
  const usual = candidates.find(({ platform }) => platform !== null && isUsualVariant(platform));
  if (usual !== undefined) return usual;
  const has = candidates.map(({ platform, digest }) => (platform === null ? digest : platformText(platform)));
  throw unsuitable(
    plan.image,
    `has several images for ${platformText(wanted)}: ${has.join(', ')}`,
    'name one: --platform',
  );
}

async function readConfig(
  source: ImageSource,
  image: ImageName,
  manifest: PlannedManifest,
  signal: AbortSignal,
): Promise<{ readonly digest: Digest; readonly config: ImageConfig }> {
  const found = configOf(manifest);
  if (found === null)
    throw unsuitable(image, 'has no configuration, and is no container image', 'keep it with --format oci');
  const { digest, size } = sized(image, found);
  if (size > MAX_CONFIG) throw damaged(image, `its configuration has ${size} bytes`);
  const { registry, repository } = image;
  const blob = new SteadyBlob({ source, key: { registry, repository, digest }, size, from: 0, signal });
  try {
    const bytes = await blob.whole();
    return { digest, config: { bytes, ...configContent(bytes) } };
  } finally {
    await blob.close();
  }
}

function configContent(bytes: Uint8Array): Omit<ImageConfig, 'bytes'> {
  const { os, architecture, variant, rootfs } = parseJsonObject(bytes) ?? {};
  const layers = isObject(rootfs) && Array.isArray(rootfs.diff_ids) ? rootfs.diff_ids.length : null;
  // Images made by programs that do not care have them empty.
  if (typeof os !== 'string' || typeof architecture !== 'string' || os === '' || architecture === '')
    return { platform: null, layers };
  return { platform: { os, architecture, variant: typeof variant === 'string' ? variant : '' }, layers };
}

/** What `docker load` refuses is refused before anything is fetched. */
function checkLoadable(image: ImageName, manifest: PlannedManifest, config: ImageConfig): void {
  const layers = layersOf(manifest);
  if (config.layers === null) throw unsuitable(image, 'is no container image', 'keep it with --format oci');
  if (config.layers !== layers.length)
    throw damaged(image, `its manifest has ${layers.length} layers, and its configuration ${config.layers}`);
  if (layers.some(({ isForeign }) => isForeign))
    throw unsuitable(
      image,
      'has layers that are to be had elsewhere (urls in their descriptors), without which docker load takes no image',
      'keep it without them: --format oci',
    );
}

/** An image that stands alone says in its configuration what it is for. */
async function checkPlatform(
  source: ImageSource,
  image: ImageName,
  manifest: PlannedManifest,
  {
    platforms,
    asked,
    configs,
  }: {
    readonly platforms: readonly Platform[];
    readonly asked: readonly Platform[] | null;
    readonly configs: Map<Digest, ImageConfig>;
  },
  signal: AbortSignal,
): Promise<string[]> {
  const descriptor = configOf(manifest);
  if (descriptor === null) return [];
  let config = configs.get(descriptor.digest);
  if (config === undefined) {
    ({ config } = await readConfig(source, image, manifest, signal));
    configs.set(descriptor.digest, config);
  }
  const { platform } = config;
  if (platform === null || platforms.some((wanted) => isPlatform(platform, wanted))) return [];
  const wanted = platforms.map(platformText).join(', ');
  const message = `is for ${platformText(platform)} alone, and not for ${wanted}`;
  // As docker pull, which takes what there is and says so, unless a platform was named.
  if (asked === null) return [`${image.text} ${message}`];
  throw unsuitable(image, message, 'leave --platform out, or name another image');
}

function unsuitable({ text }: ImageName, what: string, next: string): OperatorError {
  return new OperatorError('IMAGE_UNSUITABLE', `${text} ${what}`, { next });
}

export function damaged({ text }: ImageName, what: string): OperatorError {
  return new OperatorError('IMAGE_DAMAGED', `${text}: ${what}`);
}
