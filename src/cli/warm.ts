import { Command } from 'commander';
import type { WarmDone } from '../admin/contract.ts';
import type { UnreadImage } from '../admin/image-list.ts';
import { ownPlatform, platformText } from '../images/platform.ts';
import type { WarmRow } from '../images/warm-store.ts';
import { formatBytes } from '../kit/text.ts';
import type { WarmListed } from '../warm/service.ts';
import type { BlobProgress, WarmOutcome } from '../warm/warmer.ts';
import { imagesGiven, platformsGiven } from './images.ts';
import { type Cell, formatWhen } from './output.ts';
import { collect, type Exit, type Session } from './session.ts';

interface WarmOptions {
  readonly platform?: readonly string[];
  readonly file?: string[];
  readonly schedule?: string;
  readonly pin?: boolean;
  readonly referrers?: boolean;
  readonly json?: boolean;
}

export function warmCommand(session: Session, exit: Exit): Command {
  const { output } = session;
  const command = new Command('warm')
    .description('fetch images into the cache: now, on a schedule, or pinned, so that they stay')
    .argument('[image...]', 'images: alpine, quay.io/org/app:1.2, or as they are called through this gateway')
    .option(
      '--platform <list>',
      "of an index, the images for these: linux/amd64,linux/arm64, or all (default: the gateway's own)",
      collect,
    )
    .option(
      '--file <file>',
      'a list of images, Kubernetes YAML, compose, Helm values, Dockerfile; - for standard input; may be repeated',
      collect,
    )
    .option('--schedule <cron>', "fetch them again at these times, in UTC: '0 3 * * *' is each night at three")
    .option('--pin', 'keep them, whatever room is needed, until gateway warm rm')
    .option('--referrers', 'with signatures, attestations and whatever else refers to them')
    .option('--json', 'print JSON, a row an image')
    .addHelpText(
      'after',
      '\nOf a fleet, the gateway that is asked is warmed. What was interrupted is gone on with the next time. Exit 1 if an image could not be had; the others are fetched.',
    )
    .action((images: string[], options: WarmOptions) => warm(session, exit, images, options));

  // Commander takes them wherever they stand; behind `ls` and `rm` they would have no effect.
  command.hook('preSubcommand', (_, sub) => {
    for (const option of command.options) {
      const name = option.attributeName();
      if (name !== 'json' && command.getOptionValueSource(name) === 'cli')
        sub.error(`error: unknown option '${option.long}'`);
    }
  });
  const wantsJson = (own: { json?: boolean }) => own.json === true || command.opts<WarmOptions>().json === true;

  command
    .command('ls')
    .description('images on a schedule or pinned: next run, last run, what is held')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('warm.ls', {})) as WarmListed[];
      if (wantsJson(options)) return output.json(rows);
      if (rows.length === 0)
        return output.line('no image is on a schedule or pinned: gateway warm IMAGE --pin, or --schedule');
      output.table(['image', 'schedule', 'pinned', 'next run', 'last run', 'result'], rows.map(cellsOf));
      for (const { image, lastRun } of rows)
        if (lastRun !== null && lastRun.error !== null) output.note(`${image}: ${lastRun.error}`);
    });

  command
    .command('rm')
    .description('take schedule and pin back; what is kept stays until room is needed')
    .argument('<image...>', 'as gateway warm ls names them')
    .option('--json', 'print JSON')
    .action(async (names: string[], options: { json?: boolean }) => {
      const { images } = await imagesGiven(session, names);
      const removed = (await session.act('warm.rm', { images: images.map(({ text }) => text) })) as WarmRow[];
      if (wantsJson(options)) return output.json(removed);
      for (const { image, pin, schedule } of removed) {
        const what = [...(pin ? ['its pin'] : []), ...(schedule === null ? [] : [`its schedule ${schedule}`])];
        output.line(`${image}: ${what.join(' and ')} taken back`);
      }
    });
  return command;
}

async function warm(session: Session, exit: Exit, names: string[], options: WarmOptions): Promise<void> {
  const { output } = session;
  const { file = [], schedule = null, pin = false, referrers = false, json = false } = options;
  const platforms = platformsOf(options.platform);
  const list = await imagesGiven(session, names, file);
  if (list.unread.length > 0) exit.code = 1;
  const images = list.images.map(({ text }) => text);
  if (images.length === 0) {
    if (json) output.json(list.unread.map(unreadRow));
    return;
  }
  const bars = json ? null : await output.bars();
  const { images: done } = (await session
    .act('warm', { images, platforms, referrers, pin, schedule }, ({ step, message, data }) => {
      if (step !== 'layer') return output.step(step, message);
      const { image, digest, done: bytes, total, ended } = data as BlobProgress;
      const name = `${digest.slice(0, 19)} ${image}`;
      if (ended) bars?.done(name);
      else bars?.set(name, bytes, total ?? bytes);
    })
    .finally(() => bars?.end())) as WarmDone;
  const failed = done.filter(({ ok }) => !ok);
  if (failed.length > 0) exit.code = 1;
  if (json) return output.json([...done, ...list.unread.map(unreadRow)]);
  const fetched = done.reduce((sum, one) => sum + one.fetched, 0);
  const kept = pin || schedule !== null ? `; ${keptText(pin, schedule)}: gateway warm ls` : '';
  const all = done.length + list.unread.length;
  output.line(`${done.length - failed.length} of ${all} images are here, ${formatBytes(fetched)} were fetched${kept}`);
}

function keptText(pin: boolean, schedule: string | null): string {
  return [...(pin ? ['pinned'] : []), ...(schedule === null ? [] : [`fetched again at ${schedule} UTC`])].join(' and ');
}

/** Null for all. @throws {OperatorError} usage */
function platformsOf(lists: readonly string[] | undefined): string[] | null {
  if (lists?.some((list) => list.trim().toLowerCase() === 'all')) return null;
  return (platformsGiven(lists) ?? [ownPlatform()]).map(platformText);
}

/** Something in a file that could not be known is an image that is not here. */
function unreadRow({ reference, why }: UnreadImage): WarmOutcome {
  const nothing = { digest: null, platforms: [], bytes: 0, fetched: 0, retryAfter: null, stale: null, waits: null };
  return { image: reference, ok: false, error: why, ...nothing };
}

function cellsOf({ image, schedule, pin, held, nextRun, lastRun }: WarmListed): Cell[] {
  const lacks = held === null || held.missing > 0;
  const pinned: Cell = !pin
    ? '-'
    : lacks
      ? { text: held === null ? 'not here yet' : `${formatBytes(held.missing)} missing`, tone: 'warn' }
      : { text: formatBytes(held.bytes), tone: 'good' };
  const result: Cell =
    lastRun === null
      ? '-'
      : lastRun.error === null
        ? { text: `${formatBytes(lastRun.bytes)}, ${formatBytes(lastRun.fetched)} fetched`, tone: 'good' }
        : { text: 'failed', tone: 'bad' };
  return [image, schedule ?? '-', pinned, formatWhen(nextRun), formatWhen(lastRun?.endedAt ?? null), result];
}
