import type { Reach } from './addresses.ts';

/** A redirect that is not followed; the message says why, without the signature that its URL may carry. */
export class RedirectError extends Error {
  override readonly name = 'RedirectError';
}

/** Registries redirect once, to a CDN; registry.k8s.io and cr.l5d.io twice. */
export const MAX_REDIRECTS = 5;

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export function isRedirect(status: number): boolean {
  return REDIRECTS.has(status);
}

/**
 * Where a `Location` leads (RFC 9110 §10.2.2: absolute or relative). What an upstream points to is hostile until checked: plain http only where
 * the operator's endpoint is plain http, and no user info.
 * @throws {RedirectError}
 */
export function follow(location: string | undefined, from: URL, endpoint: URL): URL {
  if (location === undefined || !URL.canParse(location, from.href)) throw new RedirectError('a redirect without a URL');
  const url = new URL(location, from);
  checkPointed(url, endpoint, 'a redirect');
  url.hash = '';
  return url;
}

/** @throws {RedirectError} for a URL that an upstream named and that must not be asked. */
export function checkPointed(url: URL, endpoint: URL, what: string): void {
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && endpoint.protocol === 'http:')) {
    throw new RedirectError(`${what} to ${url.protocol}//${url.host}, which is not https`);
  }
  if (url.username !== '' || url.password !== '')
    throw new RedirectError(`${what} to ${url.host} with a password in its URL`);
}

/** How far a request to `url` may reach, that is made on behalf of an endpoint which the operator named. */
export function reachOf(url: URL, endpoint: URL, connections: { isInside(url: URL): boolean }): Reach {
  if (url.origin === endpoint.origin) return 'operator';
  return connections.isInside(endpoint) ? 'inside' : 'public';
}
