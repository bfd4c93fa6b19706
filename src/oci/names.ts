import { type Digest, parseDigest } from './digest.ts';
import { RegistryError } from './errors.ts';
import type { Reference } from './target.ts';

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

/** @throws {RegistryError} nameInvalid */
export function requireRepository(text: string): string {
  if (!isRepositoryName(text)) throw new RegistryError('nameInvalid', { facts: { name: shown(text) } });
  return text;
}

/**
 * Parses a tag or a digest; what has a colon can only be meant as a digest.
 * @throws {RegistryError} tagInvalid, digestInvalid
 */
export function requireReference(text: string): Reference {
  if (text.includes(':')) return { kind: 'digest', digest: requireDigest(text) };
  if (!isTag(text)) throw new RegistryError('tagInvalid', { facts: { tag: shown(text) } });
  return { kind: 'tag', tag: text };
}

/** @throws {RegistryError} digestInvalid */
export function requireDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === null) throw new RegistryError('digestInvalid', { facts: { digest: shown(text) } });
  return digest;
}

function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
