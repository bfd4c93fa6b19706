import { type Digest, digestAlgorithm, digestHex, parseDigest } from './names.ts';

/** The tag under which a registry without the referrers API has what refers to a manifest (distribution-spec, *Referrers Tag Schema*): algorithm cut to 32, hash to 64 characters. */
export function fallbackTag(digest: Digest): string {
  return `${digestAlgorithm(digest).slice(0, 32)}-${digestHex(digest).slice(0, 64)}`;
}

const SUBJECT = /^sha256-([0-9a-f]{64})(?:\..*)?$/i;

/**
 * The manifest to which what is under a tag belongs: the fallback tag itself, and cosign's `sha256-….sig`, `.att`, `.sbom`. Some registries (GitLab's) answer
 * the former with the manifest itself. Null for every other tag, and for the hash of a sha512, of which such a tag has a half.
 */
export function subjectOfTag(tag: string): Digest | null {
  const hex = SUBJECT.exec(tag)?.[1];
  return hex === undefined ? null : parseDigest(`sha256:${hex.toLowerCase()}`);
}
