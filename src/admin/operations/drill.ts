import { setImmediate as turn } from 'node:timers/promises';
import { registryOf } from '../../aliases/lookup.ts';
import type { TagPlace } from '../../cache/index-port.ts';
import { type ImageName, parseImageName } from '../../images/image-name.ts';
import type { RepositoryKey } from '../../oci/names.ts';
import type { Unplugged } from '../../proxy/unplugged.ts';
import type { Operation } from '../contract.ts';
import { Drill, type DrillRow } from '../drill/drill.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';

/** Images looked at between two turns of the event loop: some ms, where nothing but the disk is asked. */
const AT_ONCE = 8;
/** Rows of tags read at once, and images that one core is asked for: what it has learnt is forgotten then. */
const PAGE = 500;

/** What a drill found, beside its rows. */
export interface DrillSummary {
  readonly images: number;
  /** Those of which something is missing. */
  readonly missing: number;
  /** Bytes that registries would have to give, each blob counted once, as far as they are known. */
  readonly missingBytes: number;
  /** Why the shared store could not be asked: what lies only there counts as missing. Null where it was, or there is none. */
  readonly storeFailed: string | null;
}

export function drillOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    /** A step `image` for each row; its `data` is the row. */
    drill: async (input, { step, drained, signal }): Promise<DrillSummary> => {
      const { images, platforms = [], referrers } = await parseInput('drill', input);
      const selection = { platforms: platforms.length === 0 ? null : platforms, referrers };
      const tally = new Tally();
      const tell = async (rows: readonly DrillRow[]) => {
        tally.add(rows);
        for (const row of rows) step('image', row.image, row);
        await drained?.();
      };
      let place: TagPlace | 'pins' | number | null = images === undefined ? 'pins' : 0;
      while (place !== null) {
        await using gateway = opened(await deps.unplugged(signal));
        const { core, kept, cooldown } = gateway;
        const table = () => deps.table.snapshot();
        const drill = new Drill({ core, kept, cooldown, table, config: deps.config.cache, signal });
        const page: Page = typeof place === 'number' ? givenImages(images ?? [], place) : keptImages(deps, kept, place);
        for (let at = 0; at < page.images.length; at += AT_ONCE) {
          signal.throwIfAborted();
          const batch = page.images.slice(at, at + AT_ONCE);
          for (const rows of await Promise.all(batch.map((image) => drill.image(image, selection)))) await tell(rows);
          await turn();
        }
        place = page.next;
        tally.storeFailed ??= kept.shared?.failed ?? null;
      }
      return tally.summary;
    },
  };
}

function opened(gateway: Unplugged): Unplugged & AsyncDisposable {
  return { ...gateway, [Symbol.asyncDispose]: () => gateway.close() };
}

/** Some of the images, and where the rest begins; null where that is nothing. */
interface Page<P = TagPlace | number | null> {
  readonly images: readonly ImageName[];
  readonly next: P;
}

function givenImages(images: readonly ImageName[], from: number): Page<number | null> {
  const next = from + PAGE;
  return { images: images.slice(from, next), next: next < images.length ? next : null };
}

/** The images of which a tag is kept behind a place, and before them those that are pinned: of registries in the table. */
function keptImages(
  { table }: OperationsDeps,
  kept: Unplugged['kept'],
  place: TagPlace | 'pins',
): Page<TagPlace | null> {
  const snapshot = table.snapshot();
  const isServed = ({ registry }: RepositoryKey) => registryOf(snapshot, registry) !== undefined;
  if (place === 'pins') {
    const pins = kept.pinned().filter(isServed);
    const named = pins.map((pin) => `${nameOf(pin)}${pin.tag === null ? `@${pin.root}` : `:${pin.tag}`}`);
    return { images: [...new Set(named)].map(parseImageName), next: BEFORE_ALL };
  }
  const rows = kept.tagsAfter(place, PAGE);
  const names = rows
    .filter((row) => isServed(row) && !kept.manifests.isPinned(row, row.tag))
    .map((row) => `${nameOf(row)}:${row.tag}`);
  // The rows of one tag follow each other, also from one page to the next.
  const before = `${nameOf(place)}:${place.tag}`;
  const images = [...new Set(names)].filter((name) => name !== before).map(parseImageName);
  return { images, next: rows.length < PAGE ? null : (rows.at(-1) ?? null) };
}

/** No registry has an empty name. */
const BEFORE_ALL: TagPlace = { registry: '', repository: '', tag: '', variant: '' };

function nameOf({ registry, repository }: RepositoryKey): string {
  return `${registry}/${repository}`;
}

class Tally {
  storeFailed: string | null = null;
  #images = 0;
  #missing = 0;
  #missingBytes = 0;
  readonly #counted = new Set<string>();

  /** The rows of one image. */
  add(rows: readonly DrillRow[]): void {
    this.#images++;
    if (rows.some(({ pullable }) => !pullable)) this.#missing++;
    for (const { digest, missingBytes } of rows.flatMap(({ missing }) => missing)) {
      if (digest === null || missingBytes === null || this.#counted.has(digest)) continue;
      this.#counted.add(digest);
      this.#missingBytes += missingBytes;
    }
  }

  get summary(): DrillSummary {
    const { storeFailed } = this;
    return { images: this.#images, missing: this.#missing, missingBytes: this.#missingBytes, storeFailed };
  }
}
