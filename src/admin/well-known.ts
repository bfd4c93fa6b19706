import { randomUUID } from 'node:crypto';
import { type Stats, statSync } from 'node:fs';
import { lstat, mkdir, readFile, rename, rm, rmdir } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../telemetry/log.ts';
import { isAnswered, listenPrivately, openSocketPath, SOCKET_NAME } from './socket-path.ts';

/** Of the directory in which a gateway is found without knowing its data directory. */
const DIRECTORY = 'registry-gateway';

/** How often a gateway looks whether its well-known socket is still there, or may be made now, ms: at a logout the whole directory goes. */
const LOOK_EVERY = 30_000;

const WRITABLE_BY_OTHERS = 0o022;

/**
 * Where a gateway of this user or machine is looked for, in this order: in the directories that systemd made for this very unit (systemd.exec(5),
 * RuntimeDirectory=), else the user's own (XDG base directories) and the machine's.
 */
export function wellKnownDirectories(env: NodeJS.ProcessEnv): readonly string[] {
  const { RUNTIME_DIRECTORY, XDG_RUNTIME_DIR } = env;
  if (RUNTIME_DIRECTORY !== undefined && RUNTIME_DIRECTORY !== '') return RUNTIME_DIRECTORY.split(':');
  const own = XDG_RUNTIME_DIR !== undefined && path.isAbsolute(XDG_RUNTIME_DIR) ? [XDG_RUNTIME_DIR] : [];
  return [...own, '/run'].map((parent) => path.join(parent, DIRECTORY));
}

export const wellKnownSocket = (directory: string): string => path.join(directory, SOCKET_NAME);

/** What a command finds in a well-known directory: a socket that it may trust, nothing, or why it passes over what is there. */
export type Found = 'socket' | 'nothing' | { readonly problem: string };

/**
 * Looks whether a gateway may be spoken to there. Whoever could put a socket there could answer in its place and be sent passwords, so the
 * directory and the socket have to be this user's own, or in the case of root, of the one user to whom root has given that directory.
 */
export async function lookForGateway(directory: string): Promise<Found> {
  const me = process.geteuid?.();
  if (me === undefined) return 'nothing';
  try {
    const folder = await lstat(directory);
    if (!folder.isDirectory()) return { problem: 'is no directory' };
    if (!mayBeTrusted(folder, directory, me)) return { problem: `belongs to ${await userName(folder.uid)}` };
    if ((folder.mode & WRITABLE_BY_OTHERS) !== 0) return { problem: 'can be written by others than its owner' };
    const socket = await lstat(wellKnownSocket(directory));
    if (!socket.isSocket()) return { problem: 'holds something else that is called admin.sock' };
    if (socket.uid === me || (me === 0 && socket.uid === folder.uid)) return 'socket';
    return {
      problem: `has the gateway of ${await userName(socket.uid)}: act on it as that user, or as root`,
    };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'nothing' : { problem: `cannot be looked at: ${code}` };
  }
}

function mayBeTrusted(folder: Stats, directory: string, me: number): boolean {
  if (folder.uid === me || folder.uid === 0) return true;
  if (me !== 0) return false;
  // What root alone can make, such as a directory in /run, has the owner that root wanted.
  const parent = statSync(path.dirname(directory));
  return parent.uid === 0 && (parent.mode & WRITABLE_BY_OTHERS) === 0;
}

async function userName(uid: number): Promise<string> {
  const users = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const name = users.split('\n').find((line) => line.split(':')[2] === String(uid));
  return `user ${name?.split(':')[0] ?? uid}`;
}

/**
 * Makes the gateway found at the well-known places, as far as this user may, and keeps it so: a place that another gateway has is left to it,
 * and taken when that one has ended. Never fails: commands that name the data directory reach the gateway without.
 */
export async function announceGateway(options: {
  readonly directories: readonly string[];
  readonly dataDir: string;
  readonly accept: (connection: net.Socket) => void;
  readonly log: Logger;
  readonly lookEvery?: number;
}): Promise<{ close(): Promise<void> }> {
  const { directories, dataDir, accept, log, lookEvery = LOOK_EVERY } = options;
  const places = directories.map((directory) => new Place(directory, accept));
  const outcomes = await Promise.all(places.map((place) => place.take()));
  tellOutcomes(places, outcomes, dataDir, log);
  const stop = new AbortController();
  const looking = (async () => {
    for (;;) {
      await sleep(lookEvery, undefined, { signal: stop.signal, ref: false });
      for (const place of places) await place.take();
    }
  })().catch(() => {});
  return {
    async close() {
      stop.abort();
      await looking;
      await Promise.all(places.map((place) => place.leave()));
    },
  };
}

function tellOutcomes(places: readonly Place[], outcomes: readonly Outcome[], dataDir: string, log: Logger): void {
  const there = (wanted: (outcome: Outcome) => boolean) =>
    places.flatMap(({ socket }, index) => (wanted(outcomes[index] ?? 'taken') ? [socket] : []));
  const [taken, held] = [there((one) => one === 'taken'), there((one) => one === 'held')];
  if (held.length > 0) {
    log.warn(
      `another gateway is at ${held.join(' and ')}: commands that name no data directory go to that one; for this one give them --data-dir ${dataDir}`,
    );
  }
  if (taken.length > 0) log.info(`commands find this gateway at ${taken.join(' and ')}`);
  else if (held.length === 0) {
    const reasons = outcomes.flatMap((one, index) =>
      typeof one === 'string' ? [] : [`${places[index]?.directory} ${one.problem}`],
    );
    log.info(
      `no well-known socket was made (${reasons.join('; ')}): commands from another directory need --data-dir ${dataDir}`,
    );
  }
}

/** `held`: another gateway answers there. */
type Outcome = 'taken' | 'held' | { readonly problem: string };

class Place {
  readonly directory: string;
  readonly socket: string;
  readonly #accept: (connection: net.Socket) => void;
  #made = false;
  #listener: { readonly server: net.Server; readonly inode: number } | null = null;

  constructor(directory: string, accept: (connection: net.Socket) => void) {
    this.directory = directory;
    this.socket = wellKnownSocket(directory);
    this.#accept = accept;
  }

  async take(): Promise<Outcome> {
    try {
      if (await this.#isOurs()) return 'taken';
      await this.#close();
      const problem = await this.#prepare();
      if (problem !== null) return { problem };
      return await this.#listen();
    } catch (error) {
      return { problem: `cannot be used: ${(error as NodeJS.ErrnoException).code ?? error}` };
    }
  }

  async leave(): Promise<void> {
    if (await this.#isOurs()) await rm(this.socket, { force: true });
    await this.#close();
    if (this.#made) await rmdir(this.directory).catch(() => {});
  }

  async #isOurs(): Promise<boolean> {
    if (this.#listener === null) return false;
    const found = await lstat(this.socket).catch(() => null);
    return found?.ino === this.#listener.inode;
  }

  async #close(): Promise<void> {
    const { server } = this.#listener ?? {};
    this.#listener = null;
    // Its connections are the admin server's, which ends them.
    server?.close();
  }

  /** Sees that the directory is there and this user's alone. Resolves to what is in the way. */
  async #prepare(): Promise<string | null> {
    const me = process.geteuid?.();
    if (me === undefined) return 'is for systems with users';
    try {
      // The machine's users may see that there is a gateway; the socket itself is its owner's alone.
      await mkdir(this.directory, { mode: 0o755 });
      this.#made = true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const folder = await lstat(this.directory);
    if (!folder.isDirectory()) return 'is no directory';
    if (folder.uid !== me) return `belongs to ${await userName(folder.uid)}`;
    if ((folder.mode & WRITABLE_BY_OTHERS) !== 0) return 'can be written by others than its owner';
    return null;
  }

  async #listen(): Promise<Outcome> {
    // Made under another name and then renamed: Node removes the path that it has bound when it closes, whosever that is by then.
    const draftName = `.${randomUUID()}.sock`;
    const [place, draft] = [await openSocketPath(this.directory), await openSocketPath(this.directory, draftName)];
    try {
      const found = await lstat(place.path).catch(() => null);
      if (found !== null && !found.isSocket()) return { problem: 'holds something else that is called admin.sock' };
      if (found !== null && (await isAnswered(place.path))) return 'held';
      // As http.Server has it.
      const server = net.createServer({ allowHalfOpen: true }, this.#accept);
      await listenPrivately(server, draft.path);
      server.unref();
      const { ino } = await lstat(draft.path);
      await rename(draft.path, this.socket);
      this.#listener = { server, inode: ino };
      return 'taken';
    } finally {
      await Promise.all([place.close(), draft.close()]);
    }
  }
}
