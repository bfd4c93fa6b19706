import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type Content, generated } from '../../test/support/content.ts';

/** An image as the benchmark's origin serves it. */
export interface Image {
  readonly repository: string;
  readonly tag: string;
  readonly manifestSize: number;
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly layers: readonly Content[];
}

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const CHUNK = 1024 * 1024;

/**
 * Lays an image out as plain files, in the paths of the registry API, so that a static file server is an origin:
 * `v2/<repository>/manifests/{<tag>,<digest>}` and `v2/<repository>/blobs/<digest>`.
 */
export function layOut(root: string, repository: string, tag: string, layerSizes: readonly number[]): Image {
  const blobs = join(root, 'v2', repository, 'blobs');
  const manifests = join(root, 'v2', repository, 'manifests');
  mkdirSync(blobs, { recursive: true });
  mkdirSync(manifests, { recursive: true });
  const layers = layerSizes.map((size, index) => noise(blobs, size, `${repository}:${tag}:${index}`));
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: layers.map(({ digest }) => digest) },
  });
  const configDigest = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  writeFileSync(join(blobs, configDigest), config);
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: configDigest, size: config.length },
    layers: layers.map(({ digest, size }) => ({ mediaType: LAYER_TYPE, digest, size })),
  });
  const manifestDigest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`;
  for (const name of [tag, manifestDigest]) writeFileSync(join(manifests, name), manifest);
  return { repository, tag, manifestSize: manifest.length, manifestDigest, configDigest, layers };
}

/** Writes `size` bytes that no layer of this program compresses or shares; the same for the same seed. */
function noise(directory: string, size: number, seed: string): Content {
  const content = generated(size, seed);
  const file = openSync(join(directory, content.digest), 'w');
  for (let at = 0; at < size; at += CHUNK) writeSync(file, content.read(at, Math.min(size, at + CHUNK)));
  closeSync(file);
  return content;
}
