import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** An image of the test's own, the same bytes for the same seed and sizes. */
export interface TestImage {
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
}

export interface Blob {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** Builds an image with one layer for each size (bytes of its one file, which do not compress). */
export function buildImage(seed: string, layerSizes: readonly number[]): TestImage {
  const tars = layerSizes.map((size, index) => tarOf(`${seed}-${index}.bin`, bytesOf(`${seed}/${index}`, size)));
  // Level 1: the content does not compress, and the tests have better things to do.
  const layers = tars.map((tar) => blob(LAYER, gzipSync(tar, { level: 1 })));
  const config = blob(
    CONFIG,
    Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        created: '2024-01-01T00:00:00Z',
        config: { Cmd: [`/${seed}`], Labels: { seed } },
        rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
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

/** Writes it as an OCI image layout (image-spec, *image-layout*), for skopeo's `oci:FOLDER:TAG`. */
export function writeLayout(image: TestImage, folder: string, tag: string): void {
  mkdirSync(join(folder, 'blobs', 'sha256'), { recursive: true });
  writeFileSync(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  for (const { digest, bytes } of [image.manifest, image.config, ...image.layers]) {
    writeFileSync(join(folder, 'blobs', 'sha256', digest.slice('sha256:'.length)), bytes);
  }
  const entry = { ...descriptor(image.manifest), annotations: { 'org.opencontainers.image.ref.name': tag } };
  writeFileSync(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function blob(mediaType: string, bytes: Buffer): Blob {
  return { mediaType, bytes, digest: digestOf(bytes) };
}

function descriptor({ mediaType, digest, bytes }: Blob): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size: bytes.length };
}

/** Bytes that no compression shrinks: a SHAKE stream of the seed. */
function bytesOf(seed: string, size: number): Buffer {
  return createHash('shake256', { outputLength: size }).update(seed).digest();
}

/** A tar archive (ustar, POSIX 1003.1) of one file. */
function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0, 100, 'latin1');
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return Buffer.concat([header, content, padding, Buffer.alloc(1024)]);
}
