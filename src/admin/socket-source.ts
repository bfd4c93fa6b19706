import http from 'node:http';
import {
  GATEWAY_GONE,
  type ImageSource,
  type SourceBlob,
  SourceError,
  type SourceManifest,
} from '../images/image-source.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { readBounded } from '../kit/http.ts';
import { isObject, parseJsonObject } from '../kit/json.ts';
import { type BlobKey, type Digest, parseDigest, type Reference, type RepositoryKey } from '../oci/names.ts';
import type { TagsFailure } from './pulls.ts';
import { type GatewayIdentity, identityIn, unreached } from './socket.ts';
import { openSocketPath } from './socket-path.ts';

/** The largest manifest that the gateway gives, and more. */
const MAX_DOCUMENT = 16 * 1024 * 1024;

/** Images from the gateway whose admin socket is in a directory: see pulls.ts. */
export class SocketSource implements ImageSource {
  readonly #directory: string;
  readonly #agent = new http.Agent({ keepAlive: true });

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Whether a gateway runs there, and which one; null for one that is too old to say.
   * @throws {NotRunningError} where none does; {OperatorError} `ADMIN_DENIED`
   */
  async reach(signal: AbortSignal): Promise<GatewayIdentity | null> {
    try {
      const response = await this.#send('/v2/', signal);
      response.resume();
      return identityIn(response.headers);
    } catch (error) {
      signal.throwIfAborted();
      throw unreached(error, this.#directory, 'the command');
    }
  }

  async manifest(repository: RepositoryKey, reference: Reference, signal: AbortSignal): Promise<SourceManifest> {
    const text = reference.kind === 'tag' ? reference.tag : reference.digest;
    const response = await this.#get(repository, `manifests/${text}`, signal);
    const digest = parseDigest(String(response.headers['docker-content-digest']));
    if (digest === null) throw new TypeError('a manifest without its digest');
    const body = await readWhole(response, signal);
    const { 'content-type': mediaType = '', warning } = response.headers;
    return { digest, mediaType, body, warning: typeof warning === 'string' ? warning : null };
  }

  async blob({ digest, ...repository }: BlobKey, from: number, signal: AbortSignal): Promise<SourceBlob> {
    const range = from === 0 ? {} : { range: `bytes=${from}-` };
    const response = await this.#get(repository, `blobs/${digest}`, signal, range);
    const length = response.headers['content-length'];
    return {
      size: length === undefined ? undefined : from + Number(length),
      body: new ResponseSource(response, length === undefined ? undefined : Number(length), signal),
    };
  }

  async referrers(repository: RepositoryKey, digest: Digest, signal: AbortSignal): Promise<Uint8Array> {
    return await readWhole(await this.#get(repository, `referrers/${digest}`, signal), signal);
  }

  async *tags(repository: RepositoryKey, signal: AbortSignal): AsyncIterable<readonly string[]> {
    const response = await this.#get(repository, 'tags/list', signal);
    let rest = '';
    response.setEncoding('utf8');
    try {
      for await (const chunk of response) {
        const lines = (rest + String(chunk)).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const page = JSON.parse(line) as string[] | TagsFailure;
          if (!Array.isArray(page)) throw new SourceError(page.status, page.code, page.message, page.retryAfter);
          yield page;
        }
      }
    } catch (error) {
      if (error instanceof SourceError) throw error;
      throw brokenOff(error, signal);
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #get(
    { registry, repository }: RepositoryKey,
    what: string,
    signal: AbortSignal,
    headers: http.OutgoingHttpHeaders = {},
  ): Promise<http.IncomingMessage> {
    const path = `/v2/${encodeURIComponent(registry)}/${repository}/${what}`;
    const response = await this.#send(path, signal, headers).catch((error: unknown) => {
      throw brokenOff(error, signal);
    });
    const { statusCode = 500 } = response;
    if (statusCode === 200 || statusCode === 206) return response;
    throw refusal(statusCode, response.headers['retry-after'], await readWhole(response, signal));
  }

  async #send(
    path: string,
    signal: AbortSignal,
    headers: http.OutgoingHttpHeaders = {},
  ): Promise<http.IncomingMessage> {
    const socket = await openSocketPath(this.#directory);
    try {
      const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
      const to = { socketPath: socket.path, path, agent: this.#agent };
      const sent = http.get({ ...to, signal, headers: { host: 'admin', ...headers } });
      sent.once('response', resolve);
      // Later ones are told by the answer's body too, and are for nobody here.
      sent.on('error', reject);
      return await promise;
    } finally {
      await socket.close();
    }
  }
}

/** @throws {SourceError} where the gateway ends meanwhile */
async function readWhole(response: http.IncomingMessage, signal: AbortSignal): Promise<Buffer> {
  try {
    return await readBounded(response, MAX_DOCUMENT);
  } catch (error) {
    throw brokenOff(error, signal);
  }
}

/** The gateway is gone, for now: whoever asks for the same once more, when it is up again, is answered. */
function brokenOff(error: unknown, signal: AbortSignal): unknown {
  signal.throwIfAborted();
  if ((error as NodeJS.ErrnoException).code === undefined) return error;
  return new SourceError(503, GATEWAY_GONE, 'the gateway ended while images were read from it');
}

function refusal(status: number, retryAfter: string | undefined, body: Uint8Array): SourceError {
  const errors = parseJsonObject(body)?.errors;
  const first: unknown = Array.isArray(errors) ? errors[0] : null;
  const { code, message } = isObject(first) ? first : {};
  const said = typeof message === 'string' ? message : `the gateway answered ${status}`;
  const wait = retryAfter === undefined ? undefined : Number(retryAfter);
  return new SourceError(status, String(code ?? 'UNKNOWN'), said, wait);
}

/** The body of an answer; one that broke off is never taken for a whole one. */
class ResponseSource implements ByteSource {
  readonly length: number | undefined;
  readonly #response: http.IncomingMessage;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #signal: AbortSignal;
  #rest: Buffer = Buffer.alloc(0);

  constructor(response: http.IncomingMessage, length: number | undefined, signal: AbortSignal) {
    this.#response = response;
    this.length = length;
    this.#signal = signal;
    this.#chunks = response[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next().catch((cause: unknown) => {
        this.#signal.throwIfAborted();
        throw new TruncatedError('the gateway could not bring the rest', { cause });
      });
      if (next.done === true) return 0;
      this.#rest = next.value;
    }
    const count = Math.min(this.#rest.length, into.length);
    into.set(this.#rest.subarray(0, count));
    this.#rest = this.#rest.subarray(count);
    return count;
  }

  async close(): Promise<void> {
    this.#response.destroy();
  }
}
