import type { CacheAdmin } from '../cache/admin.ts';
import type { PinRow } from '../cache/index-port.ts';
import type { ImageName } from '../images/image-name.ts';
import { type ImagePlan, planImage, type Selection } from '../images/image-plan.ts';
import { type ImageSource, SourceError } from '../images/image-source.ts';
import type { Descriptor } from '../images/manifest.ts';
import { platformText } from '../images/platform.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { Slots } from '../kit/slots.ts';
import { formatBytes } from '../kit/text.ts';
import { sleep, steadyNow } from '../kit/time.ts';
import { acceptClass, variantOf } from '../oci/media-types.ts';
import type { Digest } from '../oci/names.ts';

/** Images that are looked into at once: their manifests are small, and each costs its registry a few requests. */
const IMAGES_AT_ONCE = 4;
/** Blobs that are fetched at once: enough to use a line, and few beside what clients ask for meanwhile. */
const BLOBS_AT_ONCE = 4;
/** A blob that breaks off is taken up again so often, … */
const ATTEMPTS = 5;
/** … after this at first, ms, and twice as long each further time. */
const RETRY_AFTER = 1_000;
/** Bytes of a blob that are taken at once, to be counted and thrown away: the cache keeps them. */
const CHUNK = 256 * 1024;
/** A blob is known to be kept soon after its last byte, once the disk has it; ms. */
const KEPT_WITHIN = 30_000;
const LOOK_EVERY = 20;

/** What is to be at hand of an image. */
export interface WarmRequest {
  readonly image: ImageName;
  readonly selection: Selection;
  readonly pin: boolean;
}

/** An image that was looked into: what it consists of, and what of that is here. Bytes. */
export interface Planned {
  readonly request: WarmRequest;
  readonly plan: ImagePlan;
  readonly bytes: number;
  readonly here: number;
  /** Blobs that are not here. */
  readonly absent: readonly Descriptor[];
}

/** How it went with one image. A row of `warm --json`. */
export interface WarmOutcome {
  readonly image: string;
  readonly ok: boolean;
  /** Null where its manifest could not be had. */
  readonly digest: string | null;
  /** That it is here for. */
  readonly platforms: readonly string[];
  /** Of all its blobs, and of those that were not here. */
  readonly bytes: number;
  readonly fetched: number;
  /** Null where it is here. */
  readonly error: string | null;
  /** Seconds, as the registry says; null where nobody does. */
  readonly retryAfter: number | null;
  /** Its registry could not be asked, and this is what it said before; null where it was asked. */
  readonly stale: string | null;
  /** Its registry was asked, and this is what it was before: what the tag stands for now has to wait, as `Warning` says. Null otherwise. */
  readonly waits: string | null;
}

/** What is told while blobs are fetched. */
export interface BlobProgress {
  readonly image: string;
  readonly digest: Digest;
  readonly done: number;
  /** Undefined where its manifest does not say. */
  readonly total: number | undefined;
  readonly ended: boolean;
}

export interface WarmerOptions {
  readonly images: () => ImageSource;
  readonly cache: () => CacheAdmin;
}

/** Fetches images into the cache, as a client would, and pins them. What is here already costs nothing. */
export class Warmer {
  readonly #options: WarmerOptions;
  readonly #blobs = new Slots(BLOBS_AT_ONCE);
  /** Images that are being fetched: no two runs of one overlap. */
  readonly #running = new Map<string, Promise<unknown>>();

  constructor(options: WarmerOptions) {
    this.#options = options;
  }

  /** Looks into images; an outcome in place of a plan where one could not be had. @throws the signal's reason */
  async plan(requests: readonly WarmRequest[], signal: AbortSignal): Promise<(Planned | WarmOutcome)[]> {
    const slots = new Slots(IMAGES_AT_ONCE);
    return await Promise.all(requests.map((request) => slots.run(() => this.#planOne(request, signal))));
  }

  /**
   * Refuses pins that cannot be kept beside those that there are.
   * @throws {OperatorError} `PIN_NO_ROOM`, `CACHE_OFF`
   */
  requireRoom(planned: readonly Planned[]): void {
    const cache = this.#options.cache();
    const { maxBytes, mostPinned, used, spare } = cache.room();
    if (maxBytes === 0) throw new OperatorError('CACHE_OFF', 'cache.maxSize is 0: nothing is kept');
    const toPin = planned.filter(({ request }) => request.pin).flatMap(({ plan }) => pinnedBlobs(plan));
    if (toPin.length === 0) return;
    const { totals } = cache.pins;
    const bytesWith = cache.pins.bytesWith(toPin);
    if (bytesWith > mostPinned) {
      const now = totals.bytes === 0 ? '' : ` (${formatBytes(totals.bytes)} now)`;
      throw new OperatorError(
        'PIN_NO_ROOM',
        `pins would hold ${formatBytes(bytesWith)}${now}, and may hold ${formatBytes(mostPinned)} of the ${formatBytes(maxBytes)} of cache.maxSize`,
      );
    }
    const missing = missingBytes(planned);
    // What is not pinned may go for them.
    const most = spare + Math.max(0, used - totals.heldBytes);
    if (missing > most) {
      const why = `${formatBytes(missing)} are to be fetched and pinned, and the disk has room for ${formatBytes(Math.max(0, most))} beyond cache.minFree`;
      throw new OperatorError('PIN_NO_ROOM', why);
    }
  }

  /** Fetches what is not here of an image, and pins it once it is whole. Never rejects, but with the signal's reason. */
  async fetch(planned: Planned, report: (progress: BlobProgress) => void, signal: AbortSignal): Promise<WarmOutcome> {
    const { request, plan, bytes } = planned;
    const name = request.image.text;
    while (this.#running.has(name)) await this.#running.get(name);
    const run = this.#fetch(planned, report, signal);
    this.#running.set(
      name,
      run.then(
        () => {},
        () => {},
      ),
    );
    let fetched = 0;
    try {
      fetched = await run;
      return { ...this.#outcome(request, plan, bytes), fetched, ok: true };
    } catch (error) {
      signal.throwIfAborted();
      return { ...this.#outcome(request, plan, bytes), ...failureOf(error) };
    } finally {
      this.#running.delete(name);
    }
  }

  async #planOne(request: WarmRequest, signal: AbortSignal): Promise<Planned | WarmOutcome> {
    try {
      const plan = await planImage(this.#options.images(), request.image, request.selection, signal);
      const cache = this.#options.cache();
      const here = plan.blobs.reduce((sum, { digest }) => sum + (cache.sizeOf(digest) ?? 0), 0);
      const absent = plan.blobs.filter(({ digest }) => cache.sizeOf(digest) === null);
      const bytes = plan.blobs.reduce((sum, { digest, size }) => sum + (size ?? cache.sizeOf(digest) ?? 0), 0);
      return { request, plan, bytes, here, absent };
    } catch (error) {
      signal.throwIfAborted();
      return { ...this.#outcome(request, null, 0), ...failureOf(error) };
    }
  }

  /** Returns the bytes of blobs that were not here. */
  async #fetch(
    { request, plan }: Planned,
    report: (progress: BlobProgress) => void,
    signal: AbortSignal,
  ): Promise<number> {
    const { pins } = this.#options.cache();
    const { image, pin } = request;
    // What comes is held from the start: the first layers are not to go for the last.
    if (pin) pins.hold(this.#pinOf(request, plan, coming(image.text)));
    // One that fails does not end the others: what is here by then costs nothing the next time.
    const each = await Promise.allSettled(
      plan.blobs.map((blob) => this.#blobs.run(() => this.#blob(request, blob, report, signal))),
    );
    const failed = each.find((one) => one.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    const fetched = each.reduce((sum, one) => sum + (one.status === 'fulfilled' ? one.value : 0), 0);
    if (pin) {
      pins.hold(this.#pinOf(request, plan, image.text));
      pins.release(coming(image.text));
    }
    return fetched;
  }

  async #blob(
    { image }: WarmRequest,
    { digest, size: total }: Descriptor,
    report: (progress: BlobProgress) => void,
    signal: AbortSignal,
  ): Promise<number> {
    const key = { registry: image.registry, repository: image.repository, digest };
    const tell = (done: number, ended: boolean) => report({ image: image.text, digest, done, total, ended });
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      try {
        const { body, kept } = await this.#options.images().blob(key, 0, signal);
        if (kept === true) {
          await body.close();
          tell(total ?? 0, true);
          return 0;
        }
        const bytes = await readThrough(body, (done) => tell(done, false), signal);
        await this.#untilKept(digest, signal);
        tell(bytes, true);
        return bytes;
      } catch (error) {
        signal.throwIfAborted();
        if (attempt === ATTEMPTS || !isWorthAnother(error)) throw error;
        await sleep(RETRY_AFTER * 2 ** (attempt - 1), signal);
      }
    }
  }

  /** @throws {OperatorError} `WARM_NOT_KEPT` */
  async #untilKept(digest: Digest, signal: AbortSignal): Promise<void> {
    const cache = this.#options.cache();
    for (const until = performance.now() + KEPT_WITHIN; cache.sizeOf(digest) === null; ) {
      const isComing = cache.fills().some((fill) => fill.digest === digest);
      if (performance.now() > until && !isComing) {
        const { used, maxBytes } = cache.room();
        const room = `the cache takes ${formatBytes(used)} of ${formatBytes(maxBytes)}, ${formatBytes(cache.pins.totals.heldBytes)} of them pinned`;
        throw new OperatorError('WARM_NOT_KEPT', `${digest} was fetched and could not be kept: ${room}`);
      }
      await sleep(LOOK_EVERY, signal);
    }
  }

  #pinOf({ image }: WarmRequest, plan: ImagePlan, id: string): PinRow {
    const { root, manifests } = plan;
    return {
      id,
      registry: image.registry,
      repository: image.repository,
      tag: id === image.text && image.reference.kind === 'tag' ? image.reference.tag : null,
      variant: variantOf(acceptClass(undefined), root.mediaType),
      root: root.digest,
      checkedAt: steadyNow(),
      manifests: manifests.map(({ digest }) => digest),
      blobs: pinnedBlobs(plan),
    };
  }

  #outcome({ image }: WarmRequest, plan: ImagePlan | null, bytes: number): WarmOutcome {
    const platforms = (plan?.manifests ?? []).flatMap(({ platform, content }) =>
      platform === null || content.kind === 'index' ? [] : [platformText(platform)],
    );
    const warning = plan?.root.warning ?? null;
    const wasAsked = plan?.root.asked === true;
    return {
      image: image.text,
      ok: false,
      digest: plan?.root.digest ?? null,
      platforms: [...new Set(platforms)],
      bytes,
      fetched: 0,
      error: null,
      retryAfter: null,
      stale: wasAsked ? null : warning,
      waits: wasAsked ? warning : null,
    };
  }
}

/** The id of the pin by which an image is held that is not whole yet: what was pinned before stays until it is. */
export function coming(image: string): string {
  return `${image} (coming)`;
}

/** Bytes of blobs that are not here, each once. */
export function missingBytes(planned: readonly Planned[]): number {
  const sizes = new Map(planned.flatMap(({ absent }) => absent.map(({ digest, size = 0 }) => [digest, size])));
  return sizes.values().reduce((sum, size) => sum + size, 0);
}

function pinnedBlobs({ blobs }: ImagePlan): { readonly digest: Digest; readonly size: number }[] {
  return blobs.map(({ digest, size = 0 }) => ({ digest, size }));
}

/** Reads a blob to its end, which is when its digest has proved right, and throws the bytes away. Returns how many there were. */
async function readThrough(body: ByteSource, progress: (done: number) => void, signal: AbortSignal): Promise<number> {
  const chunk = Buffer.allocUnsafe(CHUNK);
  let done = 0;
  const stop = (): void => void body.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    for (;;) {
      signal.throwIfAborted();
      const count = await body.pull(chunk);
      if (count === 0) return done;
      done += count;
      progress(done);
    }
  } finally {
    signal.removeEventListener('abort', stop);
    await body.close();
  }
}

/** Whether the same question may have another answer in some seconds: what a registry refuses it refuses then too. */
function isWorthAnother(error: unknown): boolean {
  if (error instanceof SourceError) return error.status >= 500;
  return error instanceof TruncatedError;
}

function failureOf(error: unknown): Pick<WarmOutcome, 'error' | 'retryAfter'> {
  const message = error instanceof Error ? error.message : String(error);
  return { error: message, retryAfter: error instanceof SourceError ? (error.retryAfter ?? null) : null };
}
