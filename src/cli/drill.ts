import { Command } from 'commander';
import type { DrillMissing, DrillRow } from '../admin/drill/drill.ts';
import type { DrillSummary } from '../admin/operations/drill.ts';
import { platformText } from '../images/platform.ts';
import { formatBytes } from '../kit/text.ts';
import { imagesGiven, platformsGiven } from './images.ts';
import { type Cell, formatWhen } from './output.ts';
import { collect, type Exit, type Session } from './session.ts';

interface DrillOptions {
  readonly file?: string[];
  readonly platform?: string[];
  readonly referrers?: boolean;
  readonly json?: boolean;
}

export function drillCommand(session: Session, exit: Exit): Command {
  const { output } = session;
  return new Command('drill')
    .description('which images could be pulled now if every registry were gone, and what is missing for the rest')
    .argument('[image...]', 'images; without any, all of which the gateway keeps a tag')
    .option(
      '--file <file>',
      'images in a file: a list, Kubernetes or Compose YAML, a Dockerfile (again for more; -: standard input)',
      collect,
    )
    .option(
      '--platform <list>',
      'of images for several: linux/amd64,linux/arm64 (default: those that were pulled)',
      collect,
    )
    .option('--referrers', 'with signatures and all else that refers to them, which Docker asks for from version 29 on')
    .option('--json', 'print JSON')
    .action(async (names: string[], { file = [], platform, referrers = false, json }: DrillOptions) => {
      const platforms = platformsGiven(platform);
      const given = names.length + file.length === 0 ? null : await imagesGiven(session, names, file);
      const rows: DrillRow[] = [];
      const input = {
        ...(given === null ? {} : { images: given.images.map(({ text }) => text) }),
        ...(platforms === null ? {} : { platforms: platforms.map(platformText) }),
        referrers,
      };
      const summary = (await session.act('drill', input, ({ data }) => {
        rows.push(data as DrillRow);
        output.progress(`${rows.length} looked at`, rows.length, 0);
      })) as DrillSummary;
      output.progressEnd();
      // What could not be read was meant to be pulled, too.
      if (summary.missing > 0 || (given?.unread.length ?? 0) > 0) exit.code = 1;
      if (summary.storeFailed !== null)
        output.note(
          `the shared store could not be asked (${summary.storeFailed}): what lies only there counts as missing`,
        );
      if (json === true) return output.json(rows);
      if (rows.length > 0) output.table(['image', 'platform', 'pull', 'until'], rows.map(cells));
      for (const row of rows) for (const line of remarks(row)) output.line(line);
      output.line(total(summary, given?.unread.length ?? 0));
    });
}

function cells({ image, platform, pullable, until, needsLogin }: DrillRow): Cell[] {
  const pull: Cell = pullable
    ? { text: needsLogin ? 'ok, logged in' : 'ok', tone: 'good' }
    : { text: 'missing', tone: 'bad' };
  return [
    image,
    platform ?? '-',
    pull,
    until === null ? '-' : `${until.slice(0, 16).replace('T', ' ')} (${formatWhen(until)})`,
  ];
}

function remarks({ image, platform, missing, notes }: DrillRow): string[] {
  if (missing.length + notes.length === 0) return [];
  const of = platform === null ? '' : ` for ${platform}`;
  return ['', `${image}${of}:`, ...missing.map(sentence), ...notes.map((note) => `  ${note}`)];
}

function sentence({ what, digest, size, missingBytes, reason }: DrillMissing): string {
  const name = digest === null ? what : `${what} ${digest}`;
  const bytes =
    missingBytes === null || size === null
      ? ''
      : missingBytes === size
        ? ` (${formatBytes(size)})`
        : ` (${formatBytes(missingBytes)} of ${formatBytes(size)})`;
  return `  missing: ${name}${bytes}: ${reason}`;
}

function total({ images, missing, missingBytes }: DrillSummary, unread: number): string {
  if (images + unread === 0) return 'no image is kept';
  const bytes = missingBytes === 0 ? '' : `; ${formatBytes(missingBytes)} are missing that are known of`;
  return `${images - missing} of ${images + unread} images could be pulled with every registry gone${bytes}`;
}
