import { registryOf } from '../../aliases/lookup.ts';
import type { TableSnapshot } from '../../aliases/table.ts';
import type { KeptTag } from '../../cache/index-port.ts';
import { FORGET_AFTER } from '../../cache/maintenance.ts';
import type { UntouchedCache } from '../../cache/untouched.ts';
import type { ImageName } from '../../images/image-name.ts';
import { type ImagePlan, planImage, plannedBytes, type Selection } from '../../images/image-plan.ts';
import { SourceError } from '../../images/image-source.ts';
import { type Descriptor, readManifestContent } from '../../images/manifest.ts';
import { isPlatform, ownPlatform, type Platform, platformText } from '../../images/platform.ts';
import { formatBytes } from '../../kit/text.ts';
import { elapsed, formatSpan, iso, steadyNow } from '../../kit/time.ts';
import { openerOf } from '../../oci/credentials.ts';
import { RegistryError } from '../../oci/errors.ts';
import { acceptClass } from '../../oci/media-types.ts';
import type { Digest, Reference, RepositoryKey } from '../../oci/names.ts';
import type { Cooldown } from '../../policy/cooldown.ts';
import type { ProxyCore } from '../../proxy/reply.ts';
import { type Unavailable, UnpluggedSource } from './unplugged-source.ts';

/** What is missing of an image. */
export interface DrillMissing {
  readonly what: 'tag' | 'manifest' | 'referrers' | 'config' | 'layer';
  /** Null for a tag of which nothing is known. */
  readonly digest: Digest | null;
  /** Bytes; null where they are not known. */
  readonly size: number | null;
  /** Of these, the bytes that the registry would have to give; null where they are not known. */
  readonly missingBytes: number | null;
  /** In words. */
  readonly reason: string;
}

/** A row of `drill --json`: an image, for one platform where it is for several. */
export interface DrillRow {
  readonly image: string;
  /** Null for an image that is for one platform, or for none. */
  readonly platform: string | null;
  /** Every usual client could pull it now although its registry is gone. */
  readonly pullable: boolean;
  /** Until when that is so unless it is pulled before, as far as it can be known, ISO 8601; null where no time ends it, and where it cannot be pulled. */
  readonly until: string | null;
  /** Only clients that show credentials of the gateway are given it. */
  readonly needsLogin: boolean;
  /** Of its blobs, as far as its manifests are here and say it. */
  readonly bytes: number;
  readonly missing: readonly DrillMissing[];
  /** What else to know, in words. */
  readonly notes: readonly string[];
}

/** Which parts of images are drilled for. */
export interface DrillSelection {
  /** Null: those for which the image was pulled through this gateway. */
  readonly platforms: readonly Platform[] | null;
  /** Also what refers to the image, which Docker asks for from version 29 on. */
  readonly referrers: boolean;
}

export interface DrillOptions {
  /** Whose registries are all out of reach. */
  readonly core: ProxyCore;
  readonly kept: UntouchedCache;
  /** By which the core says what is too young; null where nothing is. */
  readonly cooldown: Cooldown | null;
  readonly table: () => TableSnapshot;
  /** Ms; as the core has them. */
  readonly config: { readonly tagTtl: number; readonly staleFor: number; readonly maxSize: number };
  readonly now?: () => number;
  readonly signal: AbortSignal;
}

/** How the usual clients ask for a tag. They get the same, but for tags of old or unusual types. */
const CLIENTS: readonly { readonly name: string; readonly accept: string }[] = [
  {
    name: 'containerd',
    accept:
      'application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*',
  },
  {
    name: 'Docker',
    accept:
      'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, application/json',
  },
  {
    name: 'podman',
    accept:
      'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json',
  },
];
/** Rows of one tag: there is one for each class of `Accept` that asked. */
const MAX_VARIANTS = 64;
const HOUR = 3_600_000;

/** The manifest that an image's name leads to. */
interface Root {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly body: Uint8Array;
  /** When its registry last said so, ms; null where it was asked for by its digest. */
  readonly confirmedAt: number | null;
  /** When the tag will give something else, which is too young until then, ms; null where nothing is known of that. */
  readonly movesAt: number | null;
}

/** One walk over an image. */
interface Walk extends Selection {
  readonly platform: string | null;
  readonly reference: Reference;
}

/** Finds out whether images could be pulled if every registry were gone, by asking a core for which they are. */
export class Drill {
  readonly #options: DrillOptions;
  readonly #now: () => number;

  constructor(options: DrillOptions) {
    this.#options = options;
    this.#now = options.now ?? steadyNow;
  }

  async image(image: ImageName, selection: DrillSelection): Promise<readonly DrillRow[]> {
    const source = this.#source();
    const { roots, missing } = await this.#roots(source, image);
    if (roots.length === 0) return [this.#row(image, { platform: null, missing })];
    const needsLogin = !(await this.#isForAnyone(source, image, roots[0] as Root));
    const rows: DrillRow[] = [];
    for (const root of roots) {
      for (const walk of this.#walks(image, root, selection)) {
        const row = await this.#walk(image, root, walk);
        rows.push({ ...row, missing: [...missing, ...row.missing], needsLogin });
      }
    }
    return rows.map((row) => (row.missing.length === 0 ? row : { ...row, pullable: false, until: null }));
  }

  /** What the usual clients are given for an image's name: once for each different answer. */
  async #roots(source: UnpluggedSource, image: ImageName): Promise<{ roots: Root[]; missing: DrillMissing[] }> {
    const { reference } = image;
    const what = { kind: 'manifest', reference } as const;
    const roots = new Map<string, Root>();
    const refused = new Map<string, { error: RegistryError; names: string[]; accept: string }>();
    for (const { name, accept } of reference.kind === 'tag' ? CLIENTS : CLIENTS.slice(0, 1)) {
      try {
        // Containerd and Docker ask by HEAD first, and get what that says; podman by GET alone.
        await source.ask(image, what, { method: 'HEAD', accept });
        const { headers, body, since } = await source.ask(image, what, { method: 'GET', accept });
        const { 'docker-content-digest': digest = '', 'content-type': mediaType = '' } = headers;
        if (!(body instanceof Uint8Array)) throw new TypeError('a manifest without its bytes');
        const confirmedAt = reference.kind === 'tag' ? (since ?? null) : null;
        if (!roots.has(digest)) {
          const movesAt = await this.#movesAt(image, digest, acceptClass(accept).variants);
          roots.set(digest, { digest: digest as Digest, mediaType, body, confirmedAt, movesAt });
        }
      } catch (error) {
        if (!(error instanceof RegistryError)) throw error;
        const before = refused.get(error.kind);
        if (before === undefined) refused.set(error.kind, { error, names: [name], accept });
        else before.names.push(name);
      }
    }
    const missing = [...refused.values()].map(({ error, names, accept }) => {
      const found = this.#whyNot(image, { what: 'manifest', reference, error }, accept);
      return roots.size === 0 ? found : { ...found, reason: `for ${names.join(' and ')}: ${found.reason}` };
    });
    return { roots: [...roots.values()], missing };
  }

  /** Where a tag gives what it stood for before, because of the cooldown: until when that is so. */
  async #movesAt(image: ImageName, given: string, variants: readonly string[]): Promise<number | null> {
    const { cooldown } = this.#options;
    const { reference } = image;
    if (cooldown?.isOn !== true || reference.kind !== 'tag') return null;
    const newest = newestOf(this.#rowsOf(image, reference.tag), variants);
    if (newest === undefined || newest.digest === given) return null;
    const youth = await cooldown.ofTag(image, reference.tag, newest.digest);
    return youth === null ? null : youth.passesFrom;
  }

  async #isForAnyone(source: UnpluggedSource, image: ImageName, { digest }: Root): Promise<boolean> {
    const what = { kind: 'manifest', reference: { kind: 'digest', digest } } as const;
    try {
      await source.ask(image, what, { method: 'HEAD', anonymous: true });
      return true;
    } catch (error) {
      if (error instanceof RegistryError && error.kind === 'privateContent') return false;
      throw error;
    }
  }

  #walks(image: ImageName, { digest, body, mediaType }: Root, { platforms, referrers }: DrillSelection): Walk[] {
    const reference = { kind: 'digest', digest } as const;
    const content = readManifestContent(body, mediaType);
    const all: Walk = { platform: null, reference, platforms: null, referrers };
    if (content?.kind !== 'index') return [all];
    const of = (platform: Platform): Walk => ({
      platform: platformText(platform),
      reference,
      platforms: [platform],
      referrers,
    });
    if (platforms !== null) return platforms.map(of);
    const offered = content.manifests.flatMap((child) =>
      child.platform === null || child.platform.os === 'unknown' ? [] : [{ child, platform: child.platform }],
    );
    if (offered.length === 0) return [all];
    const pulled = offered.filter(({ child }) => this.#wasPulled(image, child.digest));
    if (pulled.length > 0) {
      return pulled.map(({ child, platform }) =>
        // Windows' images differ by versions for one and the same platform: the one that was pulled is meant.
        referrers
          ? of(platform)
          : { ...of(platform), reference: { kind: 'digest', digest: child.digest }, platforms: null },
      );
    }
    const own = ownPlatform();
    if (offered.some(({ platform }) => isPlatform(platform, own))) return [of(own)];
    return offered.map(({ platform }) => of(platform));
  }

  /** Through this repository, by some client: its manifest is here, or was. */
  #wasPulled(repository: RepositoryKey, digest: Digest): boolean {
    const { kept } = this.#options;
    return (kept.facts.of(repository, digest)?.gave ?? null) !== null || kept.manifests.getManifest(digest) !== null;
  }

  async #walk(image: ImageName, root: Root, { platform, reference, ...selection }: Walk): Promise<DrillRow> {
    const source = this.#source();
    let plan: ImagePlan;
    try {
      plan = await planImage(source, { ...image, reference }, selection, this.#options.signal);
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      const { unavailable } = source;
      const why = unavailable === null ? notInIt(error) : this.#whyNot(image, unavailable);
      return this.#row(image, { platform, missing: [why] });
    }
    const missing: DrillMissing[] = [];
    const configs = new Set(
      plan.manifests.flatMap(({ content }) => (content.kind === 'image' ? content.config?.digest : [])),
    );
    for (const blob of plan.blobs) {
      const why = await this.#blob(source, image, blob, configs.has(blob.digest) ? 'config' : 'layer');
      if (why !== null) missing.push(why);
    }
    // A tag that is pinned is given however old it is.
    const { tag } = image;
    const isPinned = tag !== null && this.#options.kept.manifests.isPinned(image, tag);
    const tagConfirmedAt = isPinned ? null : root.confirmedAt;
    const confirmedAt = Math.min(tagConfirmedAt ?? Number.POSITIVE_INFINITY, source.listedAt);
    return this.#row(image, { platform, missing, plan, confirmedAt, movesAt: root.movesAt });
  }

  /** Null where all of it would be given. */
  async #blob(
    source: UnpluggedSource,
    image: ImageName,
    { digest, size }: Descriptor,
    what: 'config' | 'layer',
  ): Promise<DrillMissing | null> {
    try {
      await source.ask(image, { kind: 'blob', digest }, { method: 'GET' });
      return null;
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      const { kept, table, config } = this.#options;
      const row = { what, digest, size: size ?? null };
      if (error.kind !== 'upstreamFailed') return { ...row, missingBytes: null, reason: error.message };
      if (config.maxSize === 0) return { ...row, missingBytes: row.size, reason: NOTHING_GIVEN };
      const whole = kept.kept(digest);
      if (whole !== null) return { ...row, missingBytes: whole.knownSize ?? null, reason: CLOSED };
      const { registry, repository } = image;
      const entry = registryOf(table(), registry);
      const held = entry === undefined ? 0 : kept.heldOf({ registry, digest, opener: openerOf(entry, repository) });
      const missingBytes = size === undefined ? null : Math.max(0, size - held);
      return {
        ...row,
        missingBytes,
        reason: held === 0 ? 'it is not kept' : `only ${formatBytes(held)} of it are here`,
      };
    }
  }

  /** Why a manifest, or what a tag stands for, would not be given. */
  #whyNot(image: ImageName, { what, reference, error }: Unavailable, accept = CLIENTS[0]?.accept): DrillMissing {
    const of = { size: null, missingBytes: null };
    // What no registry was asked for.
    if (error.kind !== 'upstreamFailed') {
      const digest = reference.kind === 'digest' ? reference.digest : null;
      return { what: reference.kind === 'tag' ? 'tag' : what, digest, ...of, reason: error.message };
    }
    if (reference.kind === 'tag') return this.#whyNotTag(image, reference.tag, acceptClass(accept).variants);
    const { digest } = reference;
    if (what === 'referrers')
      return { what, digest, ...of, reason: 'no list of what refers to it is kept, or it is too old' };
    const { manifests } = this.#options.kept;
    const here = manifests.getManifest(digest);
    if (here !== null)
      return { what: 'manifest', digest, size: here.body.length, missingBytes: here.body.length, reason: CLOSED };
    return { what: 'manifest', digest, ...of, reason: `it is not kept${UNKNOWN_BELOW}` };
  }

  #whyNotTag(image: ImageName, tag: string, variants: readonly string[]): DrillMissing {
    const { staleFor } = this.#options.config;
    const rows = this.#rowsOf(image, tag);
    const newest = newestOf(rows, variants);
    const of = { what: 'tag', digest: newest?.digest ?? null, size: null, missingBytes: null } as const;
    if (rows.length === 0) return { ...of, reason: 'nothing is kept of this tag' };
    if (newest === undefined)
      return {
        ...of,
        reason: 'only clients that accept other types have asked for this tag, and were given something else',
      };
    const age = elapsed(newest.checkedAt, this.#now());
    if (age > staleFor) {
      // Of days nobody wants the seconds.
      const rounded = age > HOUR ? age - (age % HOUR) : age;
      const when = Number.isFinite(age) ? `${formatSpan(rounded)} ago` : 'at a time that is still to come';
      return { ...of, reason: `the tag was last confirmed ${when}, and cache.staleFor is ${formatSpan(staleFor)}` };
    }
    const here = this.#options.kept.manifests.getManifest(newest.digest);
    if (here === null) return { ...of, what: 'manifest', reason: `it is not kept${UNKNOWN_BELOW}` };
    return { ...of, what: 'manifest', size: here.body.length, missingBytes: here.body.length, reason: CLOSED };
  }

  #rowsOf({ registry, repository }: RepositoryKey, tag: string): KeptTag[] {
    const place = { registry, repository, tag, variant: '' };
    return this.#options.kept
      .tagsAfter(place, MAX_VARIANTS)
      .filter((row) => row.tag === tag && row.repository === repository && row.registry === registry);
  }

  #source(): UnpluggedSource {
    const { core, kept, signal } = this.#options;
    const isKnown = (repository: RepositoryKey, tag: string) =>
      this.#rowsOf(repository, tag).length > 0 || kept.manifests.isPinned(repository, tag);
    return new UnpluggedSource(core, isKnown, signal);
  }

  #row(
    { text }: ImageName,
    row: {
      readonly platform: string | null;
      readonly missing: readonly DrillMissing[];
      readonly plan?: ImagePlan;
      /** Infinite where nothing was that could become too old. */
      readonly confirmedAt?: number;
      readonly movesAt?: number | null;
    },
  ): DrillRow {
    const { platform, missing, plan, confirmedAt = Number.POSITIVE_INFINITY, movesAt = null } = row;
    const pullable = missing.length === 0;
    return {
      image: text,
      platform,
      pullable,
      until: pullable ? this.#until(confirmedAt, movesAt) : null,
      needsLogin: false,
      bytes: plan === undefined ? 0 : plannedBytes(plan),
      missing,
      notes: plan === undefined ? [] : foreign(plan),
    };
  }

  #until(confirmedAt: number, movesAt: number | null): string | null {
    const { tagTtl, staleFor } = this.#options.config;
    const now = this.#now();
    const life = Math.min(Math.max(tagTtl, staleFor), FORGET_AFTER);
    const left = Math.min(
      Number.isFinite(confirmedAt) ? life - elapsed(confirmedAt, now) : Number.POSITIVE_INFINITY,
      movesAt === null ? Number.POSITIVE_INFINITY : movesAt - now,
    );
    return Number.isFinite(left) ? iso(Date.now() + left) : null;
  }
}

/** Of the rows of a tag that count for a class of clients, the one that was confirmed last. */
function newestOf(rows: readonly KeptTag[], variants: readonly string[]): KeptTag | undefined {
  return rows
    .filter(({ variant }) => variants.includes(variant))
    .toSorted((a, b) => b.checkedAt - a.checkedAt)
    .at(0);
}

const CLOSED = 'it is here, but only its registry could say that this repository may be given it';
const NOTHING_GIVEN = 'cache.maxSize is 0: blobs are given from their registries alone';
const UNKNOWN_BELOW = '; what it names cannot be known';

/** The image has no such part, whoever is asked. */
function notInIt({ message }: SourceError): DrillMissing {
  return { what: 'manifest', digest: null, size: null, missingBytes: null, reason: message };
}

/** Layers that the gateway gives nobody. */
function foreign({ manifests }: ImagePlan): string[] {
  const layers = manifests.flatMap(({ content }) =>
    content.kind === 'image' ? content.layers.filter(({ isForeign }) => isForeign) : [],
  );
  if (layers.length === 0) return [];
  const bytes = formatBytes(layers.reduce((sum, { size = 0 }) => sum + size, 0));
  return [`${layers.length} of its layers (${bytes}) clients fetch from elsewhere, by the URLs in its manifest`];
}
