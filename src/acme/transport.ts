import { AsyncLocalStorage } from 'node:async_hooks';
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import acme from 'acme-client';
import { IssuerError } from '../certs/issuer.ts';
import { isUnknownIssuer } from '../kit/authorities.ts';
import { parseRetryAfter, readBounded, TooLargeError } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { NodeRequests } from '../upstream/net/node-requests.ts';

/** A directory, a problem document or a chain is a few KiB; a hostile or broken server must not fill memory. */
const ANSWER_MAX = 1024 * 1024;

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** ms; null where the CA did not say. */
  readonly retryAfter: number | null;
}

/** The limits of one conversation: how long an answer may take, and the signal that ends it. */
export interface Terms {
  readonly signal: AbortSignal;
  /** ms */
  readonly timeout: number;
}

interface Conversation {
  readonly transport: Transport;
  readonly terms: Terms;
  /** Of the last answer, ms; polling goes by it. */
  retryAfter: number | null;
}

const conversations = new AsyncLocalStorage<Conversation>();

/**
 * HTTP to one CA, with its own roots, time limits and errors. acme-client has one axios per process, which hides problem types, sleeps inside
 * calls and has no time limit. An axios adapter of ours takes its place: each conversation is sent by the transport of its own CA, and errors
 * keep type, status and Retry-After.
 */
export class Transport {
  readonly directory: string;
  /** PEM of the roots that count alone; null: those that Node and, where one is unknown to it, this machine trust. */
  readonly #roots: string | null;
  readonly #requests: NodeRequests;
  #skew: number | null = null;

  /** @param environment the usual proxy variables in it hold for CAs as they do for registries */
  constructor(directory: string, caFile: string | null, environment: NodeJS.ProcessEnv = process.env) {
    this.directory = directory;
    this.#roots = caFile === null ? null : readRoots(caFile);
    this.#requests = new NodeRequests(this.#roots, environment);
  }

  /** Runs acme-client's calls within `talk` over this transport. */
  run<T>(terms: Terms, talk: () => Promise<T>): Promise<T> {
    return conversations.run({ transport: this, terms, retryAfter: null }, talk);
  }

  /** One request; answers of 400 and above are thrown, but for `badNonce`, which acme-client mends itself. @throws {IssuerError} */
  async send(
    method: string,
    url: string,
    terms: Terms,
    options: { headers?: Record<string, string>; body?: string } = {},
  ): Promise<Answer> {
    const answer = await this.#exchange(method, url, terms, options);
    const date = Date.parse(answer.headers.date ?? '');
    if (!Number.isNaN(date)) this.#skew = Date.now() - date;
    if (answer.status >= 300) {
      const problem = this.#problem(answer, `${method} ${url}`);
      if (!problem.is('badNonce')) throw problem;
    }
    return answer;
  }

  /** What the last answer within the running conversation asked for, ms. */
  get retryAfter(): number | null {
    return conversations.getStore()?.retryAfter ?? null;
  }

  get clockSkew(): number | null {
    return this.#skew;
  }

  close(): void {
    this.#requests.close();
  }

  async #exchange(
    method: string,
    url: string,
    terms: Terms,
    { headers, body }: { headers?: Record<string, string>; body?: string },
  ): Promise<Answer> {
    const signal = AbortSignal.any([terms.signal, AbortSignal.timeout(terms.timeout)]);
    try {
      this.#requireSecure(url);
      const response = await this.#requests.send(url, { method, headers, body, signal });
      const content = await readBounded(response, ANSWER_MAX);
      return {
        status: response.statusCode ?? 0,
        headers: flatten(response.headers),
        body: content.toString(),
        retryAfter: parseRetryAfter(response.headers['retry-after']),
      };
    } catch (error) {
      terms.signal.throwIfAborted();
      throw this.#failure(error, url, signal.aborted, terms.timeout);
    }
  }

  /** Plain HTTP only where the operator's own directory is plain. */
  #requireSecure(url: string): void {
    const { protocol } = new URL(url);
    if (protocol === 'https:' || (protocol === 'http:' && this.directory.startsWith('http:'))) return;
    throw new IssuerError('badAnswer', `it refers to ${url}, which is not https`, { directory: this.directory });
  }

  #failure(error: unknown, url: string, timedOut: boolean, timeout: number): IssuerError {
    if (error instanceof IssuerError) return error;
    const { directory } = this;
    const host = new URL(url).host;
    if (timedOut) {
      return new IssuerError('timeout', `${host} gave no answer within ${timeout / 1000} s`, {
        directory,
        cause: error,
      });
    }
    if (error instanceof TooLargeError) {
      return new IssuerError('badAnswer', `${host} sent ${error.message}`, { directory, cause: error });
    }
    return new IssuerError('network', `${host} cannot be reached: ${reason(error)}${this.#trustAdvice(error)}`, {
      directory,
      cause: error,
    });
  }

  #trustAdvice(error: unknown): string {
    if (!isUnknownIssuer(error)) return '';
    const roots = 'acme.issuers[].caFile (GATEWAY_ACME_CA_FILE)';
    if (this.#roots !== null) return `; its certificate is signed by none of the authorities in ${roots}`;
    return `; its certificate is signed by an authority that this machine does not trust: name its root in ${roots}, or add it to this machine's store`;
  }

  #problem(answer: Answer, what: string): IssuerError {
    const document = parseProblem(answer.body);
    const options = { status: answer.status, retryAfter: answer.retryAfter, directory: this.directory };
    if (document === null) {
      return new IssuerError('badAnswer', `it answered ${what} with ${answer.status} and no problem document`, options);
    }
    return new IssuerError(document.type, document.detail, options);
  }
}

/** The shape that acme-client's axios wants of an adapter; everything it would do with sockets is ours. */
acme.axios.defaults.adapter = async (config) => {
  const conversation = conversations.getStore();
  if (conversation === undefined) throw new Error('an ACME request outside of any conversation');
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(config.headers.toJSON())) {
    if (value !== null && value !== undefined) headers[name] = String(value);
  }
  const answer = await conversation.transport.send(
    (config.method ?? 'get').toUpperCase(),
    config.url ?? '',
    conversation.terms,
    { headers, ...(config.data === undefined ? {} : { body: String(config.data) }) },
  );
  conversation.retryAfter = answer.retryAfter;
  return { status: answer.status, statusText: '', headers: answer.headers, data: answer.body, config, request: null };
};

/** A problem document (RFC 9457) in one type and one detail: subproblems (RFC 8555 §6.7.1) say it more exactly. */
export function describeProblem(problem: unknown): { type: string; detail: string } | null {
  if (typeof problem !== 'object' || problem === null) return null;
  const { type, detail, title, subproblems } = problem as Record<string, unknown>;
  if (typeof type !== 'string') return null;
  const parts = [typeof detail === 'string' ? detail : typeof title === 'string' ? title : 'no detail given'];
  if (Array.isArray(subproblems)) {
    for (const sub of subproblems) {
      const described = describeProblem(sub);
      if (described !== null) parts.push(`${described.type}: ${described.detail}`);
    }
  }
  return { type, detail: parts.join('; ') };
}

function parseProblem(body: string): { type: string; detail: string } | null {
  try {
    return describeProblem(JSON.parse(body));
  } catch {
    return null;
  }
}

function flatten(headers: IncomingMessage['headers']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : (value ?? '')]),
  );
}

function reason(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (typeof message === 'string' && message !== '') return message;
  return String(code ?? error);
}

function readRoots(caFile: string): string {
  try {
    return readFileSync(caFile, 'utf8');
  } catch (cause) {
    throw new OperatorError('ACME_CA_FILE', `the CA root file ${caFile} cannot be read`, {
      next: 'check acme.issuers[].caFile, or GATEWAY_ACME_CA_FILE',
      cause,
    });
  }
}
