/**
 * Wildcards, written as in certificates (RFC 6125 §6.4.3): `*.cr.example` stands for every name of one label more than `cr.example`. An order
 * for it is one for the domain itself, too.
 */

export function isWildcard(name: string): boolean {
  return name.startsWith('*.');
}

/** The names that a certificate has which is ordered under this one. */
export function namesOf(order: string): string[] {
  return isWildcard(order) ? [order.slice(2), order] : [order];
}

/** The one wildcard that a host may be covered by; null for a name of one label. */
export function wildcardOver(host: string): string | null {
  const dot = host.indexOf('.');
  return dot > 0 ? `*${host.slice(dot)}` : null;
}
