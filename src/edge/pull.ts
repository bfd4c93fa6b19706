import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Grant } from '../access/access.ts';
import { andThen } from '../kit/async.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { RegistryError } from '../oci/errors.ts';
import type { ProxyCore, Pull, Reply } from '../proxy/reply.ts';
import type { Logger } from '../telemetry/log.ts';
import { errorAnswer, sendAnswer } from './answers.ts';
import { guardStall, isGone, sendBody } from './body.ts';
import type { Reads } from './reads.ts';
import type { AccessPort, RequestContext } from './request-context.ts';
import type { PullRoute } from './target.ts';

export interface PullDeps {
  readonly proxy: ProxyCore;
  readonly access: AccessPort;
  readonly reads: Reads;
  readonly stallMs: number;
  readonly log: Logger;
}

/** Answers up to this size fit into the kernel's send buffer, so a client that stops reading holds no memory of ours. */
const UNGUARDED_BYTES = 16 * 1024;

/** The question to the proxy core. */
class ClientPull implements Pull {
  readonly target: Pull['target'];
  readonly method: Pull['method'];
  readonly accept: string | undefined;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly authenticated: boolean;
  readonly base: string;
  readonly ns: string | undefined;
  readonly #context: RequestContext;

  constructor(context: RequestContext, route: PullRoute, headers: IncomingHttpHeaders, authenticated: boolean) {
    this.target = route.target;
    this.method = context.method === 'HEAD' ? 'HEAD' : 'GET';
    this.accept = headers.accept;
    this.range = headers.range;
    this.ifRange = headers['if-range'] as string | undefined;
    this.ifNoneMatch = headers['if-none-match'];
    this.authenticated = authenticated;
    this.base = route.base;
    this.ns = route.ns;
    this.#context = context;
  }

  get signal(): AbortSignal {
    return this.#context.signal;
  }
}

/**
 * Serves one pull on Node's response, from the check of the client to the last byte. Never throws. An answer that is ready in memory is
 * written before this returns; every other follows later.
 */
export function servePull(
  deps: PullDeps,
  context: RequestContext,
  route: PullRoute,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  context.kind = route.target.what.kind;
  context.target = route.target;
  const { headers } = request;
  const asker = { address: context.clientAddress, authorization: headers.authorization, host: context.host };
  const serve = (grant: Grant) => {
    context.user = grant.user;
    const reply = deps.proxy.serve(new ClientPull(context, route, headers, grant.authenticated));
    return andThen(reply, (ready) => andThen(sendReply(deps, context, route, ready, response), () => count(grant)));
  };
  const count = (grant: Grant): void => {
    if (context.bytes > 0) deps.access.countBytes(asker, grant, context.bytes);
  };
  const fail = (error: unknown): void => {
    if (!context.left) sendAnswer(response, context, errorAnswer(error, context, deps.log));
  };
  try {
    const served = andThen(deps.access.check(asker), serve);
    if (served instanceof Promise) served.catch(fail);
  } catch (error) {
    fail(error);
  }
}

function sendReply(
  deps: PullDeps,
  context: RequestContext,
  route: PullRoute,
  reply: Reply,
  response: ServerResponse,
): Promise<void> | void {
  const { body } = reply;
  const headers: Record<string, string> = {
    'docker-distribution-api-version': 'proxy/2.0',
    ...reply.headers,
    'x-request-id': context.id,
  };
  if (route.ns !== undefined) headers['oci-namespace'] = route.target.registry;
  if (body !== null && body.length !== undefined) headers['content-length'] ??= String(body.length);
  context.status = reply.status;
  context.from = reply.from;

  if (body === null || body instanceof Uint8Array) {
    if (isGone(response)) return;
    response.writeHead(reply.status, headers);
    if (body === null) {
      response.end();
    } else {
      context.bytes = body.length;
      if (body.length > UNGUARDED_BYTES) guardStall(response, deps.stallMs);
      if (reply.text === undefined) response.end(body);
      else response.end(reply.text, 'latin1');
    }
    return;
  }
  return sendStream(deps, context, { ...reply, headers, body }, response);
}

async function sendStream(
  deps: PullDeps,
  context: RequestContext,
  reply: Reply & { readonly body: ByteSource },
  response: ServerResponse,
): Promise<void> {
  const { headers, body } = reply;
  if (isGone(response)) {
    context.cut = 'client left';
    await body.close();
    return;
  }
  const begin = () => void response.writeHead(reply.status, headers);
  // Clients give up when no header comes, so it must not wait for bytes that are not here yet.
  if (reply.from !== 'cache') {
    begin();
    response.flushHeaders();
  }
  const length = headers['content-length'];
  const { end, error } = await sendBody(body, response, {
    length: length === undefined ? undefined : Number(length),
    reads: deps.reads,
    stallMs: deps.stallMs,
    begin,
    onBytes: (count) => {
      context.bytes += count;
    },
  });
  if (end === 'unsent') throw reasonIn(error);
  if (end !== 'whole') context.cut = end;
  if (end === 'truncated')
    deps.log.warn({ requestId: context.id, err: error }, 'a body broke off: the client got a short one');
}

/** Why a source gave no byte, for the client: the upstream's own refusal where there is one. */
function reasonIn(error: unknown): unknown {
  const cause = error instanceof TruncatedError ? error.cause : undefined;
  return cause instanceof RegistryError ? cause : error;
}
