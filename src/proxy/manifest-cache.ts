import { LRUCache } from 'lru-cache';
import { ownCopy } from '../kit/own-copy.ts';
import { steadyNow } from '../kit/time.ts';
import { acceptClass } from '../oci/media-types.ts';
import { type Reference, repositoryId } from '../oci/names.ts';
import {
  type ProxyCore,
  type Pull,
  type RepliesTally,
  type Reply,
  type VersionedCore,
  withCondition,
} from './reply.ts';
import { isMissing, isRefusal } from './repository-access.ts';

/** Some thousand images, and little against the memory that the gateway may take. */
const MAX_BYTES = 16 * 1024 * 1024;
/** Longest body that is kept as a text as well; images' manifests are shorter. */
const MAX_TEXT = 16 * 1024;
/** What an entry weighs besides its key and body: headers and two replies. */
const OVERHEAD = 1024;

interface Entry {
  /** Null where only HEAD was asked, and its answer came without the manifest. */
  readonly get: Reply | null;
  readonly head: Reply;
  readonly freshUntil: number;
  /** When it was asked for; a moment of the core's denials. */
  readonly asked: number;
  /** As which it is counted, looked up once. */
  readonly row: string;
}

/** When the core was asked for a reply. */
interface Moment {
  readonly generation: number;
  readonly asked: number;
}

export interface ManifestCacheOptions {
  readonly core: VersionedCore;
  readonly replies: RepliesTally;
  /** The row of the table as which a registry is counted. */
  readonly rowName: (registry: string) => string;
  readonly maxBytes?: number;
  /** Milliseconds since 1970, of the same clock as the core's. */
  readonly now?: () => number;
}

/**
 * The one layer of memory between clients and the index: manifests' replies that are ready to be sent, in front of a core of this process or
 * of another. A reply is given again for as long as the core said (`freshUntil`), to clients that the core would have answered alike, until its
 * repository is denied; all are dropped when the core's generation changes. Everything but manifests goes straight through.
 */
export class ManifestCache implements ProxyCore {
  readonly #core: VersionedCore;
  readonly #replies: RepliesTally;
  readonly #rowName: (registry: string) => string;
  readonly #now: () => number;
  readonly #entries: LRUCache<string, Entry>;
  /** Of the core, when the entries were made. */
  #generation: number;

  constructor({ core, replies, rowName, maxBytes = MAX_BYTES, now = steadyNow }: ManifestCacheOptions) {
    this.#core = core;
    this.#replies = replies;
    this.#rowName = rowName;
    this.#now = now;
    this.#generation = core.generation;
    this.#entries = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: ({ get }, key) => OVERHEAD + key.length + (get?.body?.length ?? 0) + (get?.text?.length ?? 0),
    });
  }

  serve(pull: Pull): Promise<Reply> | Reply {
    const { what } = pull.target;
    if (what.kind !== 'manifest') return this.#core.serve(pull);
    const { generation } = this.#core;
    if (generation !== this.#generation) {
      this.#entries.clear();
      this.#generation = generation;
    }
    const key = keyOf(pull, what.reference);
    const entry = this.#find(pull, key);
    const reply = pull.method === 'HEAD' ? entry?.head : entry?.get;
    if (entry === null || reply == null) return this.#ask(pull, key, generation);
    this.#replies.add(1, 'manifest', 'cache', entry.row);
    return withCondition(pull, reply);
  }

  #find(pull: Pull, key: string): Entry | null {
    const entry = this.#entries.get(key);
    if (entry === undefined || this.#now() >= entry.freshUntil || this.#isDenied(pull, entry.asked)) return null;
    return entry;
  }

  #ask(pull: Pull, key: string, generation: number): Promise<Reply> | Reply {
    const asked = this.#core.denials.now;
    const answered = this.#core.serve(withoutCondition(pull));
    if (answered instanceof Promise) return this.#answerLater(pull, key, { generation, asked }, answered);
    this.#keep(pull, key, { generation, asked }, answered);
    return withCondition(pull, answered);
  }

  async #answerLater(pull: Pull, key: string, moment: Moment, answered: Promise<Reply>): Promise<Reply> {
    try {
      const reply = await answered;
      this.#keep(pull, key, moment, reply);
      return withCondition(pull, reply);
    } catch (error) {
      // A HEAD may have been answered before: what a GET is refused is no longer there.
      if (isMissing(error) || isRefusal(error)) this.#entries.delete(key);
      throw error;
    }
  }

  /** An answer from before a change of the core, or a denial, is not kept. */
  #keep(pull: Pull, key: string, { generation, asked }: Moment, reply: Reply): void {
    const { status, headers, body, since, freshUntil } = reply;
    if (freshUntil === undefined || generation !== this.#core.generation || this.#isDenied(pull, asked)) return;
    if (body !== null && !(body instanceof Uint8Array)) return;
    // What came meanwhile for a GET answers HEAD as well.
    if (body === null && this.#find(pull, key)?.get != null) return;
    const ready = { status, headers, from: 'cache', ...(since === undefined ? {} : { since }) } as const;
    this.#entries.set(key, {
      get: body === null ? null : { ...ready, ...kept(body) },
      head: { ...ready, body: null },
      freshUntil,
      asked,
      row: this.#rowName(pull.target.registry),
    });
  }

  #isDenied({ target }: Pull, asked: number): boolean {
    const { denials } = this.#core;
    return asked !== denials.now && denials.since(asked, repositoryId(target));
  }
}

/** All that a manifest's reply depends on besides its method and condition; by digest it is the same for every `Accept`. None of the parts has a space. */
function keyOf(pull: Pull, reference: Reference): string {
  const { registry, repository } = pull.target;
  const name =
    reference.kind === 'tag'
      ? `${acceptClass(pull.accept).key} ${registry}/${repository}:${reference.tag}`
      : `${registry}/${repository}@${reference.digest}`;
  return `${pull.authenticated ? 'user' : 'anyone'} ${pull.audience ?? ''} ${name}`;
}

/** The whole reply is asked for, so that it can be kept for clients that do not have it. */
function withoutCondition(pull: Pull): Pull {
  if (pull.ifNoneMatch === undefined) return pull;
  const { target, method, accept, authenticated, audience, client, name, base, ns, via, signal } = pull;
  return { target, method, accept, authenticated, audience, client, name, base, ns, via, signal };
}

/** A body that is a part of a larger buffer (a message of another process, Node's pool) would keep that whole buffer in memory: it is copied. */
function kept(body: Uint8Array): Pick<Reply, 'body' | 'text'> {
  const view = Buffer.from(body.buffer, body.byteOffset, body.length);
  const own = body.length === body.buffer.byteLength ? body : ownCopy(body);
  return body.length > MAX_TEXT ? { body: own } : { body: own, text: view.toString('latin1') };
}
