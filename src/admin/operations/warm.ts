import { platformText } from '../../images/platform.ts';
import { formatBytes } from '../../kit/text.ts';
import { throttled } from '../../kit/time.ts';
import { Schedule } from '../../warm/schedule.ts';
import type { WarmListed, WarmNeed } from '../../warm/service.ts';
import type { BlobProgress, WarmOutcome, WarmRequest } from '../../warm/warmer.ts';
import type { Operation, OperationContext, WarmDone } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';

/** Pictures of one blob's bar, ms apart. */
const PROGRESS_EVERY = 200;

export function warmOperations({ warm, config }: OperationsDeps): Record<string, Operation> {
  return {
    warm: async (input, context): Promise<WarmDone> => {
      const { images, platforms, referrers, pin, schedule } = await parseInput('warm', input);
      if (schedule !== null) new Schedule(schedule);
      const requests: WarmRequest[] = images.map((image) => ({
        image,
        selection: { platforms, referrers },
        pin,
      }));
      const report = {
        need: (need: WarmNeed) => context.step('need', needText(need), need),
        progress: progressOf(context),
        ended: (outcome: WarmOutcome) => context.step('image', outcomeText(outcome), outcome),
      };
      const kept = platforms?.map(platformText) ?? null;
      return { images: await warm().warm(requests, schedule, kept, report, context.signal), dataDir: config.dataDir };
    },

    'warm.ls': async (): Promise<readonly WarmListed[]> => await warm().list(),

    'warm.rm': async (input) => {
      const { images } = await parseInput('warm.rm', input);
      const removed = [];
      for (const image of images) removed.push(await warm().remove(image.text));
      return removed;
    },
  };
}

function needText({ images, missing, cache }: WarmNeed): string {
  const bytes = images.reduce((sum, one) => sum + one.bytes, 0);
  const pinned = cache.pinned === 0 ? '' : `, ${formatBytes(cache.pinned)} pinned`;
  const much =
    missing > cache.maxBytes - cache.pinned ? '; that is more than the cache can keep: not all of it will stay' : '';
  return `${images.length} ${images.length === 1 ? 'image' : 'images'} of ${formatBytes(bytes)}: ${formatBytes(missing)} to fetch; the cache takes ${formatBytes(cache.used)} of ${formatBytes(cache.maxBytes)}${pinned}${much}`;
}

function outcomeText({ image, ok, error, bytes, fetched, digest, stale, waits }: WarmOutcome): string {
  if (!ok) return `${image}: ${error}`;
  const what =
    fetched === 0
      ? `${formatBytes(bytes)}, all of it was here`
      : `${formatBytes(bytes)}, ${formatBytes(fetched)} fetched`;
  const old = stale === null ? '' : `; its registry could not be asked: ${stale}`;
  return `${image} is here (${what}; ${digest?.slice(0, 19)})${waits === null ? old : `; as it was before: ${waits}`}`;
}

function progressOf(context: OperationContext): (progress: BlobProgress) => void {
  const blobs = new Map<string, (progress: BlobProgress, isLast: boolean) => void>();
  return (progress) => {
    const key = `${progress.image} ${progress.digest}`;
    const tell = blobs.get(key) ?? throttled(PROGRESS_EVERY, (one) => context.step('layer', '', one));
    if (progress.ended) blobs.delete(key);
    else blobs.set(key, tell);
    tell(progress, progress.ended);
  };
}
