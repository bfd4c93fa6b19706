import { applyPatch, reversePatch, structuredPatch } from 'diff';
import { OperatorError } from '../../kit/operator-error.ts';
import type { Edit } from '../edits.ts';
import type { ClientFacts, ClientKind } from '../facts.ts';
import { type ClientFiles, digestOf, type Stored } from './files.ts';
import { isReadable } from './merge.ts';

/** What was done to one file. */
export interface Entry {
  /** As the plan named it. */
  readonly path: string;
  readonly format: Edit['format'];
  /** The file as it was; null where there was none. */
  readonly before: Stored | null;
  /** The file as it was written. */
  readonly after: Stored;
  /** A copy of the file as it was, beside it for a person to find; null where there was none. */
  readonly kept: string | null;
}

/** What was changed on this machine for one kind of client, so that it can be taken back byte by byte. */
export interface Journal {
  /** The gateway as it was then: what `--check` tries without being told of it again. */
  readonly facts: ClientFacts;
  readonly entries: readonly Entry[];
  /** Commands that make what runs take these files into use. */
  readonly restart: readonly string[];
  /** Folders that were made for them, and for this, as the file system names them: each before those in it. */
  readonly folders: readonly string[];
}

/** Where a file stands that is in the journal. */
export type Standing =
  /** As it was written. */
  | { readonly now: 'ours'; readonly base: Stored | null }
  /** As it was before, or gone: there is nothing of ours in it. */
  | { readonly now: 'untouched'; readonly base: Stored | null }
  /** Edited since; `base` is what it is without our lines, undefined where these cannot be told from the others. */
  | { readonly now: 'edited'; readonly base: Stored | null | undefined };

/** Of the journal's form. */
const VERSION = 1;
const FOLDER = 'registry-gateway/clients';

/** Machines keep their journals with other state, users with theirs (XDG Base Directory Specification). */
export function journalPath(kind: ClientKind, home: string | null): string {
  return home === null ? `/var/lib/${FOLDER}/${kind}.json` : `${home}/.local/state/${FOLDER}/${kind}.json`;
}

interface StoredText extends Omit<Stored, 'bytes'> {
  readonly base64: string;
  readonly sha256: string;
}
type EntryText = Omit<Entry, 'before' | 'after'> & { readonly before: StoredText | null; readonly after: StoredText };

export function journalText({ facts, entries, restart, folders }: Journal): string {
  const rows = entries.map(
    (entry): EntryText => ({
      ...entry,
      before: entry.before === null ? null : toText(entry.before),
      after: toText(entry.after),
    }),
  );
  return `${JSON.stringify({ version: VERSION, facts, restart, folders, entries: rows }, null, 2)}\n`;
}

/** Null where nothing was applied. @throws {OperatorError} CLIENT_FILE_REFUSED for one that is damaged */
export function readJournal(files: ClientFiles, path: string): Journal | null {
  const stored = files.read(path);
  if (stored === null) return null;
  try {
    const { version, facts, entries, restart, folders } = JSON.parse(stored.bytes.toString()) as {
      version: number;
      facts: ClientFacts;
      entries: EntryText[];
      restart: string[];
      folders: string[];
    };
    if (version !== VERSION) throw new Error(`its version is ${version}`);
    return {
      facts,
      restart,
      folders,
      entries: entries.map((entry) => ({
        ...entry,
        before: entry.before === null ? null : fromText(entry.before),
        after: fromText(entry.after),
      })),
    };
  } catch (cause) {
    throw new OperatorError(
      'CLIENT_FILE_REFUSED',
      `${path}, which says what was changed, cannot be read: ${(cause as Error).message}`,
      {
        next: 'put back by hand the files that end in .before-gateway, then remove it',
        cause,
      },
    );
  }
}

function toText({ bytes, ...rest }: Stored): StoredText {
  return { ...rest, base64: bytes.toString('base64'), sha256: digestOf(bytes) };
}

function fromText({ base64, sha256, ...rest }: StoredText): Stored {
  const bytes = Buffer.from(base64, 'base64');
  if (digestOf(bytes) !== sha256) throw new Error('what it keeps does not have the digest that it names');
  return { ...rest, bytes };
}

export function standingOf(entry: Entry, current: Stored | null): Standing {
  const { before, after } = entry;
  if (current === null) return { now: 'untouched', base: null };
  if (current.bytes.equals(after.bytes)) return { now: 'ours', base: before };
  if (before !== null && current.bytes.equals(before.bytes)) return { now: 'untouched', base: before };
  return { now: 'edited', base: withoutOurs(entry, current) };
}

/** Our change taken out of a file that has others since, line by line; undefined where that is not possible. */
function withoutOurs({ path, format, before, after }: Entry, current: Stored): Stored | null | undefined {
  const [was, wrote, is] = [before?.bytes.toString() ?? '', after.bytes.toString(), current.bytes.toString()];
  const ours = structuredPatch('file', 'file', was, wrote, undefined, undefined, { context: 1 });
  const text = applyPatch(is, reversePatch(ours), { autoConvertLineEndings: false });
  if (text === false || !isReadable(format, path, text)) return undefined;
  if (before === null && text.trim() === '') return null;
  return { ...current, mode: before?.mode ?? current.mode, bytes: Buffer.from(text) };
}
