import { BlobReader } from '../cache/reader.ts';
import type { FileSource } from '../cache/shared-read.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Pull, Reply, VersionedCore } from '../proxy/reply.ts';
import { type Channel, ChannelClosedError } from './channel.ts';
import { RemoteBlob } from './remote-blob.ts';
import { type FileMessage, isFile, isStream, type PullMessage, type ReplyMessage, type StreamMessage } from './wire.ts';

/** The proxy core as a worker has it: the owner decides and fetches, the worker reads files by itself. */
export class RemoteCore implements VersionedCore {
  readonly #channel: Channel;
  readonly #blobs = new Map<number, RemoteBlob>();
  #generation = 0;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  get generation(): number {
    return this.#generation;
  }

  /** To be called with every new state of the owner: no answer that was given before it may be given again. */
  invalidate(): void {
    this.#generation++;
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
    });
    return closing(reader, () => channel.tell('close', { source, read }));
  }
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
