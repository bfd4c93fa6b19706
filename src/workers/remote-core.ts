import { CacheError } from '../cache/blob-cache.ts';
import { SharedFile } from '../cache/files.ts';
import { BlobReader, type Readable } from '../cache/reader.ts';
import type { FileSource, FileView, Outcome } from '../cache/shared-read.ts';
import type { Want } from '../cache/wishes.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { IntervalSet } from '../kit/interval-set.ts';
import { RegistryError } from '../oci/errors.ts';
import { Denials } from '../proxy/denials.ts';
import type { Pull, Reply, VersionedCore } from '../proxy/reply.ts';
import { type Channel, ChannelClosedError } from './channel.ts';
import {
  type AdvanceMessage,
  type DeniedMessage,
  decodeFailure,
  type FileMessage,
  isFile,
  isStream,
  type PullMessage,
  type ReplyMessage,
  type StreamMessage,
  type ViewMessage,
} from './protocol.ts';

/** The proxy core as a worker has it: the owner decides and fetches, the worker reads files by itself. */
export class RemoteCore implements VersionedCore {
  readonly #channel: Channel;
  readonly #blobs = new Map<number, RemoteBlob>();
  /** The owner tells of each as it happens. */
  readonly denials = new Denials();
  #generation = 0;

  constructor(channel: Channel) {
    this.#channel = channel;
    channel.on('denied', ({ repository }: DeniedMessage) => this.denials.add(repository));
  }

  get generation(): number {
    return this.#generation;
  }

  /** To be called with every new state of the owner: what else has changed in it voids no answer. */
  ownerIsAt(generation: number): void {
    this.#generation = generation;
  }

  async serve(pull: Pull): Promise<Reply> {
    const { signal, ...message } = pull;
    let reply: ReplyMessage;
    try {
      reply = await this.#channel.call<ReplyMessage>('serve', message satisfies PullMessage, signal);
    } catch (error) {
      if (!(error instanceof ChannelClosedError)) throw error;
      throw new RegistryError('unavailable', { facts: { reason: 'it is restarting' }, cause: error });
    }
    const { body } = reply;
    if (isFile(body)) return { ...reply, body: this.#reader(body, pull) };
    if (isStream(body)) return { ...reply, body: new RemoteStream(this.#channel, body) };
    return { ...reply, body };
  }

  #reader(message: FileMessage, { target: { what } }: Pull): ByteSource {
    const { source, blob: number } = message;
    const channel = this.#channel;
    let blob = this.#blobs.get(number);
    // One whose file could not be opened is of no use to those who come later.
    if (blob === undefined || blob.outcome?.kind === 'failed') {
      const made: RemoteBlob = new RemoteBlob(channel, number, message.view, () => {
        if (this.#blobs.get(number) === made) this.#blobs.delete(number);
      });
      blob = made;
      this.#blobs.set(number, blob);
    } else blob.refresh(message.view);
    let read = 0;
    const reader = new BlobReader(blob, {
      digest: what.kind === 'blob' ? what.digest : undefined,
      from: message.from,
      to: message.to,
      continueFrom: async (offset) =>
        new RemoteStream(channel, await channel.call<StreamMessage>('continue', { source, offset })),
      onDamage: (reason) => channel.tell('damage', { source, reason }),
      onRead: (bytes) => {
        read += bytes;
      },
      byAnother: message.byAnother,
      wholeReply: message.wholeReply,
      check: message.check ? { right: () => channel.tell('checked', { source }), abandoned: () => {} } : undefined,
      want: message.wanted ? new RemoteWant(channel, source) : undefined,
    });
    return closing(reader, () => channel.tell('close', { source, read }));
  }
}

/** The owner learns where a reader waits; with the source it learns that the reader has left. */
class RemoteWant implements Want {
  readonly #channel: Channel;
  readonly #source: number;

  constructor(channel: Channel, source: number) {
    this.#channel = channel;
    this.#source = source;
  }

  moved(): void {}

  waits(offset: number): void {
    this.#channel.tell('wait', { source: this.#source, offset });
  }

  close(): void {}
}

/** The owner's source is closed with the worker's, which knows then how much was read. */
function closing(reader: BlobReader, after: () => void): FileSource {
  let closed = false;
  return {
    get length() {
      return reader.length;
    },
    pull: (into) => reader.pull(into),
    ready: () => reader.ready(),
    place: () => reader.place(),
    pass: (count) => reader.pass(count),
    async close() {
      if (closed) return;
      closed = true;
      try {
        await reader.close();
      } finally {
        after();
      }
    },
  };
}

/** A question to the owner, and the readers at the same place, which ask it once. */
interface Question {
  readonly waiting: Set<() => void>;
  /** Takes it back: nobody waits for the answer any more. */
  readonly abort: AbortController;
}

/** A blob that the owner holds or fills, read in this process from its file; its growth is asked for while someone waits. */
class RemoteBlob implements Readable, FileView {
  readonly #channel: Channel;
  readonly #number: number;
  readonly #onIdle: () => void;
  readonly #asked = new Map<string, Question>();
  readonly #written = new IntervalSet();
  #file: SharedFile | null = null;
  #users = 0;
  #closed = false;
  /** The path that could not be opened the last time. */
  #missing: string | null = null;
  path: string;
  size: number | undefined;
  tail = 0;
  whole = false;
  outcome: Outcome | null = null;

  constructor(channel: Channel, number: number, view: ViewMessage, onIdle: () => void) {
    this.#channel = channel;
    this.#number = number;
    this.#onIdle = onIdle;
    this.path = view.path;
    this.#take(view);
  }

  get blob(): FileView {
    return this;
  }

  get file(): SharedFile | null {
    return this.#file;
  }

  get readers(): number {
    return this.#users;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users > 0) return;
    this.#file?.release();
    this.#file = null;
    this.#closed = true;
    this.#onIdle();
  }

  /** A newer view than the last. */
  refresh(view: ViewMessage): void {
    this.#take(view);
  }

  writtenFrom(offset: number): number {
    return this.#written.endFrom(offset);
  }

  onReadable(offset: number, wholeReply: boolean, listener: () => void): () => void {
    const id = `${offset} ${wholeReply}`;
    const question = this.#asked.get(id) ?? this.#ask(id, { blob: this.#number, offset, wholeReply });
    const { waiting, abort } = question;
    waiting.add(listener);
    return () => {
      waiting.delete(listener);
      if (waiting.size > 0 || this.#asked.get(id) !== question) return;
      this.#asked.delete(id);
      abort.abort();
    };
  }

  #ask(id: string, message: AdvanceMessage): Question {
    const question: Question = { waiting: new Set(), abort: new AbortController() };
    this.#asked.set(id, question);
    void this.#answer(id, question, message);
    return question;
  }

  async #answer(id: string, question: Question, message: AdvanceMessage): Promise<void> {
    try {
      this.#take(await this.#channel.call<ViewMessage>('advance', message, question.abort.signal));
    } catch (error) {
      this.outcome ??= { kind: 'failed', error: error as Error };
    }
    if (this.#asked.get(id) === question) this.#asked.delete(id);
    for (const listener of question.waiting) listener();
  }

  /** Opens the file before anyone may read: a path that has just been renamed is found under the new name in the next view. */
  #take(view: ViewMessage): void {
    // Nobody would close what is opened now.
    if (this.#closed) return;
    this.path = view.path;
    this.size = view.size;
    const { from, to } = view.written;
    if (from < to) {
      try {
        this.#file ??= SharedFile.open(view.path, 'r');
      } catch (error) {
        if (this.#missing === view.path) {
          this.outcome = { kind: 'failed', error: new CacheError('disk', `${view.path}: ${(error as Error).message}`) };
        }
        this.#missing = view.path;
        return;
      }
    }
    this.#written.add(from, to);
    // Two views may arrive in another order than they were made.
    this.tail = Math.max(this.tail, view.tail);
    this.whole ||= view.whole;
    if (view.outcome === 'complete') {
      this.#written.add(0, view.size ?? 0);
      this.outcome = { kind: 'complete' };
    } else if (view.outcome !== null) this.outcome = { kind: 'failed', error: decodeFailure(view.outcome.failure) };
  }
}

/** A body that only the owner can read: it crosses in pieces, each asked for. */
class RemoteStream implements ByteSource {
  readonly #channel: Channel;
  readonly #source: number;
  readonly length: number | undefined;
  #closed = false;

  constructor(channel: Channel, { source, length }: StreamMessage) {
    this.#channel = channel;
    this.#source = source;
    this.length = length;
  }

  async pull(into: Uint8Array): Promise<number> {
    if (this.#closed) throw new TruncatedError('the source is closed');
    const piece = await this.#channel.call<Uint8Array>('pull', { source: this.#source, size: into.length });
    into.set(piece);
    return piece.length;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel.tell('close', { source: this.#source, read: 0 });
  }
}
