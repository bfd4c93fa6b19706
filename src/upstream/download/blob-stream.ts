import type { Readable } from 'node:stream';
import type { Askers } from '../../kit/askers.ts';
import { type ByteSource, TruncatedError } from '../../kit/byte-source.ts';
import { jitter, sleep } from '../../kit/time.ts';
import { busyError, RegistryError } from '../../oci/errors.ts';
import type { BlobKey } from '../../oci/names.ts';
import type { BlobStream } from '../../oci/transfer.ts';
import type { UpstreamContext } from '../context.ts';
import type { DocumentWork } from '../document-deadline.ts';
import { readBlobHead } from '../document-responses.ts';
import { InvalidResponseError, reasonOf } from '../failures.ts';
import { type BlobRequest, requestBlob } from '../request.ts';
import {
  blobError,
  bytesOf,
  cutOff,
  discard,
  header,
  parseContentRange,
  readBlobContent,
  requirePossibleSize,
  statusError,
  type UpstreamResponse,
  unsatisfiedSize,
} from '../responses.ts';
import { type Route, rowOf } from '../upstream.ts';
import { Pace } from './pace.ts';

/** Attempts in a row that bring no byte, before a stream is given up: with the waits between them half a minute, as long as clients wait. */
const MAX_IDLE_ATTEMPTS = 6;
const BACKOFF_MS = 100;
const BACKOFF_MAX_MS = 8_000;

/** The size by HEAD, else by GET of the first byte: public.ecr.aws answers 401 to every HEAD, and some CDNs sign URLs for GET only. */
export async function statBlob(
  context: UpstreamContext,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  { signal, holder }: DocumentWork,
): Promise<{ readonly size: number | undefined }> {
  const ask = (request: Pick<BlobRequest, 'method' | 'range' | 'signal'>): Promise<UpstreamResponse> =>
    requestBlob(context.requester, route, endpoint, key, { ...request, purpose: 'document', holder });
  const head = async (own: AbortSignal) =>
    await readBlobHead(await ask({ method: 'HEAD', range: null, signal: own }), endpoint, key.digest);
  const get = async (own: AbortSignal) => {
    const size = await sizeOf(await ask({ method: 'GET', range: { from: 0, to: 1 }, signal: own }), endpoint);
    requirePossibleSize(key.digest, size);
    return { size };
  };
  return await context.headOrGet.ask(endpoint, 'blob', signal, { head, get });
}

/** What the response to a GET of the first byte says of the size. */
async function sizeOf(first: UpstreamResponse, endpoint: URL): Promise<number | undefined> {
  if (first.status === 206) {
    discard(first.body);
    const range = parseContentRange(header(first.headers, 'content-range'));
    if (range?.from !== 0) throw new InvalidResponseError('a part of the blob that was not asked for');
    return range.size;
  }
  if (first.status === 200) {
    cutOff(first.body);
    return bytesOf(header(first.headers, 'content-length'));
  }
  // An empty blob has no first byte.
  if (first.status === 416) {
    discard(first.body);
    return unsatisfiedSize(first);
  }
  throw await statusError(first, endpoint);
}

/**
 * One GET of a blob or a range of it, not resumed. It holds a permit of what passes through until its body is closed. Where a permit is
 * wanted elsewhere, the body of whoever reads slowest is closed: it breaks off for its reader, who may ask for the rest (see {@link resumable}).
 * @param options.goesOn whether a client has a part of the answer already: it waits for a permit as long as it takes
 */
export async function openBlob(
  context: UpstreamContext,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  range: { from: number; to?: number } | null,
  signal: AbortSignal,
  { askers, goesOn, expectedSize }: { askers: Askers | undefined; goesOn: boolean; expectedSize: number | undefined },
): Promise<BlobStream> {
  const pace = new Pace();
  const stop = new AbortController();
  const release = await context.pools.acquire('passing', rowOf(route), signal, {
    askers,
    item: key.repository,
    patient: goesOn,
    rested: goesOn,
    pace: () => pace.bytesPerSecond,
    rest: () => stop.abort(busyError(`downloads from ${route.host} that are not kept`)),
  });
  try {
    const within = AbortSignal.any([signal, stop.signal]);
    const request = { method: 'GET', range, signal: within, purpose: null, holder: { askers } } as const;
    const response = await requestBlob(context.requester, route, endpoint, key, request);
    response.body.once('close', release);
    return await streamOf(response, endpoint, key, { range, expectedSize }, (bytes) => {
      pace.add(bytes);
      context.metrics.bytes.inc({ registry: rowOf(route) }, bytes);
    });
  } catch (error) {
    release();
    throw error;
  }
}

/** @param count is called with the length of every chunk that is read */
async function streamOf(
  response: UpstreamResponse,
  endpoint: URL,
  { digest }: BlobKey,
  { range, expectedSize }: { range: { from: number; to?: number } | null; expectedSize: number | undefined },
  count: (bytes: number) => void,
): Promise<BlobStream> {
  const content = readBlobContent(response, range?.from ?? null, expectedSize);
  if (content?.kind === 'whole' || content?.kind === 'segment') {
    const { size } = content;
    try {
      requirePossibleSize(digest, size, expectedSize);
    } catch (error) {
      cutOff(response.body);
      throw error;
    }
    if (content.kind === 'whole') return { status: 200, size, source: new BodySource(response.body, size, count) };
    const { from, to } = content;
    // A server may send less of a range than was asked for (RFC 9110 §15.3.7), but not more.
    if (to > (range?.to ?? to)) {
      cutOff(response.body);
      throw new InvalidResponseError('more of the blob than was asked for');
    }
    return {
      status: 206,
      contentRange: { from, to, size },
      size,
      source: new BodySource(response.body, to - from, count),
    };
  }
  if (response.status === 416 && range !== null) {
    discard(response.body);
    const size = unsatisfiedSize(response) ?? '*';
    throw new RegistryError('rangeNotSatisfiable', {
      facts: { range: `bytes=${range.from}-`, size },
      headers: { 'content-range': `bytes */${size}` },
    });
  }
  throw await blobError(response, endpoint);
}

/** A response body as a ByteSource. Nothing is read ahead beyond the stream's own buffer, so a slow client slows down the upstream. */
class BodySource implements ByteSource {
  readonly length: number | undefined;
  readonly #body: Readable;
  readonly #count: (bytes: number) => void;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #ended = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;

  /** @param count is called with the length of every chunk that is read */
  constructor(body: Readable, length: number | undefined, count: (bytes: number) => void) {
    this.length = length;
    this.#count = count;
    this.#body = body;
    const wake = (): void => {
      this.#wake?.();
      this.#wake = null;
    };
    body.on('readable', wake);
    body.on('end', () => {
      this.#ended = true;
      wake();
    });
    body.on('error', (error) => {
      this.#error = error;
      wake();
    });
    body.on('close', wake);
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#at === this.#chunk.length) {
      const chunk = this.#body.read() as Uint8Array | null;
      if (chunk !== null) {
        this.#chunk = chunk;
        this.#at = 0;
        this.#count(chunk.length);
        continue;
      }
      if (this.#ended) return 0;
      if (this.#error !== null || this.#body.destroyed) {
        throw new TruncatedError(`the upstream's body broke off: ${reasonOf(this.#error)}`, { cause: this.#error });
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const end = Math.min(this.#chunk.length, this.#at + into.length);
    into.set(this.#chunk.subarray(this.#at, end));
    const count = end - this.#at;
    this.#at = end;
    return count;
  }

  async close(): Promise<void> {
    this.#body.destroy();
    this.#wake?.();
  }
}

/**
 * The same stream, but where it breaks off the rest is requested anew; unchanged where its end is not known.
 * @param open requests a range of the blob
 */
export function resumable(
  stream: BlobStream,
  open: (range: { from: number; to: number }) => Promise<BlobStream>,
  signal: AbortSignal,
): BlobStream {
  const from = stream.contentRange?.from ?? 0;
  const to = stream.contentRange?.to ?? stream.size;
  if (to === undefined) return stream;
  const reopen = async (offset: number): Promise<ByteSource> => {
    const rest = await open({ from: offset, to });
    const fits = rest.contentRange?.to === to && (stream.size ?? rest.size) === (rest.size ?? stream.size);
    if (fits) return rest.source;
    await rest.source.close();
    throw new TruncatedError('the upstream does not bring the rest of what it broke off');
  };
  return { ...stream, source: new ResumableSource(stream.source, { from, to, reopen, signal }) };
}

class ResumableSource implements ByteSource {
  readonly length: number | undefined;
  readonly #reopen: (offset: number) => Promise<ByteSource>;
  readonly #signal: AbortSignal;
  readonly #closed = new AbortController();
  readonly #to: number;
  #source: ByteSource;
  #at: number;
  #idleAttempts = 0;

  constructor(
    source: ByteSource,
    options: { from: number; to: number; reopen: (offset: number) => Promise<ByteSource>; signal: AbortSignal },
  ) {
    this.length = source.length;
    this.#source = source;
    this.#at = options.from;
    this.#to = options.to;
    this.#reopen = options.reopen;
    this.#signal = AbortSignal.any([options.signal, this.#closed.signal]);
  }

  async pull(into: Uint8Array): Promise<number> {
    for (;;) {
      try {
        const count = await this.#source.pull(into);
        this.#at += count;
        this.#idleAttempts = 0;
        return count;
      } catch (error) {
        await this.#source.close();
        if (this.#at >= this.#to) return 0;
        await this.#resume(error);
      }
    }
  }

  async close(): Promise<void> {
    this.#closed.abort();
    await this.#source.close();
  }

  /** @throws {TruncatedError} where the rest cannot be had */
  async #resume(cause: unknown): Promise<void> {
    for (;;) {
      if (this.#signal.aborted || this.#idleAttempts++ >= MAX_IDLE_ATTEMPTS) throw truncated(cause);
      try {
        await sleep(jitter(Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#idleAttempts)), this.#signal);
        this.#source = await this.#reopen(this.#at);
        if (!this.#signal.aborted) return;
        await this.#source.close();
      } catch (error) {
        if (error instanceof TruncatedError) throw error;
      }
    }
  }
}

function truncated(cause: unknown): TruncatedError {
  return cause instanceof TruncatedError ? cause : new TruncatedError('the body broke off', { cause });
}
