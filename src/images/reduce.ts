import { isObject, parseJsonObject } from '../kit/json.ts';
import { type Digest, parseDigest, sha256 } from '../oci/names.ts';
import { subjectOfTag } from '../oci/referrers-tag.ts';
import type { ImagePlan, PlannedManifest, Selection } from './image-plan.ts';

/** What is pushed of an image. */
export interface RelayPlan {
  /** Under the tag. */
  readonly root: PlannedManifest;
  /** Each once, what is named before what names it; what refers to the image before the root, which is the last. */
  readonly manifests: readonly PlannedManifest[];
  /** How the root differs from the source's: the manifest of the one platform, or an index of fewer. */
  readonly form: 'whole' | 'one platform' | 'reduced index';
}

/**
 * What a registry is given of an image. Without platforms all of it, as it is. One platform that one manifest is for: that manifest, plain, as
 * `crane copy --platform` does. Several: the index without the others, which so has another digest; order, annotations and all other fields stay.
 */
export function relayPlan(plan: ImagePlan, { platforms }: Pick<Selection, 'platforms'>): RelayPlan {
  const { root, manifests } = plan;
  if (platforms === null || root.content.kind === 'image') return withReferrers(plan, root, manifests, 'whole');
  const ofRoot = new Set(root.content.manifests.map(({ digest }) => digest));
  const kept = manifests.filter(({ digest }) => ofRoot.has(digest));
  const [only] = kept;
  if (platforms.length === 1 && kept.length === 1 && only?.content.kind === 'image')
    return withReferrers(plan, only, manifests, 'one platform');
  const reduced = reduceIndexes(manifests);
  const newRoot = reduced.get(root.digest) ?? root;
  const all = manifests.map((manifest) => reduced.get(manifest.digest) ?? manifest);
  return withReferrers(plan, newRoot, all, newRoot.digest === root.digest ? 'whole' : 'reduced index');
}

/** The indexes among them whose children are not all there, written without those. By the digest that they had. */
function reduceIndexes(manifests: readonly PlannedManifest[]): Map<Digest, PlannedManifest> {
  const there = new Set(manifests.map(({ digest }) => digest));
  const reduced = new Map<Digest, PlannedManifest>();
  // Children come before what names them, so that theirs are known.
  for (const manifest of manifests) {
    if (manifest.content.kind === 'image') continue;
    const { manifests: children } = manifest.content;
    if (children.every(({ digest }) => there.has(digest) && !reduced.has(digest))) continue;
    const document = parseJsonObject(manifest.body) ?? {};
    const entries = (Array.isArray(document.manifests) ? document.manifests : []).flatMap((entry) => {
      const digest = isObject(entry) ? parseDigest(String(entry.digest)) : null;
      if (digest === null || !there.has(digest)) return [];
      const child = reduced.get(digest);
      return [child === undefined ? entry : { ...entry, digest: child.digest, size: child.body.length }];
    });
    const body = Buffer.from(JSON.stringify({ ...document, manifests: entries }));
    const left = children
      .filter(({ digest }) => there.has(digest))
      .map((child) => ({ ...child, digest: reduced.get(child.digest)?.digest ?? child.digest }));
    const content = { kind: 'index', manifests: left } as const;
    reduced.set(manifest.digest, { ...manifest, body, content, digest: sha256(body) });
  }
  return reduced;
}

/** Puts them in order, without those that refer to what is not pushed: their subject would be missing. */
function withReferrers(
  { root: whole, manifests: planned }: ImagePlan,
  root: PlannedManifest,
  manifests: readonly PlannedManifest[],
  form: RelayPlan['form'],
): RelayPlan {
  const byDigest = new Map(manifests.map((manifest) => [manifest.digest, manifest]));
  const tree = below(root, byDigest);
  // The plan has the image itself first, and then what refers to it.
  const referrers = manifests.slice(planned.indexOf(whole) + 1).filter((one) => {
    const subject = one.tag === null ? subjectOf(one) : subjectOfTag(one.tag);
    return subject !== null && tree.has(subject);
  });
  const wanted = new Set([...tree, ...referrers.flatMap((one) => [...below(one, byDigest)])]);
  wanted.delete(root.digest);
  return { root, form, manifests: [...manifests.filter(({ digest }) => wanted.has(digest)), root] };
}

function below(manifest: PlannedManifest, byDigest: ReadonlyMap<Digest, PlannedManifest>, into = new Set<Digest>()) {
  into.add(manifest.digest);
  if (manifest.content.kind === 'index')
    for (const { digest } of manifest.content.manifests) {
      const child = byDigest.get(digest);
      if (child !== undefined && !into.has(digest)) below(child, byDigest, into);
    }
  return into;
}

/** What a manifest refers to (image-spec, *subject*); null where it refers to nothing. */
export function subjectOf({ body }: Pick<PlannedManifest, 'body'>): Digest | null {
  const subject = parseJsonObject(body)?.subject;
  return isObject(subject) && typeof subject.digest === 'string' ? parseDigest(subject.digest) : null;
}
