import type { Digest } from './digest.ts';

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
  | { readonly kind: 'tags'; readonly n?: number; readonly last?: string; readonly extra?: Extra }
  | {
      readonly kind: 'referrers';
      readonly digest: Digest;
      readonly artifactType?: string;
      readonly extra?: Extra;
    };

/**
 * What else the query had (not `ns`), as pairs: an upstream's own page link may carry more than the specification knows,
 * and gets it back as it was.
 */
export type Extra = readonly [name: string, value: string][];

export type Reference =
  | { readonly kind: 'tag'; readonly tag: string }
  | { readonly kind: 'digest'; readonly digest: Digest };

/** A repository of one registry: the unit of access. */
export interface RepositoryKey {
  readonly registry: string;
  readonly repository: string;
}

/** One text for a repository, to be used as a key. */
export function repositoryId({ registry, repository }: RepositoryKey): string {
  return `${registry}/${repository}`;
}

/** One text for a manifest or blob as one repository has it, to be used as a key. */
export function contentId({ registry, repository }: RepositoryKey, digest: Digest): string {
  return `${registry}/${repository}@${digest}`;
}
