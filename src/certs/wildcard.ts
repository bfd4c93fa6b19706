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

/** The domain that a wildcard would have to be of to cover this name (RFC 9525 §6.3: it stands for one label). */
export function wildcardDomain(name: string): string {
  return name.slice(name.indexOf('.') + 1);
}
