import type { ServerResponse } from 'node:http';
import { RegistryError, renderError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { isGone } from './body.ts';
import type { Exchange } from './exchange.ts';

/** An answer that is held whole. */
export interface SmallAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** What every failure becomes, here and nowhere else; what is no RegistryError is logged and told as `internal`. */
export function errorAnswer(error: unknown, exchange: Exchange, log: Logger): SmallAnswer {
  if (error instanceof RegistryError) return renderError(error);
  log.error({ requestId: exchange.id, err: error }, 'a request failed inside the gateway');
  return renderError(new RegistryError('internal', { facts: { requestId: exchange.id } }));
}

/** Writes it in one go; where headers went out before, there is nothing left to say. */
export function sendSmall(response: ServerResponse, exchange: Exchange, answer: SmallAnswer): void {
  exchange.status = answer.status;
  if (response.headersSent || isGone(response)) return;
  const length = typeof answer.body === 'string' ? Buffer.byteLength(answer.body) : answer.body.length;
  response.writeHead(answer.status, {
    ...answer.headers,
    'content-length': String(length),
    'x-request-id': exchange.id,
  });
  if (exchange.method === 'HEAD' || length === 0) {
    response.end();
    return;
  }
  exchange.bytes = length;
  response.end(answer.body);
}
