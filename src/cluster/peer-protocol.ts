import { z } from 'zod';
import { type CredentialId, DEFAULT_CREDENTIAL } from '../oci/credentials.ts';
import { CATALOGUE, type ErrorName, RegistryError } from '../oci/errors.ts';
import { type BlobKey, isRepositoryName, parseDigest } from '../oci/names.ts';

/*
 * What nodes ask of each other, over HTTP/1.1:
 * - `GET /v1/blob?…` gives the bytes of one blob, from a `Range` on: 200 with `SIZE`, `THROUGH` and `COUNTS`, or a refusal as JSON;
 * - `GET /v1/bid?…` tells what this node has of a blob whose leader is gone;
 * - `GET /v1/ping` is answered by 204: the node is there.
 */
export const BLOB_PATH = '/v1/blob';
export const BID_PATH = '/v1/bid';
export const PING_PATH = '/v1/ping';

/** The blob's whole size; left out where nobody knows it yet. */
export const SIZE_HEADER = 'gateway-size';
/** The repository of the registry whose GET brought, or brings, the bytes; left out where that is not known. */
export const THROUGH_HEADER = 'gateway-through';
/** `1` where the bytes are fetched from the registry for the sake of whoever asks. */
export const COUNTS_HEADER = 'gateway-counts';

/** Which growing blob: as the cache's `FillKey`. */
export interface GrowingKey extends Pick<BlobKey, 'registry' | 'digest'> {
  /** Which of its registry's credentials its repository has; null where none. */
  readonly opener: CredentialId | null;
}

/** One node asks another for a blob. */
export interface BlobRequest {
  readonly key: BlobKey & GrowingKey;
  /** For whom, in whose turn the answering node does it. */
  readonly client: string;
  /** The answering node is to fetch it where it has nothing of it; else it gives only what it keeps, or fetches from the registry itself just now. */
  readonly begin: boolean;
  /** The asking node knows that this repository holds it. */
  readonly known: boolean;
  /** All of it is wanted in the end, not only this range. */
  readonly whole: boolean;
  /** From where on; `to` is exclusive, left out for all the rest. */
  readonly range: { readonly from: number; readonly to?: number | undefined };
}

/** Why a node gives nothing, where that says nothing about the blob: another node is asked then. */
export type Refusal = (typeof REFUSALS)[number];

/** `none`: it has nothing of the blob, or keeps nothing, or is ending. */
const REFUSALS = ['none', 'busy'] as const;

export function blobPath({ key, client, begin, known, whole }: BlobRequest): string {
  const query = new URLSearchParams({ ...growingQuery(key), repository: key.repository, client });
  for (const [name, set] of Object.entries({ begin, known, whole })) if (set) query.set(name, '1');
  return `${BLOB_PATH}?${query}`;
}

export function bidPath(key: GrowingKey): string {
  return `${BID_PATH}?${new URLSearchParams(growingQuery(key))}`;
}

/** One text for a growing blob, to be used as a key. Nodes of the version before know of one set of credentials a registry. */
export function growingId({ registry, digest, opener }: GrowingKey): string {
  const by = opener === null ? '' : opener === DEFAULT_CREDENTIAL ? ' closed' : ` closed ${opener}`;
  return `${registry} ${digest}${by}`;
}

function growingQuery({ registry, digest, opener }: GrowingKey): Record<string, string> {
  return { registry, digest, ...(opener === null ? {} : { closed: String(opener) }) };
}

/** Null where the request is none of these. */
export function parseBlobRequest(query: URLSearchParams, range: string | undefined): BlobRequest | null {
  const growing = parseGrowing(query);
  const repository = query.get('repository') ?? '';
  const extent = /^bytes=(\d{1,15})-(\d{1,15})?$/.exec(range ?? 'bytes=0-');
  if (growing === null || !isRepositoryName(repository) || extent === null) return null;
  const [, from, last] = extent;
  return {
    key: { ...growing, repository },
    client: query.get('client') ?? '',
    begin: query.has('begin'),
    known: query.has('known'),
    whole: query.has('whole'),
    range: { from: Number(from), to: last === undefined ? undefined : Number(last) + 1 },
  };
}

export function parseGrowing(query: URLSearchParams): GrowingKey | null {
  const registry = query.get('registry') ?? '';
  const digest = parseDigest(query.get('digest') ?? '');
  const closed = query.get('closed');
  if (registry === '' || digest === null || (closed !== null && !/^\d{1,10}$/.test(closed))) return null;
  return { registry, digest, opener: closed === null ? null : Number(closed) };
}

export function rangeHeader({ from, to }: BlobRequest['range']): string {
  return `bytes=${from}-${to === undefined ? '' : to - 1}`;
}

/** A registry's failure as one node tells it to another. */
export type SentFailure = z.infer<typeof FAILURE>;

const FACTS = z.record(z.string(), z.union([z.string(), z.number()]));
const FAILURE = z.object({
  kind: z.string().refine((kind): kind is ErrorName => Object.hasOwn(CATALOGUE, kind)),
  options: z.object({
    facts: FACTS.exactOptional(),
    next: z.string().exactOptional(),
    operatorReason: z.string().exactOptional(),
    detail: z.record(z.string(), z.unknown()).exactOptional(),
    says: z.object({ by: z.string(), message: z.string(), code: z.string() }).exactOptional(),
    retryAfter: z.number().exactOptional(),
    headers: z.record(z.string(), z.string()).exactOptional(),
    denied: z.boolean().exactOptional(),
  }),
});

const BID = z.object({
  node: z.string(),
  held: z.number().int().nonnegative(),
  competes: z.boolean(),
  leads: z.boolean(),
  kept: z.boolean(),
  failure: z.object({ repository: z.string(), ...FAILURE.shape }).nullable(),
});

/**
 * What a node has of a blob: see `Bid`. `leads`: it fetches it from the registry itself; `failure`: what the registry answered it a moment ago, for one of its
 * repositories, of which alone it says something.
 */
export type SentBid = z.infer<typeof BID>;

export function parseBid(text: string): SentBid {
  return BID.parse(JSON.parse(text));
}

/**
 * What a registry answers is told by these alone; everything else that goes wrong at a node is its own affair, and another node is asked. That a registry is
 * in no table says only that the tables differ for a moment.
 */
const OF_REGISTRIES: ReadonlySet<string> = new Set<ErrorName>([
  'upstreamUnauthorized',
  'upstreamDenied',
  'upstreamRateLimited',
  'upstreamFailed',
  'upstreamWrong',
  'upstreamTimeout',
  'upstreamLoop',
  'credentialsWithheld',
  'nameUnknown',
  'blobUnknown',
]);

/** Failures that may be the link's of one node, and not the registry's. */
const OF_LINKS: ReadonlySet<string> = new Set<ErrorName>(['upstreamFailed', 'upstreamTimeout']);

export function isOfRegistry(error: unknown): error is RegistryError {
  return error instanceof RegistryError && OF_REGISTRIES.has(error.kind);
}

export function mayBeOfLink({ kind }: RegistryError): boolean {
  return OF_LINKS.has(kind);
}

export function encodeFailure({ kind, options: { cause: _, ...options } }: RegistryError): SentFailure {
  return { kind, options };
}

export function decodeFailure({ kind, options }: SentFailure): RegistryError {
  return new RegistryError(kind, options);
}

export function encodeRefusal(why: Refusal | RegistryError): string {
  return JSON.stringify(why instanceof RegistryError ? { failure: encodeFailure(why) } : { refusal: why });
}

const REFUSED = z.union([z.object({ failure: FAILURE }), z.object({ refusal: z.enum(REFUSALS) })]);

/** The registry's failure, or why the node itself gives nothing. @throws where it is neither */
export function parseRefusal(text: string): Refusal | RegistryError {
  const refused = REFUSED.parse(JSON.parse(text));
  return 'failure' in refused ? decodeFailure(refused.failure) : refused.refusal;
}
