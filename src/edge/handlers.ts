import type { Context, Hono, Next } from 'hono';
import type { Grant } from '../access/access.ts';
import type { TableSnapshot } from '../aliases/table.ts';
import type { Service } from './connections.ts';
import { type HostRole, hostUnknown, roleOf } from './registry-name.ts';
import type { AccessPort, RequestContext, RequestKind } from './request-context.ts';
import type { SmallAnswer } from './response-writer.ts';

// What the handlers of everything small have in common.

/** What Hono's handlers get beside the request. */
interface EdgeBindings {
  Bindings: { readonly context: RequestContext };
}
export type EdgeApp = Hono<EdgeBindings>;
export type EdgeContext = Context<EdgeBindings>;
type Handler = (c: EdgeContext) => Response | Promise<Response>;

/** A handler for the listeners that offer `service`; others go on to the next route. */
export function on(service: Service, handler: Handler) {
  return (c: EdgeContext, next: Next) => (c.env.context.service === service ? handler(c) : next());
}

/** The answer as Hono wants it, and what the access log says of it. */
export function respond(c: EdgeContext, kind: RequestKind, { status, headers, body }: SmallAnswer): Response {
  const { context } = c.env;
  const bytes = Buffer.byteLength(body);
  context.kind = kind;
  context.status = status;
  context.bytes = context.method === 'HEAD' ? 0 : bytes;
  // RFC 9110 §15.4.5: no content at all, not an empty one.
  if (status === 304) return new Response(null, { status, headers });
  return new Response(typeof body === 'string' ? body : Buffer.from(body), {
    status,
    headers: { ...headers, 'content-length': String(bytes) },
  });
}

/** @throws {RegistryError} hostUnknown */
export function requireRole(c: EdgeContext, table: TableSnapshot): HostRole {
  const { host } = c.env.context;
  const role = roleOf(host, table);
  if (role.kind === 'unknown') throw hostUnknown(host);
  return role;
}

/** @throws {RegistryError} unauthorized, clientDenied, tooManyRequests */
export async function checkAccess(c: EdgeContext, access: AccessPort): Promise<Grant> {
  const { context } = c.env;
  const grant = await access.check({
    address: context.clientAddress,
    authorization: c.req.header('authorization'),
    host: context.authority,
  });
  context.user = grant.user;
  context.client = grant.client;
  return grant;
}
