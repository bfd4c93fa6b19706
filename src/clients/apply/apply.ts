import { createTwoFilesPatch } from 'diff';
import { OperatorError } from '../../kit/operator-error.ts';
import { clientPlan } from '../configuration.ts';
import type { Edit } from '../edits.ts';
import { baseUrl, type ClientFacts, type ClientKind, type Login, type Machine } from '../facts.ts';
import { type ClientFiles, digestOf, type Stored } from './files.ts';
import { type Entry, type Journal, journalPath, journalText, readJournal, standingOf } from './journal.ts';
import { merge } from './merge.ts';

/** The machine on which files are changed. */
export interface Place {
  readonly kind: ClientKind;
  readonly files: ClientFiles;
  /** Where a user's own configuration is; null for root's, which is the machine's. */
  readonly home: string | null;
  /** Who owns what is new. */
  readonly uid: number;
  readonly gid: number;
  /** The version of a program on this machine; null where it is not there. */
  version(program: string): readonly [number, number] | null;
}

/** One file that is to change, or has changed. */
export interface FileChange {
  readonly path: string;
  readonly format: Edit['format'];
  readonly was: Stored | null;
  /** Null: it is removed. */
  readonly becomes: Stored | null;
  /** Where the file is kept as it was before the gateway; null where there was none. */
  readonly kept: string | null;
}

/** What a command is about to do. */
export interface Change {
  readonly files: readonly FileChange[];
  readonly notes: readonly string[];
  /** Commands that make what runs take the files into use. */
  readonly restart: readonly string[];
  /** The gateway that is in the files until then; null for none. */
  readonly before: string | null;
  /** Does it. @throws {OperatorError} CLIENT_FILE_FAILED */
  carryOut(): void;
}

/** Where a kind of client belongs to a user, and not to the machine, who is not root has files of their own. */
const PER_USER: ReadonlySet<ClientKind> = new Set(['podman', 'buildkit', 'kind', 'minikube']);

const NEW_FILE = 0o644;
const SECRET_FILE = 0o600;

/**
 * What would put the gateway into the files of a client. Where it was put before, that is begun from the files as they were without it, so that a
 * second time changes nothing, and what the gateway no longer says goes away.
 * @throws {OperatorError} CLIENT_FILE_REFUSED, CLIENT_LOGIN_MISSING: nothing was changed
 */
export function planApply(place: Place, facts: ClientFacts, login: Login | null): Change {
  const { files, kind } = place;
  const where = placeOfJournal(place);
  const journal = readJournal(files, where);
  const held = new Map((journal?.entries ?? []).map((entry) => [entry.path, entry]));
  // A file where our lines cannot be told from later ones is taken as it is now: nothing of those is lost.
  const baseOf = (path: string): Stored | null => {
    const current = files.read(path);
    const entry = held.get(path);
    if (entry === undefined) return current;
    const { base } = standingOf(entry, current);
    return base === undefined ? current : base;
  };
  const plan = clientPlan(kind, facts, machineOf(place, baseOf), login);
  if (facts.credentials && login === null && plan.edits.some(hasLogin)) {
    throw new OperatorError(
      'CLIENT_LOGIN_MISSING',
      'the gateway asks for credentials, which go into the files of this client',
    );
  }
  const entries: Entry[] = [];
  const changes: FileChange[] = [];
  for (const edit of plan.edits) {
    const [current, base] = [files.read(edit.path), baseOf(edit.path)];
    const bytes = Buffer.from(merge(edit, base === null ? null : textOf(edit.path, base.bytes)));
    const owner = base ?? { uid: place.uid, gid: place.gid, mode: NEW_FILE };
    const mode = edit.secret === true ? owner.mode & SECRET_FILE : owner.mode;
    const after = { bytes, mode, uid: owner.uid, gid: owner.gid };
    if (base !== null && same(base, after)) continue;
    const had = held.get(edit.path);
    const kept = base === null ? null : (had?.kept ?? keptName(files, edit.path, base));
    entries.push({ path: edit.path, format: edit.format, before: base, after, kept });
    if (current === null || !same(current, after))
      changes.push({ path: edit.path, format: edit.format, was: current, becomes: after, kept });
  }
  // What was changed once, and is none of ours any more.
  for (const entry of journal?.entries ?? []) {
    if (entries.some(({ path }) => path === entry.path)) continue;
    const [current, base] = [files.read(entry.path), baseOf(entry.path)];
    if (current !== null && (base === null || !same(current, base)))
      changes.push({ path: entry.path, format: entry.format, was: current, becomes: base, kept: null });
  }
  const restart = restarts(plan.restart ?? []);
  return {
    files: changes,
    notes: plan.notes,
    restart: changes.some(({ path }) => !isReadAtEachPull(path)) ? restart : [],
    before: journal === null ? null : baseUrl(journal.facts),
    carryOut: () => writeAll(place, where, { facts, entries, restart }, journal, changes),
  };
}

/**
 * What would take the gateway out of the files of a client; null where it is not in them.
 * @throws {OperatorError} CLIENT_FILE_CHANGED: nothing was changed
 */
export function planUndo(place: Place): Change | null {
  const { files } = place;
  const where = placeOfJournal(place);
  const journal = readJournal(files, where);
  if (journal === null) return null;
  const mixed: string[] = [];
  const changes = journal.entries.flatMap((entry): FileChange[] => {
    const current = files.read(entry.path);
    const standing = standingOf(entry, current);
    if (standing.now === 'untouched') return [];
    if (standing.base === undefined) {
      mixed.push(entry.kept === null ? entry.path : `${entry.path} (as it was before: ${entry.kept})`);
      return [];
    }
    return [{ path: entry.path, format: entry.format, was: current, becomes: standing.base, kept: null }];
  });
  if (mixed.length > 0) {
    throw new OperatorError(
      'CLIENT_FILE_CHANGED',
      `edited since, so that the gateway's lines cannot be told from the others: ${mixed.join(', ')}`,
    );
  }
  return {
    files: changes,
    notes: [],
    restart: changes.some(({ path }) => !isReadAtEachPull(path)) ? journal.restart : [],
    before: baseUrl(journal.facts),
    carryOut: () => {
      for (const { path, becomes } of changes) {
        if (becomes === null) files.remove(path);
        else files.write(path, becomes);
      }
      forget(place, where, journal);
    },
  };
}

/** The gateway that was put into the files of a client here; null for none. @throws {OperatorError} CLIENT_FILE_REFUSED, CLIENT_FILE_FAILED */
export function appliedGateway(place: Place): ClientFacts | null {
  return readJournal(place.files, placeOfJournal(place))?.facts ?? null;
}

/** A difference as `diff -u` shows it, secrets hidden. */
export function differenceOf({ path, format, was, becomes }: FileChange, secrets: readonly string[]): string {
  if (format === 'pem')
    return `${becomes === null ? '---' : '+++'} ${path} (the certificate that signs for the gateway)\n`;
  const [before, after] = [was?.bytes.toString() ?? '', becomes?.bytes.toString() ?? ''];
  const patch = createTwoFilesPatch(
    was === null ? '/dev/null' : path,
    becomes === null ? '/dev/null' : path,
    before,
    after,
    undefined,
    undefined,
    { headerOptions: { includeIndex: false, includeUnderline: false, includeFileHeaders: true } },
  );
  const modes = was !== null && becomes !== null && was.mode !== becomes.mode;
  const text = modes ? `${patch}(mode ${octal(was.mode)} becomes ${octal(becomes.mode)})\n` : patch;
  return secrets.reduce((shown, secret) => shown.replaceAll(secret, '<hidden>'), text);
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

/** First the journal, then the copies, then the files: whatever ends this half-way, an undo knows what was begun. */
function writeAll(
  place: Place,
  where: string,
  next: Omit<Journal, 'folders'>,
  last: Journal | null,
  changes: readonly FileChange[],
): void {
  const { files } = place;
  const gone = (last?.entries ?? []).filter((entry) => !next.entries.some(({ path }) => path === entry.path));
  if (next.entries.length + gone.length === 0) return;
  const written = changes.filter(({ becomes }) => becomes !== null);
  const made: string[] = [];
  try {
    for (const path of [where, ...written.map((change) => change.path)]) made.push(...files.makeFolders(path));
  } catch (error) {
    files.removeEmpty(made);
    throw error;
  }
  const folders = [...(last?.folders ?? []), ...made];
  const record = (entries: readonly Entry[], of: Omit<Journal, 'folders'> = next) => {
    const bytes = Buffer.from(journalText({ ...of, entries, folders }));
    files.write(where, { bytes, mode: SECRET_FILE, uid: place.uid, gid: place.gid });
  };
  record([...next.entries, ...gone]);
  const done: FileChange[] = [];
  try {
    for (const { kept, before } of next.entries)
      if (kept !== null && before !== null && files.read(kept) === null) files.write(kept, before);
    for (const change of changes) {
      if (change.becomes === null) files.remove(change.path);
      else files.write(change.path, change.becomes);
      done.push(change);
    }
  } catch (error) {
    // All of it or nothing: a client that has half of it trusts or asks what is not there.
    for (const { path, was } of done.reverse()) {
      if (was === null) files.remove(path);
      else files.write(path, was);
    }
    if (last === null) forget(place, where, { ...next, folders });
    else record(last.entries, last);
    throw error;
  }
  if (gone.length === 0) return;
  for (const { kept } of gone) if (kept !== null) files.remove(kept);
  record(next.entries);
}

/** Removes the copies that nobody has changed, the journal, and the folders that were made for all of it. */
function forget({ files }: Place, where: string, { entries, folders }: Journal): void {
  for (const { kept, before } of entries) {
    if (kept === null || before === null) continue;
    if (files.read(kept)?.bytes.equals(before.bytes) === true) files.remove(kept);
  }
  files.remove(where);
  files.removeEmpty(folders);
}

/** The machine as it is without the gateway's own changes. */
export function machineOf(
  place: Place,
  baseOf: (path: string) => Stored | null = (path) => place.files.read(path),
): Machine {
  return {
    known: true,
    read: (path) => {
      const base = baseOf(path);
      return base === null ? null : textOf(path, base.bytes);
    },
    list: (folder) => place.files.list(folder),
    version: (program) => place.version(program),
    home: PER_USER.has(place.kind) ? place.home : null,
  };
}

function placeOfJournal({ kind, home }: Place): string {
  return journalPath(kind, PER_USER.has(kind) ? home : null);
}

/** @throws {OperatorError} CLIENT_FILE_REFUSED */
function textOf(path: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new OperatorError('CLIENT_FILE_REFUSED', `${path} is no text in UTF-8; nothing was changed`, { cause });
  }
}

function hasLogin(edit: Edit): boolean {
  return edit.secret === true || (edit.format === 'toml' && edit.hint !== undefined);
}

function same(one: Stored, other: Stored): boolean {
  return one.bytes.equals(other.bytes) && one.mode === other.mode;
}

/** Beside the file, with a name that says what it is, and that no client takes for one of its files. */
function keptName(files: ClientFiles, path: string, base: Stored): string {
  for (let count = 1; ; count++) {
    const name = `${path}.before-gateway${count === 1 ? '' : `-${count}`}`;
    const there = files.read(name);
    if (there === null || digestOf(there.bytes) === digestOf(base.bytes)) return name;
  }
}

/** containerd and Docker read these anew for each pull. */
function isReadAtEachPull(path: string): boolean {
  return path.includes('/certs.d/');
}

/** Each once; what is restarted need not be reloaded before. */
function restarts(commands: readonly string[]): string[] {
  const all = [...new Set(commands)];
  return all.filter(
    (command) => !all.some((other) => other !== command && other === command.replace(' reload ', ' restart ')),
  );
}
