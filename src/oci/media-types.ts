import { LRUCache } from 'lru-cache';

/** Media types of manifests (image-spec, *Media Types*; Docker's image manifest v2 schemas 1 and 2). */
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_SCHEMA1_SIGNED = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
export const DOCKER_SCHEMA1 = 'application/vnd.docker.distribution.manifest.v1+json';

/** What ORAS wrote before image-spec 1.1 took artifacts into the image manifest. */
export const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json';

/** Blobs have no type of their own: the manifest says what they are. */
export const BLOB = 'application/octet-stream';

/**
 * The known types, most original first. A registry may convert downwards for a client that cannot take the original
 * (index to one platform's manifest, schema 2 to schema 1), never upwards.
 */
const KNOWN: readonly { readonly type: string; readonly rank: number; readonly label: string }[] = [
  { type: OCI_INDEX, rank: 0, label: 'oci-index' },
  { type: DOCKER_LIST, rank: 0, label: 'docker-list' },
  { type: OCI_MANIFEST, rank: 1, label: 'oci' },
  { type: DOCKER_MANIFEST, rank: 1, label: 'docker' },
  { type: DOCKER_SCHEMA1_SIGNED, rank: 2, label: 'signed' },
  { type: DOCKER_SCHEMA1, rank: 2, label: 'schema1' },
  // No registry makes one of something else.
  { type: OCI_ARTIFACT, rank: 0, label: 'oci-artifact' },
];
const ALL = (1 << KNOWN.length) - 1;
/** Bits of the two indexes. */
const INDEXES = 0b11;

/**
 * What one client can take, normalised: clients that differ only in order, case and weights share one. There are few classes, one for each set of
 * known types, since every class of every tag is asked upstream and kept for itself. Clients of one class may still differ in the unknown
 * types that they name.
 */
export interface AcceptClass {
  /** Names the class; short. */
  readonly key: string;
  /** To be sent upstream: also with the unknown types. */
  readonly header: string;
  /** Bits of the known types. */
  readonly known: number;
  readonly any: boolean;
  readonly others: readonly string[];
  /** Names of the variants (`variantOf`) that this client may be given. */
  readonly variants: readonly string[];
}

/** `Content-Type` or `Accept` entry without parameters, in lower case. */
export function essence(contentType: string): string {
  const semicolon = contentType.indexOf(';');
  return (semicolon < 0 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase();
}

/** A type and a subtype of RFC 6838 §4.2, without parameters; a star may stand for either. */
export function isMediaType(text: string): boolean {
  return /^[!#$&^_.+*\w-]{1,127}\/[!#$&^_.+*\w-]{1,127}$/.test(text);
}

/** Whether a manifest of this type names others, by platform. */
export function isIndex(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

/** What a web server sends to people: a login page, a portal's, an error with status 200. No manifest has such a type. */
export function isWebPage(mediaType: string): boolean {
  return mediaType === 'text/html' || mediaType === 'application/xhtml+xml';
}

/** Unlisted types a client may name before its further ones are left out. */
const MAX_OTHERS = 16;

/**
 * Reads an `Accept` header (RFC 9110, 12.5.1). No header and a wildcard both mean every type, and all known types are then
 * named upstream, because registries take a bare wildcard for an old client (distribution 2, ghcr.io). Weights count
 * only where they are 0.
 */
export function parseAccept(header: string | undefined): AcceptClass {
  if (header === undefined || header.trim() === '') return EVERYTHING;
  let known = 0;
  let any = false;
  const others = new Set<string>();
  for (const part of header.split(',')) {
    const type = essence(part);
    if (!isMediaType(type) || /;\s*q=0(?:\.0*)?\s*(?:;|$)/i.test(part)) continue;
    const index = KNOWN.findIndex((row) => row.type === type);
    if (type === '*/*' || type === 'application/*') any = true;
    else if (index >= 0) known |= 1 << index;
    else if (others.size < MAX_OTHERS) others.add(type);
  }
  if (any || (known === 0 && others.size === 0)) return EVERYTHING;
  return build(known, false, [...others].sort());
}

function build(known: number, any: boolean, others: readonly string[]): AcceptClass {
  const types = KNOWN.filter((_, index) => (known & (1 << index)) !== 0).map((row) => row.type);
  const key = any ? '*' : String(known);
  return {
    key,
    header: [...types, ...others, ...(any ? ['*/*'] : [])].join(', '),
    known,
    any,
    others,
    variants: [...sharedVariants(known), key, ...(others.length === 0 ? [] : [withOthers(key)])],
  };
}

/** The variant of an unknown type that was asked for by its name. */
function withOthers(key: string): string {
  return `${key}+`;
}

function sharedVariants(known: number): string[] {
  return KNOWN.flatMap(({ rank, label }, index) => {
    if ((known & (1 << index)) === 0 || rank > 1) return [];
    if (rank === 0) return [label];
    return [0, 1, 2, 3].filter((asked) => (known & INDEXES & ~asked) === 0).map((asked) => `${label}/${asked}`);
  });
}

const EVERYTHING: AcceptClass = build(ALL, true, []);

/** A client program sends one or two different `Accept` headers. */
const REMEMBERED = 512;
/** Longest header that is remembered; one that names all known types has 600 characters. */
const MAX_REMEMBERED_LENGTH = 2048;
const remembered = new LRUCache<string, AcceptClass>({ max: REMEMBERED });

/** As `parseAccept`, for the path of every pull: a header that was parsed lately is not parsed again. */
export function acceptClass(header: string | undefined): AcceptClass {
  if (header === undefined) return EVERYTHING;
  const known = remembered.get(header);
  if (known !== undefined) return known;
  const parsed = parseAccept(header);
  if (header.length <= MAX_REMEMBERED_LENGTH) remembered.set(header, parsed);
  return parsed;
}

/** Whether a client can take this type. */
export function accepts(client: AcceptClass, mediaType: string): boolean {
  if (client.any) return true;
  const index = KNOWN.findIndex((row) => row.type === mediaType);
  return index >= 0 ? (client.known & (1 << index)) !== 0 : client.others.includes(mediaType);
}

/**
 * Names the variant of a tag's content that an upstream gave to `asked`. An index is what was pushed under the tag, so it is given to every
 * client that accepts it. A single manifest may have been chosen by the registry out of an index, for a client that cannot read one: its variant
 * names which indexes that client accepted, and it is given only to clients that accept no more of them. Anything else stays within its class:
 * an unknown type that was asked for by its name is for those who name it too ({@link mayHave}), and what the registry sent whatever was asked for is
 * what it sends to the others of the class as well.
 */
export function variantOf(asked: AcceptClass, mediaType: string): string {
  const row = KNOWN.find(({ type }) => type === mediaType);
  // Some registries send what they have, whatever was asked for.
  if (row === undefined && asked.others.includes(mediaType)) return withOthers(asked.key);
  if (row === undefined || row.rank > 1 || !accepts(asked, mediaType)) return asked.key;
  return row.rank === 0 ? row.label : `${row.label}/${asked.known & INDEXES}`;
}

/** Whether a client may be given a kept manifest of this type under one of its own variants. */
export function mayHave(client: AcceptClass, variant: string, mediaType: string): boolean {
  return variant === client.key || accepts(client, mediaType);
}

/** Whether an answer of this type to one client of a class is good for all of them. */
export function isSharedByClass(client: AcceptClass, mediaType: string): boolean {
  return !client.others.includes(mediaType);
}
