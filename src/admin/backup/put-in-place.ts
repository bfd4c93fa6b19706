import { existsSync } from 'node:fs';
import { chown, mkdir, open, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../kit/durable-files.ts';

// How restored files take the place of those that are there, so that a kill at any moment leaves all of the old or all of the new.
//
// They are made ready in `restore.new`, which becomes `restore.ready` by one rename: until then nothing has happened, from then on it will.
// Then the old files go aside (everything in place is old), `restore.ready` becomes `restore.placing`, and the new ones are put in place
// (everything in place is new). Whoever opens the data directory goes on with what was begun. All of it happens within the data directory,
// which may be a mount point, and whose parent may be closed to this user.

/** Under which restored files are made ready; what is left there by a kill counts for nothing. */
export const DRAFT = 'restore.new';
const READY = 'restore.ready';
const PLACING = 'restore.placing';
/** Beside the restored files: what they replace. */
const PLAN = 'plan.json';

/** What restored files replace. */
interface Plan {
  /** Names in the data directory, of files that go aside, whether or not they are there. */
  readonly replaces: readonly string[];
  /** Name of the directory in the data directory where they go. */
  readonly aside: string;
}

/** Decides that the files which are ready in `restore.new` take their places; `completeRestore` does it. @throws the system's error */
export async function commitRestore(dataDir: string, plan: Plan): Promise<void> {
  const file = await open(join(dataDir, DRAFT, PLAN), 'wx', 0o600);
  try {
    await file.writeFile(JSON.stringify(plan));
    await file.sync();
  } finally {
    await file.close();
  }
  await syncDirectory(join(dataDir, DRAFT));
  await rename(join(dataDir, DRAFT), join(dataDir, READY));
  await syncDirectory(dataDir);
}

/**
 * Ends a restore that was decided on, and drops one that was not. To be called by whoever has locked the data directory, before anything in it
 * is opened. @returns where the old files are now; null where nothing was to be done, or there were none
 * @throws the system's error; then it goes on at the next call
 */
export async function completeRestore(dataDir: string): Promise<string | null> {
  const [ready, placing] = [join(dataDir, READY), join(dataDir, PLACING)];
  await rm(join(dataDir, DRAFT), { recursive: true, force: true });
  if (existsSync(ready)) {
    const { replaces, aside } = await readPlan(ready);
    await mkdir(join(dataDir, aside), { recursive: true, mode: 0o700 });
    await giveToOwner(dataDir, [join(dataDir, aside)]);
    for (const name of replaces) await move(join(dataDir, name), join(dataDir, aside, name));
    await syncDirectory(join(dataDir, aside));
    await rename(ready, placing);
    await syncDirectory(dataDir);
  }
  if (!existsSync(placing)) return null;
  const { aside } = await readPlan(placing);
  for (const name of await readdir(placing)) if (name !== PLAN) await move(join(placing, name), join(dataDir, name));
  await syncDirectory(dataDir);
  await rm(placing, { recursive: true });
  // It stays where there is something in it.
  const empty = await rmdir(join(dataDir, aside)).then(
    () => true,
    () => false,
  );
  await syncDirectory(dataDir);
  return empty ? null : join(dataDir, aside);
}

/** What root makes in another user's data directory is that user's: the gateway, which runs as that user, must be able to open it. */
export async function giveToOwner(dataDir: string, paths: readonly string[]): Promise<void> {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = await stat(dataDir);
  for (const path of paths) await chown(path, uid, gid);
}

async function readPlan(directory: string): Promise<Plan> {
  return JSON.parse(await readFile(join(directory, PLAN), 'utf8')) as Plan;
}

/** One that is not there was moved before a kill, or never was. */
async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
