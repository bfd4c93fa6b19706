import { Glob } from '../kit/glob.ts';
import { isObject, parseJsonObject } from '../kit/json.ts';
import { markOf } from './link-trail.ts';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1,
  DOCKER_SCHEMA1_SIGNED,
  essence,
  isMediaType,
  OCI_ARTIFACT,
  OCI_INDEX,
  OCI_MANIFEST,
} from './media-types.ts';
import { type Digest, isTag, parseDigest } from './names.ts';

// What the documents of a registry say: manifests, lists of tags and of referrers. Every reading is null for what is no such document.
// Whoever has bytes of a registry calls `readDocument`, which does it in a thread where they are many.

/** Content that a manifest names (image-spec, *Content Descriptors*). */
export interface NamedContent {
  readonly digest: Digest;
  /** What the descriptor says, undefined where it says none. */
  readonly size: number | undefined;
  readonly kind: 'blob' | 'manifest';
  /** Of a manifest, where the descriptor says one; a blob is never served with a type of its own. */
  readonly mediaType?: string;
  /** It is what this manifest is about (image-spec, *subject*), and no part of it; left out of every part. */
  readonly isSubject?: true;
}

export interface ManifestReading {
  /** The media type that it carries itself; empty where it carries none. */
  readonly mediaType: string;
  /** What it names where its media type defines it, each digest once, in the order of the document. */
  readonly named: readonly NamedContent[];
}

/** No real image names more; what is beyond is asked of the registry when a client wants it. */
const MAX_NAMED = 1_000;

interface NamingFields {
  readonly blobs: readonly string[];
  readonly manifests: readonly string[];
  readonly subject: boolean;
}

/**
 * Where each media type names other content (image-spec, *Image Manifest* and *Image Index*; Docker's image manifest v2, schemas 1 and 2; the
 * artifact manifest that ORAS wrote). A field that a type does not define is one that its registry does not check.
 */
const NAMES_IN: ReadonlyMap<string, NamingFields> = new Map([
  [OCI_MANIFEST, { blobs: ['config', 'layers'], manifests: [], subject: true }],
  [OCI_INDEX, { blobs: [], manifests: ['manifests'], subject: true }],
  [OCI_ARTIFACT, { blobs: ['blobs'], manifests: [], subject: true }],
  [DOCKER_MANIFEST, { blobs: ['config', 'layers'], manifests: [], subject: false }],
  [DOCKER_LIST, { blobs: [], manifests: ['manifests'], subject: false }],
  [DOCKER_SCHEMA1, { blobs: ['fsLayers'], manifests: [], subject: false }],
  [DOCKER_SCHEMA1_SIGNED, { blobs: ['fsLayers'], manifests: [], subject: false }],
]);
const NOWHERE: NamingFields = { blobs: [], manifests: [], subject: false };

export interface ManifestQuestion {
  /** The media type that the registry gave it, in lower case without parameters; empty or any general one where the manifest's own counts. */
  readonly mediaType: string;
}

function readManifest(bytes: Uint8Array, { mediaType }: ManifestQuestion): ManifestReading | null {
  const manifest = parseJsonObject(bytes);
  if (manifest === null) return null;
  const own = typeof manifest.mediaType === 'string' ? essence(manifest.mediaType) : '';
  const { blobs, manifests, subject } = NAMES_IN.get(mediaType) ?? NAMES_IN.get(own) ?? NOWHERE;
  const named = new Map<Digest, NamedContent>();
  const take = (
    fields: readonly string[],
    kind: NamedContent['kind'],
    of: Pick<NamedContent, 'isSubject'> = {},
  ): void => {
    for (const descriptor of fields.flatMap((field) => manifest[field] ?? [])) {
      if (named.size === MAX_NAMED) return;
      const found = isObject(descriptor) ? namedBy(descriptor, kind) : null;
      if (found !== null && !named.has(found.digest)) named.set(found.digest, { ...found, ...of });
    }
  };
  take(blobs, 'blob');
  take(manifests, 'manifest');
  if (subject) take(['subject'], 'manifest', { isSubject: true });
  return { mediaType: isMediaType(own) ? own : '', named: [...named.values()] };
}

/**
 * The type of a manifest of which nobody has said it: its own word, else what its fields are those of (image-spec leaves `mediaType` out in old
 * images; schema 1 never has one). Null for what is no manifest.
 */
export function manifestTypeOf(bytes: Uint8Array): string | null {
  const manifest = parseJsonObject(bytes);
  if (manifest === null) return null;
  const own = typeof manifest.mediaType === 'string' ? essence(manifest.mediaType) : '';
  if (own !== '') return NAMES_IN.has(own) ? own : null;
  if (manifest.schemaVersion === 1) return 'signatures' in manifest ? DOCKER_SCHEMA1_SIGNED : DOCKER_SCHEMA1;
  if (manifest.schemaVersion !== 2) return null;
  if (Array.isArray(manifest.manifests)) return OCI_INDEX;
  return isObject(manifest.config) && Array.isArray(manifest.layers) ? OCI_MANIFEST : null;
}

/** Null for no digest, and for what is elsewhere: registries take layers with `urls` on trust (image-spec, *Non-Distributable Layers*). */
function namedBy(descriptor: Readonly<Record<string, unknown>>, kind: NamedContent['kind']): NamedContent | null {
  // Schema 1 has no descriptors, only digests.
  const text = descriptor.digest ?? descriptor.blobSum;
  const digest = typeof text === 'string' ? parseDigest(text) : null;
  if (digest === null || (Array.isArray(descriptor.urls) && descriptor.urls.length > 0)) return null;
  const type = kind === 'manifest' && typeof descriptor.mediaType === 'string' ? essence(descriptor.mediaType) : '';
  return {
    digest,
    size: isSize(descriptor.size) ? descriptor.size : undefined,
    kind,
    ...(isMediaType(type) ? { mediaType: type } : {}),
  };
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** A page of a list, written anew, as every client may have it. */
export interface ListReading {
  readonly body: Uint8Array;
  /** Names what the registry has on the page, whatever of it was asked for (see link-trail.ts); empty where that is nothing. */
  readonly mark: string;
}

export interface TagsQuestion {
  /** What the client asked for. Both undefined where it follows a link, which says all there is to say. */
  readonly n: number | undefined;
  readonly last: string | undefined;
  /** The answer has a link to a next page. */
  readonly hasNext: boolean;
  /** The client came by such a link, and gets what is there, in the order in which it is. */
  readonly isNext: boolean;
}

/** Its body is the array of tags alone: each client has its own name for the repository. */
export interface TagsReading extends ListReading {
  /** What the next page begins after, where the list was cut here; null where the upstream's own link, if any, leads on. */
  readonly cutAfter: string | null;
}

/**
 * A page of tags (distribution-spec, *Listing Tags*). What pages comes in its registry's own order, which its links follow. A list
 * without a link may be a whole one, of a registry that knows no pages (distribution before version 3): what the client asked for is then made
 * good here, no more than `n`, in order, after `last`. Names that no tag can have are left out: nobody could pull them.
 */
function readTags(bytes: Uint8Array, { n, last, hasNext, isNext }: TagsQuestion): TagsReading | null {
  const list = parseJsonObject(bytes);
  // An empty repository's list is null at some registries.
  const found: unknown = list?.tags === null ? [] : list?.tags;
  if (!Array.isArray(found) || !found.every((tag) => typeof tag === 'string')) return null;
  const all = found.filter(isTag);
  const mark = all.length === 0 ? '' : markOf(JSON.stringify(all));
  const write = (tags: readonly string[], cut: boolean): TagsReading => ({
    body: Buffer.from(JSON.stringify(tags)),
    mark,
    cutAfter: cut ? (tags.at(-1) ?? null) : null,
  });
  if (isNext) return write(all, false);
  if (hasNext) {
    if (n === undefined) return write(all, false);
    // One that takes no `last` begins anew: without what the client has, or it would be cut at the same place for ever.
    const rest = last === undefined ? all : all.slice(all.indexOf(last) + 1);
    return rest.length > n ? write(rest.slice(0, n), true) : write(rest, false);
  }
  const tooMany = n !== undefined && all.length > n;
  const startsOver = last !== undefined && all.includes(last);
  if (!tooMany && !startsOver && (last !== undefined || isOrdered(all))) return write(all, false);
  const rest = all.sort().filter((tag) => last === undefined || tag > last);
  const tags = n === undefined ? rest : rest.slice(0, n);
  return write(tags, tags.length < rest.length);
}

/** In one of the orders that the specification's versions call lexical. */
function isOrdered(tags: readonly string[]): boolean {
  const inOrder = (keys: readonly string[]) => keys.every((key, at) => at === 0 || (keys[at - 1] ?? '') <= key);
  return inOrder(tags) || inOrder(tags.map((tag) => tag.toLowerCase()));
}

/** Which tags of a list are shown. */
export interface TagsFilter {
  /** Of those whose pattern a tag matches, the first one says. */
  readonly rules: readonly { readonly tag: string; readonly allows: boolean }[];
  /** Of a tag that matches none. */
  readonly otherwise: boolean;
  /** Capitals make no difference. */
  readonly anyCase: boolean;
}

/** The tags of a page (the `body` of a {@link TagsReading}) that are shown, as an array again. */
function chooseTags(bytes: Uint8Array, { rules, otherwise, anyCase }: TagsFilter): Pick<ListReading, 'body'> {
  const fold = (text: string) => (anyCase ? text.toLowerCase() : text);
  const globs = rules.map(({ tag, allows }) => ({ glob: new Glob(fold(tag)), allows }));
  const tags = JSON.parse(Buffer.from(bytes).toString()) as string[];
  const shown = tags.filter((tag) => globs.find(({ glob }) => glob.matches(fold(tag)))?.allows ?? otherwise);
  return { body: Buffer.from(JSON.stringify(shown)) };
}

export interface ReferrersQuestion {
  /** Only descriptors of this type are wanted, where the upstream has not chosen them. */
  readonly artifactType: string | undefined;
}

/** Writes an image index anew (image-spec, *Image Index*): the fields that the specification knows, of its types. */
function readReferrers(bytes: Uint8Array, { artifactType }: ReferrersQuestion): ListReading | null {
  const index = parseJsonObject(bytes);
  if (index === null || index.schemaVersion !== 2 || !Array.isArray(index.manifests)) return null;
  if (index.mediaType !== undefined && index.mediaType !== OCI_INDEX) return null;
  const all = index.manifests.map(descriptorOf);
  if (!all.every((row) => row !== null)) return null;
  const manifests = artifactType === undefined ? all : all.filter((row) => row.artifactType === artifactType);
  const annotations = textsOf(index.annotations);
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, annotations }));
  return { body, mark: all.length === 0 ? '' : markOf(JSON.stringify(all)) };
}

function descriptorOf(value: unknown) {
  if (!isObject(value)) return null;
  const { mediaType, digest, size, artifactType, annotations, platform, urls, data } = value;
  if (typeof mediaType !== 'string' || !isMediaType(mediaType) || !isSize(size)) return null;
  if (typeof digest !== 'string' || parseDigest(digest) === null) return null;
  return {
    mediaType,
    digest,
    size,
    artifactType: textOf(artifactType),
    annotations: textsOf(annotations),
    platform: platformOf(platform),
    urls: listOf(urls),
    data: textOf(data),
  };
}

function platformOf(value: unknown) {
  if (!isObject(value)) return undefined;
  const { architecture, os, variant } = value;
  return {
    architecture: textOf(architecture),
    os: textOf(os),
    variant: textOf(variant),
    'os.version': textOf(value['os.version']),
    'os.features': listOf(value['os.features']),
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function listOf(value: unknown): string[] | undefined {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : undefined;
}

function textsOf(value: unknown): Record<string, string> | undefined {
  if (!isObject(value)) return undefined;
  return Object.fromEntries(
    Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  );
}

/** The readings there are, by name. */
export const READINGS = {
  manifest: readManifest,
  tags: readTags,
  chosenTags: chooseTags,
  referrers: readReferrers,
} as const;

export type ReadingName = keyof typeof READINGS;
export type Question<N extends ReadingName> = Parameters<(typeof READINGS)[N]>[1];
export type Reading<N extends ReadingName> = ReturnType<(typeof READINGS)[N]>;
