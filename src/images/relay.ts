import { allOrNone, Slots } from '../kit/slots.ts';
import type { Digest, Reference } from '../oci/names.ts';
import type { ImageName } from './image-name.ts';
import { blobsOf, type PlannedManifest, planImage, type Selection } from './image-plan.ts';
import type { ImageSource } from './image-source.ts';
import type { Descriptor } from './manifest.ts';
import type { PushTarget } from './push-target.ts';
import { type RelayPlan, relayPlan, subjectOf } from './reduce.ts';
import { noteReferrers } from './referrers-tag.ts';
import { SourceContent, sizeOf } from './source-content.ts';

/** Where an image goes in the registry of the target. */
export interface Destination {
  readonly repository: string;
  /** Null where it is pushed by its digest alone. */
  readonly tag: string | null;
}

/** What happens to one blob. */
export interface BlobEvent {
  readonly digest: Digest;
  readonly size: number | undefined;
  readonly state: 'sending' | 'pushed' | 'mounted' | 'there' | 'failed';
  /** Of it that the registry has, or is being sent. */
  readonly bytes: number;
}

/** How an image was relayed. Blobs are counted once each. */
export interface RelayedImage {
  readonly source: string;
  readonly destination: string;
  /** Under which the destination has it. */
  readonly digest: Digest;
  readonly form: RelayPlan['form'];
  /** Manifests that were pushed, tags that were set among them. */
  readonly manifests: number;
  readonly pushed: number;
  /** Sent of blobs, bytes. */
  readonly pushedBytes: number;
  readonly mounted: number;
  /** Blobs that were there. */
  readonly skipped: number;
  /** What the gateway says of a stale answer; null for one that is not. */
  readonly warning: string | null;
}

export interface RelayOptions {
  readonly source: ImageSource;
  readonly target: PushTarget;
  readonly onBlob: (event: BlobEvent) => void;
}

/** Blobs at a time: enough to fill a line while registries hash, and few enough for one that has a limit. */
const BLOBS_AT_ONCE = 4;
/** Questions whether a manifest is there, at a time. */
const LOOKS_AT_ONCE = 8;

type Outcome = { readonly how: 'pushed' | 'mounted' | 'there'; readonly bytes: number };

/** Copies images into a registry: only what is missing there, what is named before what names it. */
export class Relay {
  readonly #options: RelayOptions;
  readonly #blobSlots = new Slots(BLOBS_AT_ONCE);
  readonly #lookSlots = new Slots(LOOKS_AT_ONCE);
  /** Blobs that are dealt with, or were: images share layers. By repository and digest. */
  readonly #blobs = new Map<string, Promise<Outcome>>();

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** @throws {SourceError} of the source, {OperatorError} of the target; the signal's reason */
  async relay(image: ImageName, to: Destination, selection: Selection, signal: AbortSignal): Promise<RelayedImage> {
    const { source, target } = this.#options;
    const plan = await planImage(source, image, selection, signal);
    const { root, manifests, form } = relayPlan(plan, selection);
    const missing = await this.#missing(root, manifests, to, signal);
    const blobs = blobsOf(manifests);
    const needed = new Set(blobsOf(missing.contents).map(({ digest }) => digest));
    const outcomes: Outcome[] = [];
    await allOrNone(
      blobs.filter(({ digest }) => needed.has(digest)),
      signal,
      async (blob, within) => {
        outcomes.push(await this.#blob(image, to.repository, blob, within));
      },
    );
    const noted = new Set<Digest>();
    for (const manifest of missing.toPut) {
      const { notedSubject } = await target.putManifest(
        to.repository,
        referenceOf(manifest, root, to),
        manifest,
        signal,
      );
      if (notedSubject) noted.add(manifest.digest);
    }
    await this.#noteSubjects(to.repository, manifests, noted, signal);
    const count = (how: Outcome['how']) => outcomes.filter((outcome) => outcome.how === how).length;
    const [pushed, mounted] = [count('pushed'), count('mounted')];
    return {
      source: image.text,
      destination: `${target.registry}/${to.repository}${to.tag === null ? `@${root.digest}` : `:${to.tag}`}`,
      digest: root.digest,
      form,
      manifests: missing.toPut.length,
      pushed,
      pushedBytes: outcomes.reduce((sum, { bytes }) => sum + bytes, 0),
      mounted,
      skipped: blobs.length - pushed - mounted,
      warning: plan.root.warning,
    };
  }

  /**
   * Which manifests are to be put, in order, and of which the blobs may be missing. What a registry has it has whole: of a manifest that is there
   * nothing is asked.
   */
  async #missing(
    root: PlannedManifest,
    manifests: readonly PlannedManifest[],
    to: Destination,
    signal: AbortSignal,
  ): Promise<{ toPut: PlannedManifest[]; contents: PlannedManifest[] }> {
    const { target } = this.#options;
    const there = new Set<Digest>();
    const isThere = async (manifest: PlannedManifest): Promise<boolean> => {
      const reference = { kind: 'digest', digest: manifest.digest } as const;
      return (await this.#look(() => target.digestOf(to.repository, reference, signal))) !== null;
    };
    const tagged = new Set<Digest>();
    const byDigest = new Map(manifests.map((manifest) => [manifest.digest, manifest]));
    const cover = (manifest: PlannedManifest): void => {
      there.add(manifest.digest);
      if (manifest.content.kind === 'image') return;
      for (const { digest } of manifest.content.manifests) {
        const child = byDigest.get(digest);
        if (child !== undefined && !there.has(digest)) cover(child);
      }
    };
    // From the last one on: what an index that is there names is there.
    for (const manifest of manifests.toReversed()) {
      const tag = manifest === root ? to.tag : manifest.tag;
      if (tag !== null) {
        const reference = { kind: 'tag', tag } as const;
        const named = await this.#look(() => target.digestOf(to.repository, reference, signal));
        if (named === manifest.digest) {
          tagged.add(manifest.digest);
          cover(manifest);
          continue;
        }
      }
      if (!there.has(manifest.digest) && (await isThere(manifest))) cover(manifest);
    }
    const contents = manifests.filter(({ digest }) => !there.has(digest));
    const toPut = manifests.filter((manifest) => {
      const isTag = (manifest === root ? to.tag : manifest.tag) !== null;
      return !there.has(manifest.digest) || (isTag && !tagged.has(manifest.digest));
    });
    return { toPut, contents };
  }

  #look<T>(task: () => Promise<T>): Promise<T> {
    return this.#lookSlots.run(task);
  }

  /** Sees to it that the registry has a blob; images that share it wait for the one that was first. */
  async #blob(image: ImageName, repository: string, blob: Descriptor, signal: AbortSignal): Promise<Outcome> {
    const key = `${repository}@${blob.digest}`;
    const known = this.#blobs.get(key);
    if (known !== undefined) {
      const shared = await known.catch(() => null);
      if (shared !== null) return { how: 'there', bytes: 0 };
      // Whoever was first has failed, perhaps because all of its image did.
      signal.throwIfAborted();
    }
    const pushing = this.#blobSlots.run(() => this.#push(image, repository, blob, signal));
    this.#blobs.set(key, pushing);
    try {
      return await pushing;
    } catch (error) {
      if (this.#blobs.get(key) === pushing) this.#blobs.delete(key);
      this.#options.onBlob({ ...blob, state: 'failed', bytes: 0 });
      throw error;
    }
  }

  async #push(image: ImageName, repository: string, blob: Descriptor, signal: AbortSignal): Promise<Outcome> {
    const { source, target, onBlob } = this.#options;
    const { digest } = blob;
    signal.throwIfAborted();
    if (await target.hasBlob(repository, digest, signal)) {
      onBlob({ digest, size: blob.size, state: 'there', bytes: blob.size ?? 0 });
      return { how: 'there', bytes: 0 };
    }
    const isSameRegistry = image.registry === target.registry && image.repository !== repository;
    const key = { registry: image.registry, repository: image.repository, digest };
    const size = blob.size ?? (await sizeOf(source, key, signal));
    const content = new SourceContent({ source, key, size, signal });
    try {
      const progress = (bytes: number) => onBlob({ digest, size, state: 'sending', bytes });
      const mountFrom = isSameRegistry ? [image.repository] : [];
      const done = await target.pushBlob(repository, content, { mountFrom, progress }, signal);
      onBlob({ digest, size, state: done.how, bytes: size });
      return done;
    } finally {
      await content.close();
    }
  }

  /** In a registry that does not list by itself what refers to a manifest, the index under its tag is kept. */
  async #noteSubjects(
    repository: string,
    manifests: readonly PlannedManifest[],
    noted: ReadonlySet<Digest>,
    signal: AbortSignal,
  ): Promise<void> {
    const { target } = this.#options;
    const bySubject = Map.groupBy(
      manifests.filter((one) => !noted.has(one.digest) && subjectOf(one) !== null),
      (one) => subjectOf(one) as Digest,
    );
    for (const [subject, referrers] of bySubject) {
      if (await target.listsReferrers(repository, subject, signal)) continue;
      await noteReferrers(target, repository, subject, referrers, signal);
    }
  }
}

function referenceOf({ digest, tag }: PlannedManifest, root: PlannedManifest, to: Destination): Reference {
  const under = digest === root.digest ? to.tag : tag;
  return under === null ? { kind: 'digest', digest } : { kind: 'tag', tag: under };
}
