import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { generatedLayer, sha256 } from './content.ts';

/** An image of the test's own, the same bytes for the same seed and sizes. */
export interface TestImage {
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  /** Where a tag names an index: that, and what it has beside the image. */
  readonly index?: { readonly manifest: Blob; readonly others: readonly Blob[] };
}

export interface Blob {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const ZSTD_LAYER = 'application/vnd.oci.image.layer.v1.tar+zstd';

/**
 * Builds an image with one layer for each size (bytes of its one file, which do not compress).
 * @param options.base what it is built on: its layers come first, and are the same
 */
export function buildImage(
  seed: string,
  layerSizes: readonly number[],
  options: { readonly base?: TestImage; readonly architecture?: string } = {},
): TestImage {
  const tars = layerSizes.map((size, index) => {
    const layer = generatedLayer(size, `${seed}-${index}`);
    return layer.read(0, layer.size);
  });
  const { base, architecture = 'amd64' } = options;
  // Level 1: the content does not compress, and the tests have better things to do.
  const own = tars.map((tar) => blob(LAYER, gzipSync(tar, { level: 1 })));
  const layers = [...(base?.layers ?? []), ...own];
  const below = (base?.layers ?? []).map(({ bytes }) => gunzipSync(bytes));
  const config = blob(
    CONFIG,
    Buffer.from(
      JSON.stringify({
        architecture,
        os: 'linux',
        created: '2024-01-01T00:00:00Z',
        config: { Cmd: [`/${seed}`], Labels: { seed } },
        rootfs: { type: 'layers', diff_ids: [...below, ...tars].map((tar) => sha256(tar)) },
        history: layers.map((_, index) => ({ created: '2024-01-01T00:00:00Z', created_by: `layer ${index}` })),
      }),
    ),
  );
  const manifest = blob(
    MANIFEST,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: descriptor(config),
        layers: layers.map(descriptor),
      }),
    ),
  );
  return { manifest, config, layers };
}

/** The same with its layers compressed by zstd. */
export function withZstd(image: TestImage): TestImage {
  const layers = image.layers.map(({ bytes }) => blob(ZSTD_LAYER, zstdCompressSync(gunzipSync(bytes))));
  const manifest = { ...(JSON.parse(image.manifest.bytes.toString()) as object), layers: layers.map(descriptor) };
  return { ...image, layers, manifest: blob(MANIFEST, Buffer.from(JSON.stringify(manifest))) };
}

/** An index of images, by their architectures; the first one is the image itself. */
export function withPlatforms(images: Readonly<Record<string, TestImage>>): TestImage {
  const [[, first], ...others] = Object.entries(images) as [[string, TestImage], ...[string, TestImage][]];
  const manifests = Object.entries(images).map(([architecture, image]) => ({
    ...descriptor(image.manifest),
    platform: { architecture, os: 'linux' },
  }));
  const index = blob(INDEX, Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests })));
  const blobs = others.flatMap(([, { manifest, config, layers }]) => [manifest, config, ...layers]);
  return { ...first, index: { manifest: index, others: blobs } };
}

/**
 * The same image as `docker buildx build` pushes it: in an index, with a manifest of attestations beside it that names it in an annotation. Docker
 * asks for what refers to such a manifest.
 */
export function withAttestation(image: TestImage): TestImage {
  const statement = blob(
    'application/vnd.in-toto+json',
    Buffer.from(
      JSON.stringify({ _type: 'https://in-toto.io/Statement/v0.1', subject: [{ name: image.manifest.digest }] }),
    ),
  );
  const config = blob(
    CONFIG,
    Buffer.from(
      JSON.stringify({
        architecture: 'unknown',
        os: 'unknown',
        config: {},
        rootfs: { type: 'layers', diff_ids: [statement.digest] },
      }),
    ),
  );
  const provenance = {
    ...descriptor(statement),
    annotations: { 'in-toto.io/predicate-type': 'https://slsa.dev/provenance/v0.2' },
  };
  const attestation = blob(
    MANIFEST,
    Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config: descriptor(config), layers: [provenance] }),
    ),
  );
  const annotations = {
    'vnd.docker.reference.type': 'attestation-manifest',
    'vnd.docker.reference.digest': image.manifest.digest,
  };
  const index = blob(
    INDEX,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: INDEX,
        manifests: [
          { ...descriptor(image.manifest), platform: { architecture: 'amd64', os: 'linux' } },
          { ...descriptor(attestation), platform: { architecture: 'unknown', os: 'unknown' }, annotations },
        ],
      }),
    ),
  );
  return { ...image, index: { manifest: index, others: [attestation, config, statement] } };
}

/** What a tag of it names. */
export function topOf(image: TestImage): Blob {
  return image.index?.manifest ?? image.manifest;
}

/** Writes it as an OCI image layout (image-spec, *image-layout*), for skopeo's `oci:FOLDER:TAG`. */
export function writeLayout(image: TestImage, folder: string, tag: string): void {
  mkdirSync(join(folder, 'blobs', 'sha256'), { recursive: true });
  writeFileSync(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const inIndex = image.index === undefined ? [] : [image.index.manifest, ...image.index.others];
  for (const { digest, bytes } of [image.manifest, image.config, ...image.layers, ...inIndex]) {
    writeFileSync(join(folder, 'blobs', 'sha256', digest.slice('sha256:'.length)), bytes);
  }
  const entry = { ...descriptor(topOf(image)), annotations: { 'org.opencontainers.image.ref.name': tag } };
  writeFileSync(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
}

function blob(mediaType: string, bytes: Buffer): Blob {
  return { mediaType, bytes, digest: sha256(bytes) };
}

function descriptor({ mediaType, digest, bytes }: Blob): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size: bytes.length };
}
