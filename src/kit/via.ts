import { AsyncLocalStorage } from 'node:async_hooks';

// RFC 9110 §7.6.3: every gateway that a request passes adds its name to `Via`, and so finds out that one has come back to it.

/** A gateway of this kind by its pseudonym, which says nothing of its host. */
const PSEUDONYM = /^registry-gateway-[0-9a-f]{16}$/;
/** More gateways one behind the other than anybody means to have. */
export const MAX_GATEWAYS = 8;

/** @param identity 16 hex digits, random: see src/sqlite/migrations/008-identity.ts */
export function pseudonymOf(identity: string): string {
  return `registry-gateway-${identity}`;
}

/**
 * The gateways of this kind that a `Via` names, the first one first. What else passed the request on is no concern of a registry: names of
 * proxies between the client and here stay here.
 */
export function gatewaysIn(via: string): string[] {
  return via
    .split(',')
    .map((entry) => entry.trim().split(/\s+/)[1] ?? '')
    .filter((name) => PSEUDONYM.test(name));
}

export function renderVia(gateways: readonly string[]): string {
  return gateways.map((name) => `1.1 ${name}`).join(', ');
}

/** Gateways that the request passed on whose behalf something is done. Most passed none, and then there is no store. */
const passed = new AsyncLocalStorage<readonly string[]>();

/** Does what a request asks for that came through other gateways: what is sent upstream for it names them, too. */
export function passedThrough<T>(gateways: readonly string[], run: () => T): T {
  return passed.run(gateways, run);
}

export function gatewaysPassed(): readonly string[] {
  return passed.getStore() ?? [];
}
