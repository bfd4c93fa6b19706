import { type FileSource, type FileView, readableFrom, type SharedRead } from '../cache/shared-read.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import type { VersionedCore } from '../proxy/reply.ts';
import type { Channel } from './channel.ts';
import {
  type AdvanceMessage,
  type DeniedMessage,
  encodeFailure,
  type FileMessage,
  type PullMessage,
  type ReplyMessage,
  type StreamMessage,
  type ViewMessage,
} from './protocol.ts';

/** Growth of a blob by this much is reported to a reader at once, bytes. */
const STEP = 256 * 1024;
/** Less growth is reported after this, ms, together with what comes meanwhile. */
const STEP_WAIT = 5;
/** The most that one pull of a streamed body carries. */
const MAX_PULL = 256 * 1024;

interface Source {
  readonly bytes: ByteSource;
  readonly shared: SharedRead | null;
}

/** Views get numbers for all workers alike; a blob that nobody reads any more is forgotten with its number. */
const numbers = new WeakMap<FileView, number>();
let nextNumber = 1;

/**
 * The owner's side of one worker's pulls: serves them with the one core, keeps the sources open that the worker reads from,
 * and closes them all when the worker has gone.
 */
export class CoreHost {
  readonly #core: VersionedCore;
  readonly #sources = new Map<number, Source>();
  readonly #views = new Map<number, { readonly view: FileView; users: number }>();
  #nextSource = 1;
  #gone = false;

  constructor(core: VersionedCore, channel: Channel) {
    this.#core = core;
    channel.handle('serve', (pull: PullMessage, { signal }) => this.#serve(pull, signal));
    channel.handle('advance', (message: AdvanceMessage, { signal }) => this.#advance(message, signal));
    channel.on('wait', ({ source, offset }: { source: number; offset: number }) =>
      this.#sources.get(source)?.shared?.want?.waits(offset),
    );
    channel.handle('pull', ({ source, size }: { source: number; size: number }) => this.#pull(source, size));
    channel.handle('continue', ({ source, offset }: { source: number; offset: number }) =>
      this.#continue(source, offset),
    );
    channel.on('damage', ({ source, reason }: { source: number; reason: string }) =>
      this.#sources.get(source)?.shared?.onDamage(reason),
    );
    channel.on('checked', ({ source }: { source: number }) => this.#sources.get(source)?.shared?.check?.right());
    channel.on('close', ({ source, read }: { source: number; read: number }) => void this.#close(source, read));
    // In the order of the answers: none from before a denial comes after it.
    const unsubscribe = core.denials.subscribe((repository) =>
      channel.tell('denied', { repository } satisfies DeniedMessage),
    );
    channel.onClose(() => {
      unsubscribe();
      this.#gone = true;
      for (const id of [...this.#sources.keys()]) void this.#close(id, 0);
    });
  }

  async #serve(pull: PullMessage, signal: AbortSignal): Promise<ReplyMessage> {
    const reply = await this.#core.serve({ ...pull, signal });
    const { body } = reply;
    if (body === null || body instanceof Uint8Array) return { ...reply, body };
    return { ...reply, body: this.#open(body) };
  }

  #open(bytes: FileSource): FileMessage | StreamMessage {
    const shared = bytes.share?.() ?? null;
    const source = this.#nextSource++;
    this.#sources.set(source, { bytes, shared });
    // The answer to a worker that ended meanwhile reaches nobody.
    if (this.#gone) queueMicrotask(() => void this.#close(source, 0));
    if (shared === null) return { kind: 'stream', source, length: bytes.length };
    const { view, from, to, wholeReply, want, check, byAnother = false } = shared;
    return {
      kind: 'file',
      source,
      blob: this.#hold(view),
      from,
      to,
      length: bytes.length,
      view: describe(view, from),
      wholeReply,
      byAnother,
      wanted: want !== undefined && view.outcome === null,
      check: check !== undefined,
    };
  }

  #hold(view: FileView): number {
    const number = numbers.get(view) ?? nextNumber++;
    numbers.set(view, number);
    const held = this.#views.get(number);
    if (held === undefined) this.#views.set(number, { view, users: 1 });
    else held.users++;
    return number;
  }

  /** Answers once the byte at an offset can be read, or the growth has ended. */
  async #advance({ blob, offset, wholeReply }: AdvanceMessage, signal: AbortSignal): Promise<ViewMessage> {
    const view = this.#views.get(blob)?.view;
    if (view === undefined) throw new Error('the blob was closed');
    const grown = (): number => readableFrom(view, offset, wholeReply) - offset;
    // The first bytes are reported at once.
    const goesOn = offset > 0 && view.writtenFrom(offset - 1) >= offset;
    if (view.outcome === null && grown() === 0) await readable(view, offset, wholeReply, signal);
    if (goesOn && view.outcome === null && grown() < STEP && !signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, STEP_WAIT));
    }
    return describe(view, offset);
  }

  async #pull(source: number, size: number): Promise<Uint8Array> {
    const bytes = this.#sources.get(source)?.bytes;
    if (bytes === undefined) throw new Error('the source was closed');
    const into = Buffer.allocUnsafe(Math.min(size, MAX_PULL));
    return into.subarray(0, await bytes.pull(into));
  }

  async #continue(source: number, offset: number): Promise<StreamMessage> {
    const continueFrom = this.#sources.get(source)?.shared?.continueFrom;
    if (continueFrom === undefined) throw new Error('nothing goes on where the cache failed');
    const bytes = await continueFrom(offset);
    return this.#open(new Unshared(bytes)) as StreamMessage;
  }

  async #close(id: number, read: number): Promise<void> {
    const source = this.#sources.get(id);
    if (source === undefined) return;
    this.#sources.delete(id);
    const { shared, bytes } = source;
    if (shared !== null) {
      if (read > 0) shared.onRead(read);
      const number = numbers.get(shared.view) ?? 0;
      const held = this.#views.get(number);
      if (held !== undefined && --held.users === 0) this.#views.delete(number);
    }
    await bytes.close().catch(() => {});
  }
}

/** Always streamed: what goes on past a cache that failed is not read from its files. */
class Unshared implements ByteSource {
  readonly #inner: ByteSource;
  readonly length: number | undefined;

  constructor(inner: ByteSource) {
    this.#inner = inner;
    this.length = inner.length;
  }

  pull(into: Uint8Array): Promise<number> {
    return this.#inner.pull(into);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

/** Resolves when the byte at an offset can be read, the growth has ended, or nobody waits any more. */
function readable(view: FileView, offset: number, wholeReply: boolean, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const abort = (): void => {
      end();
      resolve();
    };
    const end = view.onReadable(offset, wholeReply, () => {
      signal.removeEventListener('abort', abort);
      resolve();
    });
    signal.addEventListener('abort', abort, { once: true });
  });
}

function describe(view: FileView, offset: number): ViewMessage {
  const { path, size, tail, whole, outcome } = view;
  return {
    path,
    size,
    written: { from: offset, to: view.writtenFrom(offset) },
    tail,
    whole,
    outcome:
      outcome === null ? null : outcome.kind === 'complete' ? 'complete' : { failure: encodeFailure(outcome.error) },
  };
}
