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

/** Of certificates that have not run out, the one that lasts longest under each domain that a wildcard among their names is of. */
export function widest<C extends { readonly names: readonly string[]; readonly notAfter: number }>(
  certificates: Iterable<C>,
  now: number,
): ReadonlyMap<string, C> {
  const found = new Map<string, C>();
  for (const certificate of certificates) {
    for (const name of certificate.names) {
      if (!isWildcard(name) || certificate.notAfter <= now) continue;
      const domain = wildcardDomain(name);
      const known = found.get(domain);
      if (known === undefined || known.notAfter < certificate.notAfter) found.set(domain, certificate);
    }
  }
  return found;
}
