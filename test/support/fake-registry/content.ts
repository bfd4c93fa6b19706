import type { Digest } from '../../../src/oci/names.ts';
import { type Content, contentOf, sha256 } from '../content.ts';

export const MEDIA = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  empty: 'application/vnd.oci.empty.v1+json',
} as const;

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Record<string, string>;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

export interface StoredManifest {
  readonly body: Buffer;
  readonly mediaType: string;
  readonly digest: Digest;
  readonly artifactType: string | undefined;
  readonly subject: Digest | undefined;
}

/** What a repository holds; filled by the test, read by the server. */
export class RepositoryContent {
  readonly blobs = new Map<string, Content>();
  readonly manifests = new Map<string, StoredManifest>();
  readonly tags = new Map<string, Digest>();

  addBlob(content: Content | Uint8Array | string): Content {
    const blob = typeof content === 'string' || content instanceof Uint8Array ? contentOf(content) : content;
    this.blobs.set(blob.digest, blob);
    return blob;
  }

  addManifest(body: Uint8Array | string | object, mediaType: string, tag?: string): StoredManifest {
    const bytes =
      typeof body === 'string' || body instanceof Uint8Array
        ? Buffer.from(body as Uint8Array)
        : Buffer.from(JSON.stringify(body));
    const stored: StoredManifest = { body: bytes, mediaType, digest: sha256(bytes), ...linksOf(bytes) };
    this.manifests.set(stored.digest, stored);
    if (tag !== undefined) this.tags.set(tag, stored.digest);
    return stored;
  }

  /** An image that real clients can pull: layers are tars or any bytes; `mediaType` of a layer defaults to a plain tar. */
  addImage(
    tag: string | undefined,
    layers: readonly (Content | Uint8Array | string)[],
    options: { subject?: StoredManifest; artifactType?: string; docker?: boolean; label?: string } = {},
  ): StoredManifest & { readonly layers: readonly Content[]; readonly config: Content } {
    const blobs = layers.map((layer) => this.addBlob(layer));
    const config = this.addBlob(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        config: { Labels: { label: options.label ?? tag ?? '' } },
        rootfs: { type: 'layers', diff_ids: blobs.map((blob) => blob.digest) },
      }),
    );
    const docker = options.docker ?? false;
    const mediaType = docker ? MEDIA.dockerManifest : MEDIA.manifest;
    const stored = this.addManifest(
      {
        schemaVersion: 2,
        mediaType,
        ...(options.artifactType === undefined ? {} : { artifactType: options.artifactType }),
        config: {
          mediaType: docker ? 'application/vnd.docker.container.image.v1+json' : MEDIA.config,
          digest: config.digest,
          size: config.size,
        },
        layers: blobs.map((blob) => ({
          mediaType: docker ? 'application/vnd.docker.image.rootfs.diff.tar' : MEDIA.layer,
          digest: blob.digest,
          size: blob.size,
        })),
        ...(options.subject === undefined ? {} : { subject: descriptorOf(options.subject) }),
      },
      mediaType,
      tag,
    );
    return { ...stored, layers: blobs, config };
  }

  addIndex(
    tag: string | undefined,
    manifests: readonly StoredManifest[],
    mediaType: string = MEDIA.index,
  ): StoredManifest {
    return this.addManifest(
      {
        schemaVersion: 2,
        mediaType,
        manifests: manifests.map((manifest, i) => ({
          ...descriptorOf(manifest),
          platform: { os: 'linux', architecture: ['amd64', 'arm64', 's390x'][i] ?? `arch${i}` },
        })),
      },
      mediaType,
      tag,
    );
  }

  manifest(reference: string): StoredManifest | undefined {
    return this.manifests.get(reference) ?? this.manifests.get(this.tags.get(reference) ?? '');
  }

  referrersOf(digest: string): Descriptor[] {
    return [...this.manifests.values()]
      .filter((manifest) => manifest.subject === digest)
      .map((manifest) => ({
        ...descriptorOf(manifest),
        ...(manifest.artifactType === undefined ? {} : { artifactType: manifest.artifactType }),
      }));
  }
}

function descriptorOf(manifest: StoredManifest): Descriptor {
  return { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.body.length };
}

function linksOf(body: Buffer): { subject: Digest | undefined; artifactType: string | undefined } {
  try {
    const parsed = JSON.parse(body.toString()) as {
      subject?: { digest: Digest };
      artifactType?: string;
      config?: { mediaType: string };
    };
    return { subject: parsed.subject?.digest, artifactType: parsed.artifactType ?? parsed.config?.mediaType };
  } catch {
    return { subject: undefined, artifactType: undefined };
  }
}
