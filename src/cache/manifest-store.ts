import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { ManifestRow, TagRow } from './index-port.ts';

/**
 * Manifests and what tags stood for, as the proxy core keeps them. All answers are synchronous, from memory where they are hot.
 * Who may have what is the core's to decide, with `accessOf`.
 */
export interface ManifestStore {
  /** Another number once rows were dropped behind its users' backs (prune, verify): what they keep in memory is out of date then. */
  readonly generation: number;
  getManifest(digest: Digest): ManifestRow | null;
  /** The digest must have been checked against the body. */
  putManifest(row: ManifestRow): void;
  /** `variant` names the class of Accept headers that the answer was for. */
  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null;
  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  dropTag(repository: RepositoryKey, tag: string, variant: string): void;
  /** Whether this repository is known to hold the manifest. */
  holdsManifest(repository: RepositoryKey, digest: Digest): boolean;
  /** Remembers that this repository holds it; `private` where the operator's credentials opened it. */
  linkManifest(repository: RepositoryKey, digest: Digest, options?: { readonly private?: boolean }): void;
}
