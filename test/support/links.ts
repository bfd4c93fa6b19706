import { nextTarget } from '../../src/oci/link.ts';

/** The query of the link to the next page; null on the last. */
export function nextQuery(header: string | undefined): URLSearchParams | null {
  const target = nextTarget(header);
  return target === null ? null : new URL(target, 'https://gateway.test').searchParams;
}
