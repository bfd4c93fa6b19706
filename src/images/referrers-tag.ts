import { isObject, parseJsonObject } from '../kit/json.ts';
import { OCI_INDEX } from '../oci/media-types.ts';
import { type Digest, sha256 } from '../oci/names.ts';
import { fallbackTag } from '../oci/referrers-tag.ts';
import type { ManifestToPush, PushTarget } from './push-target.ts';

/**
 * Puts referrers into the index under the tag of what they refer to, beside those that are there (distribution-spec, *Pushing Manifests with Subject*).
 * @throws what the target throws
 */
export async function noteReferrers(
  target: PushTarget,
  repository: string,
  subject: Digest,
  referrers: readonly ManifestToPush[],
  signal: AbortSignal,
): Promise<void> {
  const tag = fallbackTag(subject);
  const kept = await target.manifest(repository, tag, signal);
  // GitLab takes the tag for the digest itself, and gives the image.
  const document = kept === null || sha256(kept.body) === subject ? null : parseJsonObject(kept.body);
  const entries: unknown[] = Array.isArray(document?.manifests) ? document.manifests : [];
  const known = new Set(entries.map((entry) => (isObject(entry) ? entry.digest : undefined)));
  const fresh = referrers.filter(({ digest }) => !known.has(digest)).map(descriptorOf);
  if (fresh.length === 0) return;
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, ...document, manifests: [...entries, ...fresh] };
  const body = Buffer.from(JSON.stringify(index));
  await target.putManifest(
    repository,
    { kind: 'tag', tag },
    { digest: sha256(body), mediaType: OCI_INDEX, body },
    signal,
  );
}

/** As the referrers API lists a manifest (distribution-spec, *Listing Referrers*). */
function descriptorOf({ digest, mediaType, body }: ManifestToPush): Record<string, unknown> {
  const { artifactType, config, annotations } = parseJsonObject(body) ?? {};
  const type =
    typeof artifactType === 'string' && artifactType !== ''
      ? artifactType
      : isObject(config)
        ? config.mediaType
        : undefined;
  return {
    mediaType,
    digest,
    size: body.length,
    ...(typeof type === 'string' ? { artifactType: type } : {}),
    ...(isObject(annotations) ? { annotations } : {}),
  };
}
