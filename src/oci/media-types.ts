/** Media types of manifests (image-spec, *Media Types*; Docker's image manifest v2 schemas 1 and 2). */
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_SCHEMA1_SIGNED = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
export const DOCKER_SCHEMA1 = 'application/vnd.docker.distribution.manifest.v1+json';

/** Blobs have no type of their own: the manifest says what they are. */
export const BLOB = 'application/octet-stream';

/**
 * The known types, most original first. A registry may convert downwards for a client that cannot take the original
 * (index to one platform's manifest, schema 2 to schema 1), never upwards.
 */
const KNOWN: readonly { readonly type: string; readonly rank: number }[] = [
  { type: OCI_INDEX, rank: 0 },
  { type: DOCKER_LIST, rank: 0 },
  { type: OCI_MANIFEST, rank: 1 },
  { type: DOCKER_MANIFEST, rank: 1 },
  { type: DOCKER_SCHEMA1_SIGNED, rank: 2 },
  { type: DOCKER_SCHEMA1, rank: 2 },
];
const ALL = (1 << KNOWN.length) - 1;

/** What one client can take, normalised: clients that differ only in order, case and weights share one. */
export interface AcceptClass {
  /** Same for equal classes; short. */
  readonly key: string;
  /** To be sent upstream. */
  readonly header: string;
  /** Bits of the known types. */
  readonly known: number;
  readonly any: boolean;
  readonly others: readonly string[];
}

/** `Content-Type` or `Accept` entry without parameters, in lower case. */
export function essence(contentType: string): string {
  const semicolon = contentType.indexOf(';');
  return (semicolon < 0 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase();
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
    if (!/^[!#$&^_.+*\w-]{1,127}\/[!#$&^_.+*\w-]{1,127}$/.test(type) || /;\s*q=0(?:\.0*)?\s*(?:;|$)/i.test(part))
      continue;
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
  return {
    key: `${known}${any ? '*' : ''}${others.map((type) => `,${type}`).join('')}`,
    header: [...types, ...others, ...(any ? ['*/*'] : [])].join(', '),
    known,
    any,
    others,
  };
}

const EVERYTHING: AcceptClass = build(ALL, true, []);

/** Whether a client can take this type. */
export function accepts(client: AcceptClass, mediaType: string): boolean {
  if (client.any) return true;
  const index = KNOWN.findIndex((row) => row.type === mediaType);
  return index >= 0 ? (client.known & (1 << index)) !== 0 : client.others.includes(mediaType);
}

/**
 * Whether an answer of `mediaType` that the upstream gave to `asked` is also what it would give to `client`: the client can take
 * the type, and takes nothing more original that the asker did not. So one platform's manifest, made for a client that cannot read
 * an index, never reaches one that can.
 */
export function answers(asked: AcceptClass, mediaType: string, client: AcceptClass): boolean {
  if (asked.key === client.key) return true;
  if (!accepts(client, mediaType)) return false;
  const rank = KNOWN.find((row) => row.type === mediaType)?.rank;
  if (rank === undefined) return (client.known & ~asked.known) === 0 && (asked.any || !client.any);
  let moreOriginal = 0;
  KNOWN.forEach((row, index) => {
    if (row.rank < rank) moreOriginal |= 1 << index;
  });
  return (client.known & moreOriginal & ~asked.known) === 0;
}
