import { Command, InvalidArgumentError } from 'commander';
import type { CacheStats, Progress, Pruned, Verified } from '../cache/admin.ts';
import { BadValue, parseDuration } from '../config/values.ts';
import { formatBytes } from '../kit/text.ts';
import { consent, type Exit, type Session } from './session.ts';

interface PruneOptions {
  readonly olderThan?: string;
  readonly registry?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export function cacheCommands(session: Session, exit: Exit): Command {
  const { output } = session;
  const group = new Command('cache').description('what the gateway keeps of what it has fetched');

  /** Steps of an operation as a bar. */
  const bar = (what: string) => (step: { readonly data?: unknown }) => {
    const { done, total } = step.data as Progress;
    output.progress(`${what} ${formatBytes(done)} of ${formatBytes(total)}`, done, total);
  };

  group
    .command('stats')
    .description('size, hit ratio and traffic')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const stats = (await session.act('cache.stats', {})) as CacheStats;
      if (options.json === true) return output.json(stats);
      output.facts([
        ['size', `${formatBytes(stats.bytes)} of ${formatBytes(stats.maxBytes)} in ${stats.blobs} blobs`],
        [
          'pinned',
          stats.pins === 0 ? 'nothing' : `${formatBytes(stats.pinnedBytes)} of ${stats.pins} images: gateway warm ls`,
        ],
        ['manifests', `${stats.manifests} (${formatBytes(stats.manifestBytes)})`],
        [
          'fills',
          `${stats.fills} running; ${stats.partials} unfinished, to go on with when they are asked for (${formatBytes(stats.partialBytes)})`,
        ],
        ['hits', `${stats.hits} of ${stats.hits + stats.misses}${ratio(stats.hitRatio)}`],
        ['served', formatBytes(stats.bytesServed)],
        ['fetched', formatBytes(stats.bytesFetched)],
        ['evictions', String(stats.evictions)],
      ]);
    });

  group
    .command('prune')
    .description('drop entries: all of them, or those that the options select')
    .option('--older-than <duration>', 'not used for so long (12h, 7d)', duration)
    .option('--registry <host>', "held for this registry's images alone")
    .option('--yes', 'do not ask')
    .option('--json', 'print JSON')
    .action(async ({ json, yes, ...what }: PruneOptions) => {
      await consent(session, pruneQuestion(what), yes === true);
      const pruned = (await session.act('cache.prune', what, bar('dropped'))) as Pruned;
      output.progressEnd();
      if (json === true) return output.json(pruned);
      const busy = pruned.inUse === 0 ? '' : `; ${pruned.inUse} are being read now and stay`;
      const pinned =
        pruned.pinned === 0
          ? ''
          : `; ${pruned.pinned} blobs and manifests stay, since an image is pinned that has them: gateway warm rm takes pins back`;
      output.line(
        `dropped ${pruned.blobs} blobs (${formatBytes(pruned.bytes)}) and ${pruned.manifests} manifests${busy}${pinned}`,
      );
    });

  group
    .command('verify')
    .description('hash everything anew and drop what is damaged')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const verified = (await session.act('cache.verify', {}, bar('verified'))) as Verified;
      output.progressEnd();
      // Damage was found, and may have been served: whoever runs this from a timer is to hear of it.
      if (verified.dropped.length > 0) exit.code = 1;
      if (options.json === true) return output.json(verified);
      for (const { digest, reason } of verified.dropped) output.line(`dropped ${digest}: ${reason}`);
      output.line(
        `verified ${verified.blobs} blobs (${formatBytes(verified.bytes)}) and ${verified.manifests} manifests: ` +
          `${verified.dropped.length} damaged and dropped, ${verified.adopted} unknown files taken up, ${verified.removed} removed`,
      );
    });

  return group;
}

/** Looked at before anything is asked about it; the gateway reads it again. */
function duration(written: string): string {
  try {
    parseDuration(written);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    throw new InvalidArgumentError(error.message);
  }
  return written;
}

function pruneQuestion({ olderThan, registry }: PruneOptions): string {
  const unused = olderThan === undefined ? '' : ` that was not used for ${olderThan}`;
  const of = registry === undefined ? '' : ` and is held for ${registry} alone`;
  if (unused + of === '') return 'Drop everything that is kept, to be fetched again when it is asked for?';
  return `Drop what is kept${unused}${unused === '' ? of.replace(' and', ' and that') : of}?`;
}

function ratio(hitRatio: number | null): string {
  return hitRatio === null ? '' : ` (${(hitRatio * 100).toFixed(1)} %)`;
}
