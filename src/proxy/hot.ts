import type { Digest } from '../oci/digest.ts';
import { type AcceptClass, parseAccept } from '../oci/media-types.ts';
import { type Headers, manifestHeaders } from './headers.ts';
import { Lru } from './lru.ts';
import type { Reply } from './reply.ts';

/** Bytes of manifests ready to be sent: some thousand images, and little against the memory that the gateway may take. */
const HOT_BYTES = 16 * 1024 * 1024;
/** What an answer weighs besides its body: headers, two replies, keys. */
const OVERHEAD = 1024;
/** A reply is built anew from the store after this, so that what an operator drops is gone within it, and the store sees what is used. */
export const HOT_FOR = 60_000;
/** Variants of one tag kept ready. */
const MAX_VARIANTS = 8;
/** Different `Accept` headers remembered as parsed; a client program sends one or two. */
const MAX_ACCEPTS = 512;
const MAX_ACCEPT_LENGTH = 2048;

/** What a reference stood for, ready to be sent. Body and `get` are null where only HEAD was asked so far. */
export interface Answer {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly variant: string;
  readonly body: Uint8Array | null;
  /** The operator's credentials opened it. */
  readonly private: boolean;
  /** When the upstream last said so, ms; a digest's answer is good for ever. */
  readonly checkedAt: number;
  readonly loadedAt: number;
  readonly headers: Headers;
  readonly get: Reply | null;
  readonly head: Reply;
}

export function makeAnswer(
  from: Pick<Answer, 'digest' | 'mediaType' | 'variant' | 'body' | 'private' | 'checkedAt' | 'loadedAt'> & {
    readonly size: number;
    /** See {@link Reply.freshUntil}. */
    readonly freshUntil?: number;
  },
): Answer {
  const headers = manifestHeaders(from.mediaType, from.size, from.digest);
  const { digest, mediaType, variant, body, checkedAt, loadedAt } = from;
  const fresh = from.freshUntil === undefined ? {} : { freshUntil: from.freshUntil };
  return {
    digest,
    mediaType,
    variant,
    body,
    private: from.private,
    checkedAt,
    loadedAt,
    headers,
    get: body === null ? null : { status: 200, headers, body, from: 'cache', ...fresh },
    head: { status: 200, headers, body: null, from: 'cache', ...fresh },
  };
}

/** Ready answers by reference, the most used in memory; bounded in bytes. */
export class HotAnswers {
  readonly #entries = new Lru<readonly Answer[]>(HOT_BYTES, (answers) =>
    answers.reduce((sum, { body }) => sum + OVERHEAD + (body?.length ?? 0), 0),
  );
  readonly #accepts = new Map<string, AcceptClass>();

  /** The newest answer that this client may have; null where there is none that is recent enough. */
  find(key: string, client: AcceptClass, now: number): Answer | null {
    const answers = this.#entries.get(key);
    if (answers === undefined) return null;
    let best: Answer | null = null;
    for (const answer of answers) {
      if (best !== null && best.checkedAt >= answer.checkedAt) continue;
      if (now - answer.loadedAt >= HOT_FOR || !client.variants.includes(answer.variant)) continue;
      best = answer;
    }
    return best;
  }

  /** What was kept for a digest: one content, whatever the client's Accept. */
  ofDigest(key: string, now: number): Answer | null {
    const answer = this.#entries.get(key)?.[0];
    return answer === undefined || now - answer.loadedAt >= HOT_FOR ? null : answer;
  }

  put(key: string, answer: Answer): void {
    const others = (this.#entries.get(key) ?? []).filter(({ variant }) => variant !== answer.variant);
    this.#entries.set(key, [answer, ...others.slice(0, MAX_VARIANTS - 1)]);
  }

  drop(key: string): void {
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }

  /** Parses an Accept header, or remembers having done so. */
  accept(header: string | undefined): AcceptClass {
    const text = header ?? '';
    const known = this.#accepts.get(text);
    if (known !== undefined) return known;
    const parsed = parseAccept(header);
    if (text.length <= MAX_ACCEPT_LENGTH) {
      if (this.#accepts.size >= MAX_ACCEPTS) this.#accepts.clear();
      this.#accepts.set(text, parsed);
    }
    return parsed;
  }
}
