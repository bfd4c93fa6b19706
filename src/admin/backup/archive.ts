import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { isObject } from '../../kit/json.ts';
import { OperatorError } from '../../kit/operator-error.ts';

/**
 * The files of a data directory that must not be lost: aliases, registries, users, limits' counters, ACME accounts, certificates and the
 * gateway's identity are in the database; the local CA is beside it. What the cache holds is fetched again.
 */
export const STATE_FILES: readonly string[] = ['gateway.db', 'ca.crt', 'ca-key.pem'];
/** What SQLite keeps beside a database that is open: it belongs to that database alone. */
export const DATABASE_FILES: readonly string[] = ['gateway.db', 'gateway.db-wal', 'gateway.db-shm'];

/** First member of an archive: what the others are, so that every one can be checked. */
export const MANIFEST = 'manifest.json';
const FORMAT = 'registry-gateway backup';
/** Of archives that this version writes, and the newest that it reads. */
const FORMAT_VERSION = 1;

/** Bytes of a member other than the database: a certificate, a key, the manifest. */
const MAX_SMALL = 1024 * 1024;
/** Bytes of a database: a million aliases take a fiftieth of it. */
const MAX_DATABASE = 16 * 1024 * 1024 * 1024;

export interface BackupMember {
  readonly name: string;
  readonly size: number;
  /** Hex. */
  readonly sha256: string;
}

export interface BackupManifest {
  readonly format: string;
  readonly formatVersion: number;
  /** Of the program that made it. */
  readonly version: string;
  /** ISO 8601. */
  readonly created: string;
  /** Steps of a database's schema, by the member's name. */
  readonly schemas: Readonly<Record<string, number>>;
  readonly members: readonly BackupMember[];
}

/** The manifest of files as they lie now. @throws the system's error */
export async function describeFiles(
  files: ReadonlyMap<string, string>,
  about: Pick<BackupManifest, 'version' | 'schemas'>,
): Promise<BackupManifest> {
  const members: BackupMember[] = [];
  for (const [name, path] of files) {
    const hash = createHash('sha256');
    let size = 0;
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      size += chunk.length;
    }
    members.push({ name, size, sha256: hash.digest('hex') });
  }
  return { format: FORMAT, formatVersion: FORMAT_VERSION, ...about, created: new Date().toISOString(), members };
}

/** The bytes of an archive: a tar file (POSIX ustar) of the manifest, then its members. @throws the system's error */
export async function* writeArchive(
  manifest: BackupManifest,
  files: ReadonlyMap<string, string>,
): AsyncGenerator<Uint8Array> {
  const { createTarPacker } = await import('modern-tar');
  const { readable, controller } = createTarPacker();
  const mtime = new Date(manifest.created);
  const fill = async (): Promise<void> => {
    const text = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
    const first = controller.add({ name: MANIFEST, size: text.length, mode: 0o600, mtime }).getWriter();
    await first.write(text);
    await first.close();
    for (const { name, size } of manifest.members) {
      const source = createReadStream(files.get(name) ?? '', size === 0 ? {} : { end: size - 1 });
      await Readable.toWeb(source).pipeTo(
        controller.add({ name, size, mode: 0o600, mtime }) as WritableStream<Uint8Array>,
      );
    }
    controller.finalize();
  };
  const filling = fill().catch((error: unknown) => controller.error(error));
  for await (const chunk of readable as unknown as AsyncIterable<Uint8Array>) yield chunk;
  await filling;
}

/**
 * Unpacks an archive into an empty directory, and checks every member: only files that a backup has, no larger than announced, each with its
 * hash. Nothing of it is believed before: names are compared with a list, and no path is ever made of them.
 * @throws {OperatorError} `BACKUP_INVALID`, with what is wrong; the system's error where it cannot be written
 */
export async function readArchive(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  signal: AbortSignal,
): Promise<BackupManifest> {
  const { createTarDecoder } = await import('modern-tar');
  const entries = ReadableStream.from(archive).pipeThrough(createTarDecoder({ strict: true }) as TransformStream);
  let manifest: BackupManifest | undefined;
  const seen = new Set<string>();
  try {
    for await (const { header, body } of entries as unknown as AsyncIterable<Entry>) {
      signal.throwIfAborted();
      if ((header.type ?? 'file') !== 'file') {
        throw invalid(`it has "${shown(header.name)}", which is a ${header.type} and no file`);
      }
      if (seen.has(header.name)) throw invalid(`it has ${shown(header.name)} twice`);
      seen.add(header.name);
      if (manifest === undefined) {
        if (header.name !== MANIFEST) throw invalid(`it begins with "${shown(header.name)}" and not with ${MANIFEST}`);
        manifest = parseManifest(await readSmall(body, header.size));
      } else await unpack({ header, body }, manifest, directory);
    }
  } catch (error) {
    if (error instanceof OperatorError || signal.aborted || isSystemError(error)) throw error;
    throw invalid(`it cannot be read to its end: ${(error as Error).message}`, error);
  }
  if (manifest === undefined) throw invalid('there is nothing in it');
  const missing = manifest.members.find(({ name }) => !seen.has(name));
  if (missing !== undefined) throw invalid(`it ends before ${missing.name}, which its manifest names`);
  return manifest;
}

interface Entry {
  readonly header: { readonly name: string; readonly size: number; readonly type?: string };
  readonly body: AsyncIterable<Uint8Array>;
}

async function unpack({ header, body }: Entry, manifest: BackupManifest, directory: string): Promise<void> {
  const member = manifest.members.find(({ name }) => name === header.name);
  if (member === undefined) throw invalid(`it has "${shown(header.name)}", which its manifest does not name`);
  if (header.size !== member.size) {
    throw invalid(`its ${member.name} has ${header.size} bytes and not the ${member.size} of its manifest`);
  }
  const hash = createHash('sha256');
  // Clients are given the certificate to trust; everything else is for the gateway alone.
  const file = await open(join(directory, member.name), 'wx', member.name === 'ca.crt' ? 0o644 : 0o600);
  let size = 0;
  try {
    for await (const chunk of body) {
      size += chunk.length;
      hash.update(chunk);
      await file.writeFile(chunk);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  if (size !== member.size) throw invalid(`it ends within ${member.name}`);
  if (hash.digest('hex') !== member.sha256)
    throw invalid(`the bytes of its ${member.name} are not those that were backed up`);
}

async function readSmall(body: AsyncIterable<Uint8Array>, size: number): Promise<string> {
  if (size > MAX_SMALL) throw invalid(`its ${MANIFEST} has ${size} bytes`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

function parseManifest(text: string): BackupManifest {
  let manifest: Partial<BackupManifest> | null;
  try {
    manifest = JSON.parse(text) as Partial<BackupManifest> | null;
  } catch {
    throw invalid(`its ${MANIFEST} is no JSON`);
  }
  if (manifest?.format !== FORMAT) throw invalid(`its ${MANIFEST} is not that of a gateway's backup`);
  const { formatVersion, version, created, schemas, members } = manifest;
  if (formatVersion !== FORMAT_VERSION) {
    throw new OperatorError(
      'BACKUP_NEWER',
      `the backup was made by version ${shown(String(version))}, in a form (${shown(String(formatVersion))}) that this version does not know`,
    );
  }
  const right =
    typeof version === 'string' &&
    typeof created === 'string' &&
    isObject(schemas) &&
    Number.isSafeInteger(schemas['gateway.db']) &&
    Array.isArray(members) &&
    members.every(isMember) &&
    members.some(({ name }) => name === 'gateway.db');
  if (!right) throw invalid(`its ${MANIFEST} lacks what a backup's has`);
  return manifest as BackupManifest;
}

function isMember(value: unknown): value is BackupMember {
  if (!isObject(value)) return false;
  const { name, size, sha256 } = value;
  if (typeof name !== 'string' || !STATE_FILES.includes(name)) return false;
  const most = name === 'gateway.db' ? MAX_DATABASE : MAX_SMALL;
  return (
    Number.isSafeInteger(size) &&
    (size as number) >= 0 &&
    (size as number) <= most &&
    /^[0-9a-f]{64}$/.test(String(sha256))
  );
}

export function invalid(problem: string, cause?: unknown): OperatorError {
  return new OperatorError('BACKUP_INVALID', `this is no backup that can be restored: ${problem}`, { cause });
}

function isSystemError(error: unknown): boolean {
  return typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

function shown(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 100);
}
