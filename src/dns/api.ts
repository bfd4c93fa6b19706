import { IssuerError } from '../certs/issuer.ts';
import { readBounded, TooLargeError } from '../kit/http.ts';
import { printable } from '../kit/text.ts';
import { NodeRequests } from '../upstream/net/node-requests.ts';

/** A page of a hundred records is some tens of KiB. */
const ANSWER_MAX = 1024 * 1024;
/** For one call of an API, ms: those that are well answer in a second. */
const ANSWER_TIMEOUT = 20_000;
/** Of what it says of a failure, characters: it is kept, logged and shown. */
const QUOTED = 500;

export interface ApiCall {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface ApiAnswer {
  readonly status: number;
  /** The JSON object that was sent; anything else is refused. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** Calls of one provider's HTTP API. */
export class Api {
  readonly #name: string;
  readonly #requests = new NodeRequests(null);

  /** @param name the provider, for messages */
  constructor(name: string) {
    this.#name = name;
  }

  /** Resolves whatever the status is. @throws {IssuerError} where no JSON object comes back */
  async call({ method, url, headers, body }: ApiCall, stop: AbortSignal): Promise<ApiAnswer> {
    const signal = AbortSignal.any([stop, AbortSignal.timeout(ANSWER_TIMEOUT)]);
    const { host } = new URL(url);
    try {
      const response = await this.#requests.send(url, { method, headers, body, signal });
      const content = (await readBounded(response, ANSWER_MAX)).toString();
      const status = response.statusCode ?? 0;
      const parsed = parseObject(content);
      if (parsed === null) throw this.refused(`${host} answered ${status} without JSON`);
      return { status, body: parsed };
    } catch (error) {
      stop.throwIfAborted();
      if (error instanceof IssuerError) throw error;
      if (signal.aborted) throw this.refused(`${host} gave no answer within ${ANSWER_TIMEOUT / 1000} s`, error);
      const reason = error instanceof Error ? error.message : String(error);
      const what = error instanceof TooLargeError ? 'sent' : 'cannot be reached:';
      throw this.refused(`${host} ${what} ${reason}`, error);
    }
  }

  refused(detail: string, cause?: unknown): IssuerError {
    return new IssuerError('dnsProvider', `${this.#name}: ${printable(detail, QUOTED)}`, { cause });
  }
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    return object(JSON.parse(text));
  } catch {
    return null;
  }
}

/** A JSON object; null for anything else. */
export function object(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

/** The JSON objects of an array; none for anything else. */
export function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map(object).filter((one) => one !== null) : [];
}

/** The part of a name before its zone, as APIs want it; `@` for the zone itself. */
export function labelsIn(zone: string, name: string): string {
  return name === zone ? '@' : name.slice(0, -zone.length - 1);
}
