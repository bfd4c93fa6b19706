import { isUnlisted } from '../aliases/discretion.ts';
import type { TableSnapshot } from '../aliases/table.ts';
import type { Upstream, Wellbeing } from '../upstream/upstream.ts';

/** What people who pull may know of a registry: nothing of its endpoints, its errors or its credentials. */
export interface RegistryOutline {
  /** As in image names, or a pattern. */
  readonly host: string;
  readonly wellbeing: Wellbeing;
  /** Not to be told to strangers: see `isUnlisted`. */
  readonly unlisted: boolean;
}

/** For how long an outline is given again, ms: however often a page is asked for, it costs little, and is as good as now. */
const FRESH_MS = 2_000;

/** The registries of the table as people may know them; made anew at a change of the table, and every two seconds where somebody asks. */
export function registryOutlines(
  table: () => TableSnapshot,
  upstream: Pick<Upstream, 'wellbeing'>,
): () => readonly RegistryOutline[] {
  let made: { readonly of: TableSnapshot; readonly at: number; readonly outlines: RegistryOutline[] } | null = null;
  return () => {
    const snapshot = table();
    if (made === null || made.of !== snapshot || performance.now() - made.at > FRESH_MS) {
      const outlines = [...snapshot.registries.values()].map((entry) => ({
        host: entry.host,
        wellbeing: upstream.wellbeing(entry.host),
        unlisted: isUnlisted(entry),
      }));
      made = { of: snapshot, at: performance.now(), outlines };
    }
    return made.outlines;
  };
}
