import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { Command, Option } from 'commander';
import type { ImageName } from '../images/image-name.ts';
import type { ImageSource } from '../images/image-source.ts';
import type { ArchivePlan } from '../images/save/archive-plan.ts';
import type { ArchivePoint, ArchiveProgress, ArchiveTarget } from '../images/save/archive-writer.ts';
import type { ArchiveLayout } from '../images/save/members.ts';
import type { ArchiveFormat, SaveRequest } from '../images/save/selected-image.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { formatBytes } from '../kit/text.ts';
import type { Bars } from './bars.ts';
import { imagesGiven, platformsGiven } from './images.ts';
import { collect, type Exit, type Session } from './session.ts';

interface Options {
  readonly output: string;
  readonly file?: readonly string[];
  readonly format: ArchiveFormat;
  readonly platform?: readonly string[];
  readonly referrers?: boolean;
  readonly force?: boolean;
  readonly json?: boolean;
}

const STDOUT = '-';

export function saveCommand(session: Session, exit: Exit): Command {
  return new Command('save')
    .description(
      'write images into one file, from the cache or through it, for docker load, podman load, ctr and skopeo',
    )
    .argument('[image...]', 'their names, as docker pull takes them')
    .requiredOption(
      '-o, --output <file>',
      'the file; - for standard output. One that is not whole goes on where it stopped',
    )
    .addOption(
      new Option(
        '--format <format>',
        'docker-archive: what docker load takes, each name for one platform; oci: an image layout, indexes whole',
      )
        .choices(['docker-archive', 'oci'])
        .default('docker-archive'),
    )
    .option(
      '--platform <list>',
      'for these only: linux/amd64,linux/arm64 (else that of this machine for docker-archive, all for oci)',
      collect,
    )
    .option(
      '--file <file>',
      'images that a file names: a list, a Dockerfile, a compose file, manifests; - for standard input',
      collect,
    )
    .option('--referrers', 'with signatures and whatever else refers to the images (oci)')
    .option('--force', 'replace a file that is there')
    .option('--json', 'print JSON')
    .action((images: string[], options: Options) => save(session, exit, images, options));
}

async function save(session: Session, exit: Exit, names: readonly string[], options: Options): Promise<void> {
  const { output } = session;
  const wanted = readOptions(options);
  if (options.output === STDOUT) checkPipe(session, options);
  const file = options.output === STDOUT ? null : resolve(options.output);
  const { checkFree } = await import('../images/save/archive-file.ts');
  if (file !== null) await checkFree(file, { replace: options.force === true });
  const request = { ...wanted, images: await imagesOf(session, names, options) };
  try {
    const saved = await session.images('save', (source) => write({ session, source, request, file, options }));
    output.progressEnd();
    const { images, length } = saved;
    if (options.json === true)
      return output.json({ file: options.output, format: options.format, bytes: length, images });
    const rows = new Set(images.map(({ image }) => image)).size;
    const line = `${rows} ${rows === 1 ? 'image' : 'images'}, ${formatBytes(length)}, ${options.format}`;
    if (file === null) output.note(`wrote ${line}`);
    else output.line(`${options.output}: ${line}`);
  } catch (error) {
    // Whoever read has enough, or has said already what was wrong.
    if (file !== null || (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    exit.code = 1;
  }
}

/** @throws {OperatorError} usage */
function readOptions(options: Options): Omit<SaveRequest, 'images'> {
  const { format, referrers = false } = options;
  const platforms = platformsGiven(options.platform);
  if (format === 'docker-archive' && platforms !== null && platforms.length > 1)
    throw new OperatorError('INPUT_INVALID', 'a docker-archive has one platform under each name', {
      next: 'name one platform, or keep several with --format oci',
    });
  if (format === 'docker-archive' && referrers)
    throw new OperatorError('INPUT_INVALID', 'a docker-archive has no place for what refers to an image', {
      next: 'add --format oci, or leave --referrers out',
    });
  return { format, platforms, referrers };
}

/** @throws {OperatorError} usage, also where a file has names that cannot be known: an archive without them would be missed too late */
async function imagesOf(session: Session, names: readonly string[], { file }: Options): Promise<readonly ImageName[]> {
  const { images, unread } = await imagesGiven(session, names, file);
  if (unread.length === 0) return images;
  throw new OperatorError('IMAGE_INVALID', `${unread.length} of the images cannot be known; nothing was saved`, {
    next: 'give their names, or take them out of the file',
  });
}

/** @throws {OperatorError} usage */
function checkPipe({ output }: Session, { json }: Options): void {
  if (json === true)
    throw new OperatorError('INPUT_INVALID', 'standard output has the archive, and no room for JSON', {
      next: 'give a file, or leave --json out',
    });
  if (output.isTerminal)
    throw new OperatorError('INPUT_INVALID', 'standard output is a terminal, and an archive is no text', {
      next: 'give a file, or lead it on: gateway save alpine -o - | docker load',
    });
}

interface Writing {
  readonly session: Session;
  readonly source: ImageSource;
  readonly request: SaveRequest;
  /** Null for standard output. */
  readonly file: string | null;
  readonly options: Options;
}

async function write(writing: Writing): Promise<ArchivePlan & { readonly length: number }> {
  const { session, source, request, file, options } = writing;
  const { output, signal } = session;
  const { planArchive } = await import('../images/save/archive-plan.ts');
  const { layOut } = await import('../images/save/members.ts');
  const { BEGINNING, writeArchive } = await import('../images/save/archive-writer.ts');
  const plan = await planArchive(source, request, signal);
  for (const note of plan.notes) output.note(note);
  const layout = await layOut(plan.members);
  const to = async (target: ArchiveTarget, from: ArchivePoint) => {
    const bars = await output.bars();
    const onProgress = teller(writing, plan, layout, bars);
    await writeArchive({ layout, source, target, from, signal, onProgress }).finally(() => bars?.end());
  };
  if (file === null) {
    await to({ rewinds: false, write: (bytes) => output.bytes(bytes) }, BEGINNING);
    return { ...plan, length: layout.length };
  }
  const { ArchiveFile } = await import('../images/save/archive-file.ts');
  const archive = await ArchiveFile.open(file, layout, signal);
  try {
    tellStart(writing, archive.leftover, archive.from.at, layout.length);
    await tellRoom(output, file, layout.length - archive.from.at);
    await to(archive, archive.from);
    await archive.keep({ replace: options.force === true });
    return { ...plan, length: layout.length };
  } finally {
    await archive.leave();
  }
}

function tellStart({ session: { output }, file }: Writing, leftover: string, at: number, length: number): void {
  if (leftover === 'same')
    output.note(`${formatBytes(at)} of ${formatBytes(length)} are there from an earlier run, and are right`);
  if (leftover === 'other')
    output.note(
      `${file}.partial was the beginning of something else (a tag has moved, or other options were given): begun anew`,
    );
}

/** File systems know better than their figures (compression, quotas): a person is warned, and nothing is refused. */
async function tellRoom(output: Session['output'], file: string, wanted: number): Promise<void> {
  const found = await statfs(dirname(file)).catch(() => null);
  if (found === null) return;
  const room = found.bavail * found.bsize;
  if (room < wanted)
    output.note(`${formatBytes(wanted)} are to be written, and the disk has room for ${formatBytes(room)}`);
}

/** Bars on a terminal, for the whole and the blob that is written, and a line for each blob. */
function teller(
  { session: { output }, file, options }: Writing,
  { images }: ArchivePlan,
  { pieces, length }: ArchiveLayout,
  bars: Bars | null,
): (progress: ArchiveProgress) => void {
  const total = pieces.filter((piece) => 'member' in piece).length;
  const say = (text: string): void => (file === null ? output.note(text) : output.step('blob', text));
  const names = new Set(images.map(({ image }) => image)).size;
  if (options.json !== true)
    say(
      `${names} ${names === 1 ? 'image' : 'images'}: ${total} ${total === 1 ? 'blob' : 'blobs'}, ${formatBytes(length)}`,
    );
  return ({ member, memberDone, done }) => {
    if (member === null) return;
    const { image, label, blob } = member;
    const name = `${image.text} ${label}`;
    bars?.set('in all', done, length);
    bars?.set(name, memberDone, blob.size);
    if (memberDone < blob.size) return;
    bars?.done(name);
    say(`${name}, ${formatBytes(blob.size)}`);
  };
}
