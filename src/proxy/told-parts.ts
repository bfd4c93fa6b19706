import type { RegistryEntry } from '../aliases/table.ts';
import { Askers } from '../kit/askers.ts';
import { andThen, type MaybePromise } from '../kit/async.ts';
import { sleep } from '../kit/time.ts';
import { type DocumentOrigin, readDocument } from '../oci/document-reader.ts';
import { OCI_INDEX } from '../oci/media-types.ts';
import type { RepositoryKey } from '../oci/names.ts';
import type { Admission } from '../policy/image-policy.ts';
import { rowOf } from '../upstream/upstream.ts';
import { type KnownManifest, partsIn } from './manifest-fetcher.ts';
import type { Pull, Reply } from './reply.ts';

// Whoever is given a manifest asks for what it names the next moment, by digest. Where patterns of tags decide about that, the policy is told before.

/** Longest that a client waits until other gateways know as well, ms: a database that is slow, or away, is no reason to give nothing. */
const SHARE_WAIT = 2_000;

/** @throws {RegistryError} gatewayBusy where the manifest is large and cannot be read now */
export function tellParts(
  admission: Admission | null,
  manifest: KnownManifest,
  pull: Pull,
  entry: RegistryEntry,
): MaybePromise<void> {
  if (admission === null || !admission.dependsOnTags) return;
  const { digest, mediaType, body } = manifest;
  if (!admission.wantsParts(digest)) return;
  if (body === null) {
    admission.gives(digest, null);
    return;
  }
  return andThen(readDocument('manifest', body, { mediaType }, originOf(pull, entry)), (reading) =>
    admission.gives(digest, partsIn(reading?.named ?? [])),
  );
}

/** The same of a list of referrers. @throws {RegistryError} gatewayBusy */
export async function tellReferrers(
  admission: Admission | null,
  { body }: Reply,
  pull: Pull,
  entry: RegistryEntry,
): Promise<void> {
  if (admission?.dependsOnTags !== true || !(body instanceof Uint8Array)) return;
  const reading = await readDocument('manifest', body, { mediaType: OCI_INDEX }, originOf(pull, entry));
  admission.givesWith(partsIn(reading?.named ?? []));
}

/** Lets other gateways know, of which the client may ask one the next moment. Never rejects. */
export async function shareSeen(share: (key: RepositoryKey) => Promise<void>, key: RepositoryKey): Promise<void> {
  await Promise.race([share(key).catch(() => {}), sleep(SHARE_WAIT, undefined, { ref: false })]);
}

function originOf({ client, signal }: Pull, entry: RegistryEntry): DocumentOrigin {
  return { registry: rowOf(entry), askers: new Askers(client), signal };
}
