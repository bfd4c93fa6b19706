import { createRequire } from 'node:module';

/** Loaded when it is first needed: the public suffix list takes 8 MiB, and most gateways never ask it. */
const suffixList = (): typeof import('tldts') => createRequire(import.meta.url)('tldts') as typeof import('tldts');

/** The domain below a public suffix that somebody registered, by the list with its private part (`a.github.io` is one); null where there is none. */
export function registeredDomain(host: string): string | null {
  return suffixList().getDomain(host, { allowPrivateDomains: true });
}
