import { createHash } from 'node:crypto';
import { RegistryError } from './errors.ts';

/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case, checked (image-spec, *Digests*). */
export type Digest = string & { readonly __digest: unique symbol };

const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

/** Parses a digest; null where it is none that this gateway can verify. */
export function parseDigest(text: string): Digest | null {
  const colon = text.indexOf(':');
  const hex = text.slice(colon + 1);
  if (colon < 1 || HEX_LENGTH[text.slice(0, colon)] !== hex.length || !/^[0-9a-f]+$/.test(hex)) return null;
  return text as Digest;
}

export function digestAlgorithm(digest: Digest): 'sha256' | 'sha512' {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Of bytes that are to be named by it. */
export function sha256(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

/** Longest repository name taken (distribution-spec, *Pulling manifests*: clients and registries limit host and name to 255). */
const MAX_NAME_LENGTH = 255;

/** distribution-spec's `<name>`. Letters and separators never overlap, so matching takes linear time. */
const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;

/** distribution-spec's `<reference>` as a tag. */
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** What a refusal repeats of a bad name: enough to recognise it. */
const SHOWN = 128;

/** Whether this is a repository name without its registry: `library/alpine`. */
export function isRepositoryName(text: string): boolean {
  return text.length <= MAX_NAME_LENGTH && NAME.test(text);
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/**
 * Whether the first segment of an image name is a registry host and no part of a repository:
 * it has a dot or a port, or is `localhost` (the rule of Docker's image names).
 */
export function isRegistryHost(segment: string): boolean {
  return segment.includes('.') || segment.includes(':') || segment === 'localhost';
}

/** Whether a row of the table is for every host that matches it: `*.pkg.dev`. */
export function isPattern(host: string): boolean {
  return host.includes('*');
}

/** A label of a host name that a pattern's star stands for (RFC 1123 §2.1). */
const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?';

/** What matches the hosts for which a pattern stands. */
export function patternExpression(pattern: string): RegExp {
  return new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', LABEL)}$`);
}

/**
 * @param anyCase whether its registry has capitals in the names of repositories
 * @throws {RegistryError} nameInvalid
 */
export function requireRepository(text: string, anyCase = false): string {
  if (!isRepositoryName(anyCase ? text.toLowerCase() : text))
    throw new RegistryError('nameInvalid', { facts: { name: shown(text) } });
  return text;
}

/**
 * Parses a tag or a digest; what has a colon can only be meant as a digest. Null for a tag that cannot exist.
 * @throws {RegistryError} digestInvalid, digestUnsupported
 */
export function parseReference(text: string): Reference | null {
  if (text.includes(':')) return { kind: 'digest', digest: requireDigest(text) };
  return isTag(text) ? { kind: 'tag', tag: text } : null;
}

/** distribution-spec, *Digest*: an algorithm and the encoded hash; which algorithms there are is open. */
const DIGEST = /^([a-z0-9]+(?:[+._-][a-z0-9]+)*):[a-zA-Z0-9=_-]+$/;

/** @throws {RegistryError} digestInvalid, digestUnsupported */
export function requireDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest !== null) return digest;
  const algorithm = DIGEST.exec(text)?.[1];
  if (algorithm === undefined || HEX_LENGTH[algorithm] !== undefined)
    throw new RegistryError('digestInvalid', { facts: { digest: shown(text) } });
  throw new RegistryError('digestUnsupported', { facts: { algorithm: shown(algorithm) } });
}

function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

/**
 * What a request asks for, parsed once at the edge (distribution-spec, *Endpoints*). Nothing behind it reads a URL again.
 */
export interface Target {
  /** Registry host as in image names: `docker.io`, `localhost:5000`. Always a row of the table. */
  readonly registry: string;
  /** Repository without the registry, `library/` already added: `library/alpine`. */
  readonly repository: string;
  readonly what: What;
}

export type What =
  | { readonly kind: 'manifest'; readonly reference: Reference }
  | { readonly kind: 'blob'; readonly digest: Digest }
  | {
      readonly kind: 'tags';
      readonly n?: number;
      readonly last?: string;
      readonly extra?: Extra;
      /** The page to which an upstream's own link leads, where the client follows one: see `Page` in link.ts. */
      readonly next?: string;
      /** The pages that it came through on the way there: see link-trail.ts. */
      readonly trail?: string;
    }
  | {
      readonly kind: 'referrers';
      readonly digest: Digest;
      readonly artifactType?: string;
      readonly extra?: Extra;
      readonly next?: string;
      readonly trail?: string;
    };

/** What else the query had (not `ns`), as pairs: a registry may take more than the specification knows. */
export type Extra = readonly [name: string, value: string][];

export type Reference =
  | { readonly kind: 'tag'; readonly tag: string }
  | { readonly kind: 'digest'; readonly digest: Digest };

/** A repository of one registry: the unit of access. */
export interface RepositoryKey {
  readonly registry: string;
  readonly repository: string;
}

/** Which blob, asked for through which repository. */
export interface BlobKey extends RepositoryKey {
  readonly digest: Digest;
}

/** One text for a repository, to be used as a key. */
export function repositoryId({ registry, repository }: RepositoryKey): string {
  return `${registry}/${repository}`;
}

/** One text for a manifest or blob as one repository has it, to be used as a key. */
export function contentId({ registry, repository }: RepositoryKey, digest: Digest): string {
  return `${registry}/${repository}@${digest}`;
}
