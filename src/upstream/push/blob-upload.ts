import { Readable } from 'node:stream';
import type { Digest } from '../../oci/names.ts';
import { InvalidResponseError, StatusError } from '../failures.ts';
import { header } from '../responses.ts';
import { type Attempts, retrying } from './attempts.ts';
import { type PushAnswer, type PushRequest, type PushRequests, refusal } from './push-requests.ts';
import type { UploadJournal, UploadKey } from './upload-journal.ts';
import {
  chunkLength,
  commitUrl,
  confirmedBytes,
  minChunkOf,
  sessionLocation,
  type UploadSession,
} from './upload-session.ts';

/** The bytes that go out; images/push-target.ts has the same as a port. */
export interface UploadContent {
  readonly digest: Digest;
  readonly size: number;
  seek(offset: number): Promise<void>;
  pull(into: Uint8Array): Promise<number>;
  verify(): Promise<void>;
}

/**
 * How blobs go to a registry, the first one that it takes:
 * - `chunks`: what breaks off goes on from the last one that the registry has confirmed;
 * - `stream`: all of it in one PATCH without a range, as Docker does, for registries that know no chunks;
 * - `whole`: all of it in the PUT that commits it, for those that take no PATCH.
 */
export type UploadWay = 'chunks' | 'stream' | 'whole';

const NEXT_WAY: Readonly<Record<UploadWay, UploadWay | null>> = { chunks: 'stream', stream: 'whole', whole: null };

/** What one registry is known to take, shared by all uploads to it. */
export interface UploadManners {
  way: UploadWay;
}

export interface UploadOptions {
  readonly requests: PushRequests;
  readonly attempts: Attempts;
  readonly journal: UploadJournal;
  readonly manners: UploadManners;
  readonly key: UploadKey;
  /** What tokens must open. */
  readonly scope: string;
  /** Where sessions begin: `…/v2/<name>/blobs/uploads/`. */
  readonly begin: URL;
  /** Whether the registry has the blob. */
  readonly isThere: (signal: AbortSignal) => Promise<boolean>;
  /** Told how many bytes the registry has, or is being sent. */
  readonly progress: (bytes: number) => void;
  /** Bytes of one chunk. */
  readonly chunk: number;
}

/** Of one chunk: what is sent twice at most where a connection breaks, and few requests for a large blob. */
export const CHUNK = 16 * 1024 * 1024;
/** Read from the source at a time. */
const PIECE = 128 * 1024;
/** For a small answer, ms. */
export const ANSWER_MS = 60_000;
/** Without a byte taken of a body, and then for the answer: registries put a chunk into their own store first, ms. */
const CHUNK_MS = 120_000;
/** For the last answer: registries hash all of a blob, and copy it within their store, ms. */
const COMMIT_MS = 10 * 60_000;
/** By these a registry says that it takes no such request, where it has begun the session just before. */
const REFUSES_WAY: ReadonlySet<number> = new Set([400, 404, 405, 411, 413, 415, 416, 501]);
/** By these it says that a session stands elsewhere, or is gone. */
const LOST: ReadonlySet<number> = new Set([400, 404, 410, 416]);

/** The source failed, and not the registry: nothing that is sent once more helps. */
class ContentError extends Error {
  override readonly name = 'ContentError';
}

/** What is under way in a session. */
type Step =
  /** To begin one. */
  | 'begin'
  /** The first body in a new one, which shows whether the registry takes such. */
  | 'first'
  | 'more'
  | 'commit';

/** One blob on its way into a registry (distribution-spec, *Pushing blobs*). */
export class BlobUpload {
  readonly #options: UploadOptions;
  readonly #content: UploadContent;
  #session: UploadSession | null = null;
  #step: Step = 'begin';
  /** In which this session is sent. */
  #way: UploadWay = 'chunks';
  /** Small blobs go in one request, unless the registry has refused that. */
  #isOneRequest: boolean;
  /** The most that was ever confirmed: more of it is progress. */
  #best = 0;
  #sent = 0;
  #contentFailure: unknown = null;
  /** What is being read of the content. */
  #reading: Promise<unknown> = Promise.resolve();
  /** Of the request whose body may read. */
  #turn = 0;
  #wrongDigests = 0;

  constructor(content: UploadContent, options: UploadOptions) {
    this.#content = content;
    this.#options = options;
    this.#isOneRequest = content.size <= options.chunk;
  }

  /**
   * Takes up a session that an earlier process has left.
   * @returns whether there is one that the registry still knows
   */
  async resume(signal: AbortSignal): Promise<boolean> {
    const { journal, key } = this.#options;
    const kept = await journal.take(key);
    if (kept === null) return false;
    this.#session = kept;
    this.#step = 'more';
    await this.#ask(signal).catch(() => {
      signal.throwIfAborted();
      this.#session = null;
    });
    if (this.#session === null) await journal.drop(key);
    return this.#session !== null;
  }

  /** Begins in the session that the registry has begun in answer to a mount; in one of its own where that leads nowhere. */
  adopt(answer: PushAnswer): void {
    try {
      this.#session = newSession(answer, this.#options.requests.endpoint);
      this.#step = 'first';
    } catch {}
  }

  /** Resolves to the bytes that were sent, once the registry has the blob. @throws {OperatorError}; what the content throws */
  async run(signal: AbortSignal): Promise<number> {
    for (;;) {
      try {
        await this.#push(signal);
        break;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof ContentError) {
          await this.#cancel();
          throw error.cause;
        }
        if (await this.#recover(error, signal)) break;
      }
    }
    await this.#options.journal.drop(this.#options.key);
    return this.#sent;
  }

  async #push(signal: AbortSignal): Promise<void> {
    const { size } = this.#content;
    this.#session ??= await this.#begin(signal);
    const isUntouched = this.#session.offset === 0 && this.#step === 'first';
    if (isUntouched) this.#way = this.#options.manners.way;
    if (isUntouched && (this.#way === 'whole' || this.#isOneRequest)) return await this.#commitWhole(signal);
    if (isUntouched && this.#way === 'stream') await this.#patch(size, signal, false);
    while (this.#session.offset < size)
      await this.#patch(chunkLength(this.#session, size, this.#options.chunk), signal, true);
    await this.#commit(signal);
  }

  async #begin(signal: AbortSignal): Promise<UploadSession> {
    this.#step = 'begin';
    const { begin, requests } = this.#options;
    const answer = await this.#send({ method: 'POST', url: begin, headers: { 'content-length': '0' } }, signal);
    if (answer.status !== 202) throw refusal(answer);
    const session = newSession(answer, requests.endpoint);
    this.#step = 'first';
    if (!this.#isOneRequest) await this.#remember(session);
    return session;
  }

  /** One PATCH from where the session stands. */
  async #patch(length: number, signal: AbortSignal, isChunk: boolean): Promise<void> {
    const { location, offset } = this.#session as UploadSession;
    const end = offset + length;
    const range = isChunk ? { 'content-range': `${offset}-${end - 1}` } : {};
    const answer = await this.#sendBody({ method: 'PATCH', url: location, headers: range }, offset, length, signal);
    // 201 and 204 are what some registries answer that keep to an earlier draft.
    if (![201, 202, 204].includes(answer.status)) throw refusal(answer);
    this.#step = 'more';
    const confirmed = confirmedBytes(answer.headers) ?? end;
    // What was sent without a range cannot be gone on with.
    const isWrong = confirmed > end || (isChunk ? confirmed <= offset : confirmed !== end);
    if (isWrong) throw new Error(`it confirms ${confirmed} bytes of the ${end} that were sent`);
    await this.#standsAt(answer, confirmed);
  }

  /** The PUT that commits the session, once what was sent is known to be right. */
  async #commit(signal: AbortSignal): Promise<void> {
    this.#step = 'commit';
    await this.#content.verify().catch((cause: unknown) => {
      throw new ContentError('the source failed', { cause });
    });
    const url = commitUrl((this.#session as UploadSession).location, this.#content.digest);
    const empty = { 'content-length': '0' };
    this.#requireKept(await this.#send({ method: 'PUT', url, headers: empty, patience: COMMIT_MS }, signal));
  }

  /** All of the blob in the PUT that commits it. */
  async #commitWhole(signal: AbortSignal): Promise<void> {
    const url = commitUrl((this.#session as UploadSession).location, this.#content.digest);
    const request = { method: 'PUT', url, patience: COMMIT_MS } as const;
    this.#requireKept(await this.#sendBody(request, 0, this.#content.size, signal));
  }

  #requireKept(answer: PushAnswer): void {
    if (![200, 201, 204].includes(answer.status)) throw refusal(answer);
    const said = header(answer.headers, 'docker-content-digest');
    if (said !== undefined && said !== this.#content.digest)
      throw new InvalidResponseError(`it keeps ${this.#content.digest} as ${said.slice(0, 100)}`);
  }

  /** Where the session stands by the registry's own word; none any more where it has forgotten it, or cannot go on with it. */
  async #ask(signal: AbortSignal): Promise<void> {
    const session = this.#session;
    if (session === null) return;
    // Only chunks can be put behind what is there.
    if (this.#way !== 'chunks') {
      this.#session = null;
      return;
    }
    const answer = await this.#send({ method: 'GET', url: session.location }, signal);
    if (answer.status >= 500 || answer.status === 429 || answer.status === 408) throw refusal(answer);
    const confirmed = confirmedBytes(answer.headers);
    const stands = (answer.status === 204 || answer.status === 200) && confirmed !== null;
    if (!stands || confirmed > this.#content.size) {
      this.#session = null;
      return;
    }
    this.#step = 'more';
    await this.#standsAt(answer, confirmed);
  }

  /** The registry has `offset` bytes: remembered, for whoever comes after this process. */
  async #standsAt(answer: PushAnswer, offset: number): Promise<void> {
    const { attempts, progress, requests } = this.#options;
    const before = this.#session as UploadSession;
    const place = header(answer.headers, 'location');
    const location = place === undefined ? before.location : sessionLocation(place, answer.url, requests.endpoint);
    if (offset > this.#best) {
      this.#best = offset;
      attempts.progressed();
    }
    progress(offset);
    await this.#remember({ ...before, location, offset });
  }

  async #remember(session: UploadSession): Promise<void> {
    this.#session = session;
    // An upload that goes elsewhere (an object store) is authorised by its URL alone, and for minutes.
    if (this.#options.requests.isOwn(session.location)) await this.#options.journal.put(this.#options.key, session);
  }

  /**
   * Finds out how to go on after a failure; true where the registry has the blob after all.
   * @throws {OperatorError} where nothing helps
   */
  async #recover(error: unknown, signal: AbortSignal): Promise<boolean> {
    const { attempts, isThere } = this.#options;
    const status = error instanceof StatusError ? error.status : 0;
    const isWrongDigest = error instanceof StatusError && error.said.code === 'DIGEST_INVALID';
    if (isWrongDigest && ++this.#wrongDigests > 1)
      await attempts.after(new InvalidResponseError('it has got other bytes than were sent, twice'), signal);
    if (this.#step === 'first' && REFUSES_WAY.has(status) && !isWrongDigest && this.#takeNextWay()) return false;
    const isLost = this.#session !== null && LOST.has(status);
    await attempts.after(isLost ? new Error(`it has given up an upload, with ${status}`) : error, signal);
    if (this.#step === 'begin') return false;
    const mayBeDone = this.#step === 'commit' || this.#step === 'first';
    // In a session that is gone nothing is to be looked for, but one that stands elsewhere says where.
    if (isLost && status !== 416) this.#session = null;
    return await retrying(attempts, signal, async () => {
      await this.#ask(signal);
      if (this.#session !== null) return false;
      this.#options.progress(0);
      // The answer to the last request may be all that was lost.
      return mayBeDone && (await isThere(signal));
    });
  }

  /** Another way to send what was refused; false where there is none. */
  #takeNextWay(): boolean {
    const { manners } = this.#options;
    this.#session = null;
    if (this.#isOneRequest && this.#way !== 'whole') {
      this.#isOneRequest = false;
      return true;
    }
    const next = NEXT_WAY[this.#way];
    // Unless another upload has learnt it meanwhile.
    if (next !== null && manners.way === this.#way) manners.way = next;
    return next !== null;
  }

  /** Tells the registry that it may forget the session; best effort. */
  async #cancel(): Promise<void> {
    const session = this.#session;
    await this.#options.journal.drop(this.#options.key);
    if (session === null) return;
    await this.#send({ method: 'DELETE', url: session.location }, AbortSignal.timeout(ANSWER_MS / 10)).catch(() => {});
  }

  async #send(
    request: Omit<PushRequest, 'scope' | 'signal' | 'patience'> & { readonly patience?: number },
    signal: AbortSignal,
  ): Promise<PushAnswer> {
    const { requests, scope } = this.#options;
    return await requests.send({ patience: ANSWER_MS, ...request, scope, signal });
  }

  async #sendBody(
    request: Pick<PushRequest, 'method' | 'url'> & Partial<Pick<PushRequest, 'headers' | 'patience'>>,
    from: number,
    length: number,
    signal: AbortSignal,
  ): Promise<PushAnswer> {
    this.#contentFailure = null;
    this.#turn += 1;
    const pieces = this.#pieces(this.#turn, from, length, request.method === 'PUT');
    const body = Readable.from(pieces, { objectMode: false });
    const own = { 'content-type': 'application/octet-stream', 'content-length': String(length) };
    const headers = { ...own, ...request.headers };
    try {
      return await this.#send({ patience: CHUNK_MS, ...request, headers, body }, signal);
    } catch (error) {
      if (this.#contentFailure !== null) throw new ContentError('the source failed', { cause: this.#contentFailure });
      throw error;
    } finally {
      body.on('error', () => {}).destroy();
      // The content has one reader at a time.
      this.#turn += 1;
      await this.#reading;
    }
  }

  /** Bytes of the content; where they `commit` it, the last ones come when all are known to be right. */
  async *#pieces(turn: number, from: number, length: number, commits: boolean): AsyncGenerator<Buffer> {
    const content = this.#content;
    await this.#read(turn, () => content.seek(from));
    let held: Buffer | null = null;
    for (let at = from, left = length; left > 0; ) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, left));
      const count = await this.#read(turn, () => content.pull(piece));
      if (count === 0) break;
      left -= count;
      const ready: Buffer | null = commits ? held : piece.subarray(0, count);
      held = piece.subarray(0, count);
      if (ready === null) continue;
      this.#sent += ready.length;
      at += ready.length;
      this.#options.progress(at);
      yield ready;
    }
    if (!commits) return;
    await this.#read(turn, () => content.verify());
    if (held === null) return;
    this.#sent += held.length;
    yield held;
  }

  async #read<T>(turn: number, run: () => Promise<T>): Promise<T> {
    if (turn !== this.#turn) throw new Error('the request has ended');
    const reading = run();
    this.#reading = reading.catch((error: unknown) => {
      this.#contentFailure = error;
    });
    return await reading;
  }
}

/** @throws {RedirectError} */
function newSession(answer: PushAnswer, endpoint: URL): UploadSession {
  const location = sessionLocation(header(answer.headers, 'location'), answer.url, endpoint);
  return { location, offset: 0, minChunk: minChunkOf(answer.headers) };
}
