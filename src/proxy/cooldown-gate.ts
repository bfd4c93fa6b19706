import type { RegistryEntry } from '../aliases/table.ts';
import { andThen, type MaybePromise } from '../kit/async.ts';
import { iso } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import { type AcceptClass, mayHave } from '../oci/media-types.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import { type Cooldown, UNSEEN, type Youth } from '../policy/cooldown.ts';
import type { BlobFills, HeldBlobKey } from './blob-fills.ts';
import type { ManifestsByDigest } from './by-digest.ts';
import type { Found, Method } from './manifest-fetcher.ts';
import { isMissing, NegativeCache, type RepositoryAccess } from './repository-access.ts';
import { type Staleness, warningOf } from './stale.ts';

export interface CooldownGateOptions {
  readonly cooldown: Cooldown;
  readonly byDigest: ManifestsByDigest;
  readonly fills: BlobFills;
  readonly access: RepositoryAccess;
  readonly now: () => number;
}

/** A pull of a manifest, as the core has it. */
export interface ManifestAsk {
  readonly entry: RegistryEntry;
  readonly key: RepositoryKey;
  readonly method: Method;
  /** `Pull.client` */
  readonly asker: string;
}

/**
 * Stands at every door of the core while `policy.cooldown` is set: nothing goes out that is too young. A tag that stands for something young gives what it
 * last stood for that was old enough; everything else young is refused, with the day from which it passes.
 */
export class CooldownGate {
  readonly #options: CooldownGateOptions;
  readonly #missing: NegativeCache;

  constructor(options: CooldownGateOptions) {
    this.#options = options;
    this.#missing = new NegativeCache(options.now);
  }

  /** Whether it lets everything through. */
  get isOpen(): boolean {
    return !this.#options.cooldown.isOn;
  }

  clear(): void {
    this.#missing.clear();
  }

  /**
   * What is given for a tag that stands for `found`.
   * @throws {RegistryError} imageTooYoung
   */
  byTag(ask: ManifestAsk, tag: string, client: AcceptClass, found: Found): MaybePromise<Found> {
    const youth = this.#options.cooldown.ofTag(ask.key, tag, found.manifest.digest);
    return andThen(youth, (young) => (young === null ? found : this.#earlier(ask, tag, client, found, young)));
  }

  /**
   * A manifest that is asked for by its digest.
   * @throws {RegistryError} imageTooYoung, and the registry's
   */
  byDigest({ entry, key, method, asker }: ManifestAsk, digest: Digest): MaybePromise<Found> {
    const { cooldown, byDigest } = this.#options;
    const find = (by: Method) => byDigest.find(entry, key, digest, by, asker);
    return andThen(cooldown.ofDigest(key, digest), (youth) => {
      if (youth === null) return find(method);
      if (youth !== UNSEEN) throw tooYoung(contentId(key, digest), digest, youth);
      // Its registry shows it now, or never: then that is the answer.
      return andThen(find('HEAD'), () =>
        andThen(cooldown.ofDigest(key, digest), (shown) => {
          const young = shown === UNSEEN ? cooldown.seenNow(key, digest) : shown;
          if (young === null) return find(method);
          throw tooYoung(contentId(key, digest), digest, young);
        }),
      );
    });
  }

  /** @throws {RegistryError} imageTooYoung; what its registry says of a blob of which nothing is known */
  blob(entry: RegistryEntry, key: HeldBlobKey, asker: string): MaybePromise<void> {
    const youth = this.#options.cooldown.ofDigest(key, key.digest);
    return andThen(youth, (young) => {
      if (young === null) return;
      if (young === UNSEEN) return this.#unseenBlob(entry, key, asker);
      throw tooYoung(contentId(key, key.digest), key.digest, young);
    });
  }

  /** No manifest that was seen names it. That the repository holds it makes it seen now. */
  async #unseenBlob(entry: RegistryEntry, key: HeldBlobKey, asker: string): Promise<void> {
    const { access, fills, cooldown } = this.#options;
    const id = contentId(key, key.digest);
    if (!access.knows(entry, key, key.digest)) {
      this.#missing.check(id);
      try {
        await fills.prove(entry, key, asker);
      } catch (error) {
        access.failed(key, error);
        this.#missing.note(id, error);
        throw error;
      }
    }
    const young = cooldown.seenNow(key, key.digest);
    if (young !== null) throw tooYoung(id, key.digest, young);
  }

  /** What the tag stood for before it stood for what is too young. */
  async #earlier(ask: ManifestAsk, tag: string, client: AcceptClass, found: Found, young: Youth): Promise<Found> {
    const { entry, key, method, asker } = ask;
    const { cooldown, byDigest } = this.#options;
    const { digest } = found.manifest;
    const span = await cooldown.lastMatured(key, tag, client.variants, digest);
    const earlier =
      span === null ? null : await this.#stillThere(() => byDigest.find(entry, key, span.digest, method, asker));
    if (span === null || earlier === null || !mayHave(client, span.variant, earlier.manifest.mediaType)) {
      throw tooYoung(`${repositoryId(key)}:${tag}`, digest, young);
    }
    const moved = `this tag moved to ${digest}, first seen ${day(young.firstSeen)}; it passes from ${day(young.passesFrom)} on`;
    const { freshUntil } = found;
    return {
      manifest: earlier.manifest,
      ...(found.stale === undefined
        ? { from: earlier.from, warning: warningOf(moved) }
        : { from: 'stale' as const, stale: alsoSaying(found.stale, moved) }),
      ...(earlier.since === undefined ? {} : { since: earlier.since }),
      ...(freshUntil === undefined ? {} : { freshUntil: Math.min(freshUntil, young.passesFrom) }),
    };
  }

  /** Null where the registry does not have it any more, and neither has the cache. */
  async #stillThere(find: () => MaybePromise<Found>): Promise<Found | null> {
    try {
      return await find();
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  }
}

function alsoSaying({ warning, ...stale }: Staleness, moved: string): Staleness {
  return { ...stale, warning: warning.replace(/"$/, `; ${moved}"`) };
}

function tooYoung(image: string, digest: Digest, { firstSeen, passesFrom }: Youth): RegistryError {
  return new RegistryError('imageTooYoung', {
    facts: { image, time: day(passesFrom) },
    detail: { digest, firstSeen: iso(firstSeen), passesFrom: iso(passesFrom) },
  });
}

/** For people: `2026-11-28 04:10 UTC`; to the second that is over by then. */
function day(time: number): string {
  return `${iso(Math.ceil(time / 1000) * 1000)
    .slice(0, 19)
    .replace('T', ' ')} UTC`;
}
