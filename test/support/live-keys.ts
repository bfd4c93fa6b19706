import { RELOADING } from '../../src/config/reload.ts';

type Table = { readonly [name: string]: string | Table };

/** The dotted names of the keys that a running gateway takes, as `src/config/reload.ts` has them. */
export function liveKeys(table: Table = RELOADING as unknown as Table, path = ''): string[] {
  return Object.entries(table).flatMap(([name, entry]) => {
    const key = `${path}${name}`;
    if (typeof entry !== 'string') return liveKeys(entry, `${key}.`);
    return entry === 'live' ? [key] : [];
  });
}
