import { OCI_INDEX } from '../../oci/media-types.ts';
import type { Digest } from '../../oci/names.ts';
import type { ImageName } from '../image-name.ts';
import type { PlannedManifest } from '../image-plan.ts';
import type { ImageSource } from '../image-source.ts';
import { type Platform, platformText } from '../platform.ts';
import { type BlobMember, blobPath, type DocumentMember, type Member } from './members.ts';
import {
  configOf,
  damaged,
  layersOf,
  type SaveRequest,
  type SelectedImage,
  selectImage,
  sized,
} from './selected-image.ts';

/** What is in an archive under a name; of an index, a row for each image in it. */
export interface SavedImage {
  /** The whole name, as `docker.io/library/alpine:3.20`. */
  readonly image: string;
  /** Of the image's manifest. */
  readonly digest: Digest;
  /** Of the index that it is part of and that is in the archive too; null where there is none. */
  readonly index: Digest | null;
  /** Null where neither index nor configuration were needed to tell. */
  readonly platform: string | null;
  readonly layers: number;
}

export interface ArchivePlan {
  /** In their order: what tells one archive from another first, then manifests, then blobs. */
  readonly members: readonly Member[];
  readonly images: readonly SavedImage[];
  /** What the person should know, a sentence each. */
  readonly notes: readonly string[];
}

/** What names an image where containerd, and Docker over it, import a layout. */
const CONTAINERD_NAME = 'io.containerd.image.name';
/** The name in a layout (image-spec, *Pre-Defined Annotation Keys*). Whole, so that images of the same tag have different ones. */
const REF_NAME = 'org.opencontainers.image.ref.name';

/** Layers that not all of those that take an archive can unpack. */
const ZSTD = /[+.]zstd$/;

/**
 * What an archive of these images consists of. All manifests are read for it, and no layer.
 * @throws {SourceError}
 * @throws {OperatorError} `IMAGE_UNSUITABLE`, `IMAGE_DAMAGED`
 */
export async function planArchive(
  source: ImageSource,
  request: SaveRequest,
  signal: AbortSignal,
): Promise<ArchivePlan> {
  const selected: SelectedImage[] = [];
  for (const image of distinct(request.images)) selected.push(await selectImage(source, image, request, signal));
  const documents = new Map<string, DocumentMember>();
  const put = (name: string, bytes: Uint8Array): void => void documents.set(name, { name, bytes });
  put('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  put('index.json', json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: selected.flatMap(indexEntries) }));
  if (request.format === 'docker-archive') put('manifest.json', json(dockerManifests(selected)));
  const blobs = new Map<string, BlobMember>();
  for (const one of selected) {
    for (const { digest, body } of [...one.manifests, ...one.referrers]) put(blobPath(digest), body);
    for (const [digest, { bytes }] of one.configs) put(blobPath(digest), bytes);
  }
  for (const one of selected) {
    for (const member of blobsOf(one)) {
      const known = blobs.get(member.name);
      if (known !== undefined && known.blob.size !== member.blob.size)
        throw damaged(
          one.image,
          `${member.blob.digest} has ${member.blob.size} bytes here, and ${known.blob.size} in ${known.image.text}`,
        );
      if (known === undefined && !documents.has(member.name)) blobs.set(member.name, member);
    }
  }
  const members = [...documents.values(), ...blobs.values()];
  const zstd = selected.filter(({ manifests }) =>
    manifests.flatMap(layersOf).some(({ mediaType }) => ZSTD.test(mediaType)),
  );
  return {
    members,
    images: selected.flatMap(savedImages),
    notes: [...selected.flatMap(({ notes }) => notes), ...zstd.map(zstdNote)],
  };
}

function distinct(images: readonly ImageName[]): ImageName[] {
  return [...new Map(images.map((image) => [image.text, image])).values()];
}

function indexEntries({ image, top, referrers, configs }: SelectedImage): unknown[] {
  const named = isNamed(image, top) ? { annotations: { [CONTAINERD_NAME]: image.text, [REF_NAME]: image.text } } : {};
  const platform = platformOf(top, configs);
  const first = { ...descriptorOf(top), ...(platform === null ? {} : { platform: toJson(platform) }), ...named };
  // What only belongs to what refers (an index of attestations has its own parts) is found by that.
  const others = referrers.filter((one) => !referrers.some((other) => names(other, one.digest)));
  const tagged = (tag: string | null) =>
    tag === null ? {} : { annotations: { [REF_NAME]: `${image.registry}/${image.repository}:${tag}` } };
  return [first, ...others.map((one) => ({ ...descriptorOf(one), ...tagged(one.tag) }))];
}

/** A name with a digest is that of nothing else. */
function isNamed({ tag, reference }: ImageName, { digest }: PlannedManifest): boolean {
  return tag !== null || (reference.kind === 'digest' && reference.digest === digest);
}

function names({ content }: PlannedManifest, digest: Digest): boolean {
  return content.kind === 'index' && content.manifests.some((child) => child.digest === digest);
}

function descriptorOf({ mediaType, digest, body }: PlannedManifest): Record<string, unknown> {
  return { mediaType, digest, size: body.length };
}

/**
 * `manifest.json` as `docker load` reads it: an entry for each image, however many names it has (moby, *image/tarexport*). The names are whole ones: Docker
 * shows them short all the same, and podman would take short ones for names of its own.
 */
function dockerManifests(selected: readonly SelectedImage[]): unknown[] {
  const entries = new Map<Digest, { Config: string; RepoTags: string[]; Layers: string[] }>();
  for (const { image, top } of selected) {
    const config = configOf(top);
    if (config === null) continue;
    const known = entries.get(top.digest);
    const entry = known ?? {
      Config: blobPath(config.digest),
      RepoTags: [],
      Layers: layersOf(top).map(({ digest }) => blobPath(digest)),
    };
    if (image.tag !== null) entry.RepoTags.push(`${image.registry}/${image.repository}:${image.tag}`);
    entries.set(top.digest, entry);
  }
  // Docker writes null where there is no name, and skopeo reads both.
  return [...entries.values()].map((entry) => ({
    ...entry,
    RepoTags: entry.RepoTags.length === 0 ? null : entry.RepoTags,
  }));
}

function* blobsOf({ image, manifests, referrers, configs }: SelectedImage): Generator<BlobMember> {
  for (const manifest of [...manifests, ...referrers]) {
    const config = configOf(manifest);
    if (config !== null && !configs.has(config.digest) && !config.isForeign)
      yield member(image, sized(image, config), 'configuration');
    const layers = layersOf(manifest);
    for (const [index, layer] of layers.entries())
      if (!layer.isForeign) yield member(image, sized(image, layer), `layer ${index + 1} of ${layers.length}`);
  }
}

function member(image: ImageName, blob: BlobMember['blob'], label: string): BlobMember {
  return { name: blobPath(blob.digest), blob, image, label };
}

function savedImages({ image, top, manifests, configs }: SelectedImage): SavedImage[] {
  return manifests.flatMap((manifest) => {
    if (manifest.content.kind !== 'image') return [];
    const platform = platformOf(manifest, configs);
    // Attestations are in the index of what they attest, for a platform of this name.
    if (platform?.os === 'unknown') return [];
    return {
      image: image.text,
      digest: manifest.digest,
      index: top.content.kind === 'index' ? top.digest : null,
      platform: platform === null ? null : platformText(platform),
      layers: manifest.content.layers.length,
    };
  });
}

function platformOf(manifest: PlannedManifest, configs: SelectedImage['configs']): Platform | null {
  const config = configOf(manifest);
  const own = config === null ? undefined : configs.get(config.digest)?.platform;
  return manifest.platform ?? own ?? null;
}

function toJson({ os, architecture, variant }: Platform): Record<string, string> {
  return { architecture, os, ...(variant === '' ? {} : { variant }) };
}

function zstdNote({ image }: SelectedImage): string {
  return `${image.text} has layers compressed by zstd, which Docker 20.10 does not unpack; newer ones, podman, containerd and skopeo do`;
}

function json(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}
