import { randomBytes } from 'node:crypto';
import type { StatsFs } from 'node:fs';
import { readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { Config } from '../../config/config.ts';
import type { Finding } from './finding.ts';
import { inTime, type Surroundings } from './surroundings.ts';

/** Free bytes below which SQLite itself may fail to write, and the share of inodes below which files soon cannot be made. */
const LEAST_FREE = 64 * 1024 * 1024;
const FEW_INODES = 0.02;
const LEAST_INODES = 1_000;
/** A disk that does not answer in this time is held up, ms: a network file system whose server is gone. */
const DISK_TIMEOUT = 2_000;

/** File systems by their number (statfs(2)) on which SQLite's locks or its shared memory do not hold, or nothing stays. */
const NETWORK_DISKS: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB'],
  [0x517b, 'SMB'],
  [0x01021997, '9p'],
  [0x00c36400, 'Ceph'],
  [0x5346414f, 'AFS'],
]);
const TMPFS = 0x01021994;

/** Descriptors that a process needs beside those of clients: connections to registries, blobs, databases (src/upstream/registry-upstream.ts). */
const OWN_DESCRIPTORS = 1_024;
/** What the owner and each worker take at rest, and what is little above it, bytes. */
const MEMORY_OF_OWNER = 150 * 2 ** 20;
const MEMORY_OF_WORKER = 80 * 2 ** 20;
const LITTLE_MEMORY = 64 * 2 ** 20;

/** The disk, the data directory, memory, processors and limits of this machine. Nothing here needs the network, nor room on the disk. */
export async function checkMachine(
  config: Config,
  around: Surroundings,
  { pid, signal }: { readonly pid: number; readonly signal: AbortSignal },
): Promise<Finding[]> {
  const found = await Promise.all([
    checkDisk(config, signal),
    checkData(config),
    checkFiles(config, around, pid),
    checkMemory(config, around),
    checkProcessors(config, around),
    checkRoute(around),
  ]);
  return found.flat();
}

async function checkDisk({ dataDir, cache }: Config, signal: AbortSignal): Promise<Finding[]> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(DISK_TIMEOUT)]);
  const disk = await inTime<StatsFs | Error>(statfs(dataDir), within, (error) => error as Error);
  if (disk instanceof Error) {
    const { code } = disk as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    const message = `the disk of ${dataDir} does not answer: ${code ?? disk.message}`;
    return [{ name: 'disk', level: 'fail', message, next: 'look after that disk, or set dataDir to another one' }];
  }
  return [...checkSpace(disk, dataDir, cache.minFree), ...checkKind(disk, dataDir)];
}

export function checkSpace(
  disk: Pick<StatsFs, 'bavail' | 'bsize' | 'files' | 'ffree'>,
  dataDir: string,
  minFree: number,
): Finding[] {
  const free = disk.bavail * disk.bsize;
  const message = `${gib(free)} free in ${dataDir}`;
  const found: Finding[] = [];
  if (free < LEAST_FREE) {
    const next = `make room (gateway cache prune, du -xsh ${dataDir}/*): without it no certificate, alias or quota can be stored`;
    found.push({ name: 'disk', level: 'fail', message, next });
  } else if (free < minFree) {
    found.push({
      name: 'disk',
      level: 'warn',
      message: `${message}, less than cache.minFree (${gib(minFree)}): nothing new is kept`,
      next: 'make room, or lower cache.minFree; gateway cache prune drops what is kept',
    });
  } else found.push({ name: 'disk', level: 'ok', message });

  // btrfs and others have no fixed number of them.
  if (disk.files > 0 && (disk.ffree < LEAST_INODES || disk.ffree / disk.files < FEW_INODES)) {
    found.push({
      name: 'inodes',
      level: disk.ffree < LEAST_INODES ? 'fail' : 'warn',
      message: `${disk.ffree} of ${disk.files} inodes are left on the disk of ${dataDir}: no new file, whatever room there is`,
      next: 'remove small files (df -i shows where), or move dataDir to a disk with more inodes',
    });
  }
  return found;
}

export function checkKind({ type }: Pick<StatsFs, 'type'>, dataDir: string): Finding[] {
  const network = NETWORK_DISKS.get(type);
  if (network !== undefined) {
    const message = `${dataDir} lies on a network file system (${network}), where SQLite's locks do not hold: databases there get damaged`;
    return [{ name: 'data disk', level: 'fail', message, next: 'move dataDir to a local disk' }];
  }
  if (type === TMPFS) {
    const message = `${dataDir} lies in memory (tmpfs): certificates, aliases and the cache are gone after a reboot`;
    return [{ name: 'data disk', level: 'warn', message, next: 'move dataDir to a disk' }];
  }
  return [];
}

/** Whether the data directory can be written, belongs to this user, and keeps its keys to itself. */
async function checkData({ dataDir }: Config): Promise<Finding[]> {
  const about = await stat(dataDir).catch((error: NodeJS.ErrnoException) => error);
  if (about instanceof Error) {
    // That it is not there yet is said of the gateway.
    if (about.code === 'ENOENT') return [];
    const next = 'give it, and the directories above it, to the user that the gateway runs as';
    return [{ name: 'data', level: 'fail', message: `${dataDir} cannot be read: ${about.message}`, next }];
  }
  const found = [await checkWritable(dataDir)];
  const database = path.join(dataDir, 'gateway.db');
  const file = await stat(database).catch(() => null);
  if (file === null) return found;
  if ((file.mode & 0o077) !== 0) {
    found.push({
      name: 'keys',
      level: 'fail',
      message: 'gateway.db, which holds private keys, is open to other users',
      next: `chmod 600 ${database}`,
    });
  }
  if (file.uid !== about.uid) {
    found.push({
      name: 'data owner',
      level: 'fail',
      message: `${database} belongs to user ${file.uid}, its directory to user ${about.uid}: one of them cannot work on it`,
      next: `give all of it to the user that the gateway runs as: chown -R USER ${dataDir}`,
    });
  }
  return found;
}

/** A file is made and removed: permissions, a disk that is mounted read-only, and quotas tell in no other way. */
async function checkWritable(dataDir: string): Promise<Finding> {
  const file = path.join(dataDir, `.doctor-${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(file, 'x', { mode: 0o600, flag: 'wx' });
    return { name: 'data', level: 'ok', message: `${dataDir} can be written` };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const finding = { name: 'data', level: 'fail', message: `${dataDir} cannot be written: ${message}` } as const;
    if (code === 'ENOSPC') return { ...finding, next: 'make room on its disk', because: 'disk full' };
    if (code === 'EDQUOT') return { ...finding, next: "the user's disk quota is used up: raise it, or make room" };
    if (code === 'EROFS') {
      const next = 'its disk is mounted read-only, often after an error: see dmesg, and mount it read-write again';
      return { ...finding, next };
    }
    return { ...finding, next: 'give it to the user that the gateway runs as' };
  } finally {
    await rm(file, { force: true }).catch(() => {});
  }
}

/** Open files: of the gateway that runs, or of this command, which its next start would have too. */
async function checkFiles({ limits }: Config, { proc }: Surroundings, pid: number): Promise<Finding[]> {
  const text = await readFile(`${proc}/${pid}/limits`, 'utf8').catch(() => null);
  const [, soft = ''] = /^Max open files\s+(\S+)/m.exec(text ?? '') ?? [];
  if (soft === '') return [];
  if (soft === 'unlimited') return [{ name: 'files', level: 'ok', message: 'as many open files as there are' }];
  const most = Number(soft);
  const open = (await readdir(`${proc}/${pid}/fd`).catch(() => [])).length;
  const need = limits.connections + OWN_DESCRIPTORS;
  const message = `a process may have ${most} files open${open > 0 ? `, ${open} are` : ''}`;
  const next = `raise it to ${2 ** Math.ceil(Math.log2(need * 4))}: LimitNOFILE= in the unit, --ulimit nofile= for a container, ulimit -n in a shell`;
  if (open > most * 0.9) return [{ name: 'files', level: 'fail', message: `${message}: nearly all`, next }];
  if (most < need) {
    const why = `one client alone may hold ${limits.connections} connections (limits.connections), and registries and blobs need some ${OWN_DESCRIPTORS}`;
    return [{ name: 'files', level: 'warn', message: `${message}, which is few: ${why}`, next }];
  }
  return [{ name: 'files', level: 'ok', message }];
}

async function checkMemory({ listen }: Config, { proc, cgroup }: Surroundings): Promise<Finding[]> {
  const meminfo = await readFile(`${proc}/meminfo`, 'utf8').catch(() => '');
  const kib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1] ?? Number.NaN) * 1024;
  const group = Number((await readFile(`${cgroup}/memory.max`, 'utf8').catch(() => '')).trim() || Number.NaN);
  const machine = kib('MemTotal');
  const limited = Number.isFinite(group) && group < machine;
  const total = limited ? group : machine;
  const available = kib('MemAvailable');
  if (!Number.isFinite(total)) return [];
  const need = MEMORY_OF_OWNER + (listen.workers - 1) * MEMORY_OF_WORKER;
  const message = `${mib(total)} ${limited ? 'for the gateway (limit of its cgroup)' : 'in this machine'}, ${listen.workers} processes`;
  if (total < need) {
    const next =
      listen.workers > 1
        ? 'set listen.workers: 1, or give it more memory (MemoryMax=, --memory)'
        : 'give it more memory (MemoryMax=, --memory): it is ended by the kernel otherwise';
    return [{ name: 'memory', level: 'warn', message: `${message}, which take some ${mib(need)} at rest`, next }];
  }
  if (available < LITTLE_MEMORY) {
    const next = 'end what takes it (ps --sort=-rss aux), or give the machine more';
    return [{ name: 'memory', level: 'warn', message: `${mib(available)} of ${mib(machine)} are left`, next }];
  }
  return [{ name: 'memory', level: 'ok', message }];
}

async function checkProcessors({ listen }: Config, { cgroup }: Surroundings): Promise<Finding[]> {
  const text = await readFile(`${cgroup}/cpu.max`, 'utf8').catch(() => '');
  const [quota = Number.NaN, period = Number.NaN] = text.trim().split(' ').map(Number);
  const cores = Number.isFinite(quota / period) ? quota / period : availableParallelism();
  if (listen.workers <= Math.max(1, Math.ceil(cores)) * 2) return [];
  const message = `${listen.workers} processes serve (listen.workers), with ${cores.toFixed(1)} processors for them`;
  return [
    {
      name: 'processors',
      level: 'warn',
      message,
      next: `set listen.workers to ${Math.max(1, Math.ceil(cores))}, or to auto`,
    },
  ];
}

/** Whether this machine knows any way out at all. */
async function checkRoute({ proc }: Surroundings): Promise<Finding[]> {
  const [four, six] = await Promise.all(
    ['route', 'ipv6_route'].map((file) => readFile(`${proc}/net/${file}`, 'utf8').catch(() => null)),
  );
  if (four === null || four === undefined) return [];
  const v4 = four.split('\n').some((line) => /^(?!lo\b)\S+\t00000000\t/.test(line));
  const v6 = (six ?? '').split('\n').some((line) => /^0{32} 00 /.test(line) && !/\slo$/.test(line));
  if (v4 || v6) return [];
  const message = 'this machine has no default route: nothing outside its own network can be reached';
  const next =
    'bring its network up (ip route shows the routes there are); a container needs a network other than none';
  return [{ name: 'network', level: 'warn', message, next }];
}

function gib(bytes: number): string {
  return bytes < 2 ** 30 ? mib(bytes) : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
