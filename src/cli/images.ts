import type { ImageList, ImageText } from '../admin/image-list.ts';
import type { ClientFacts } from '../clients/facts.ts';
import { type Platform, parsePlatform, platformText } from '../images/platform.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { readGiven, readInput, type Session } from './session.ts';

/** More than a cluster's whole export, bytes. */
const MAX_FILE = 64 * 1024 * 1024;

/**
 * The images that a command was given, by name and in files (`-`: standard input), as they are called upstream. What cannot be known is told on standard
 * error and is in `unread`, which makes a command that wanted all of them exit 1.
 * @throws {OperatorError} usage where no image is named, a file cannot be read, or a name that was typed is none
 */
export async function imagesGiven(
  session: Session,
  names: readonly string[],
  files: readonly string[] = [],
): Promise<ImageList> {
  const texts: ImageText[] = names.map((text) => ({ file: null, text }));
  for (const file of files) {
    const text = file === '-' ? await readInput(session, MAX_FILE) : await readGiven(file);
    texts.push({ file: file === '-' ? 'standard input' : file, text });
  }
  const facts = (await session.act('client.facts', {})) as ClientFacts;
  const { readImageList } = await import('../admin/image-list.ts');
  const list = readImageList(texts, facts);
  for (const note of list.notes) session.output.note(note);
  for (const { where, why } of list.unread) {
    // What a person typed is a mistake to be corrected before anything begins.
    if (where === null) throw new OperatorError('IMAGE_INVALID', why);
    session.output.note(`${where}: ${why}`);
  }
  if (list.images.length === 0 && list.unread.length === 0)
    throw new OperatorError('IMAGE_INVALID', 'no image is named', { next: 'name images, or a file with --file' });
  return list;
}

/**
 * What `--platform linux/amd64,linux/arm64` names, which may be given several times; each once. Null where it was not given.
 * @throws {OperatorError} `PLATFORM_INVALID`
 */
export function platformsGiven(lists: readonly string[] | undefined): readonly Platform[] | null {
  if (lists === undefined) return null;
  const platforms = lists.flatMap((list) => list.split(',')).map((text) => parsePlatform(text));
  return [...new Map(platforms.map((platform) => [platformText(platform), platform])).values()];
}
