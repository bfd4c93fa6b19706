import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How often a process gets its share, µs: short, so that a pause in the middle of a transfer is short, too. */
const PERIOD = 20_000;

/** Where the kernel's `cpu` controller can be used: version 1 mounted on its own, or version 2. */
const ROOTS = [
  { root: '/sys/fs/cgroup/cpu', usable: 'cpu.cfs_quota_us', files: quotaFilesV1 },
  { root: '/sys/fs/cgroup', usable: 'cgroup.controllers', files: quotaFilesV2 },
] as const;

function quotaFilesV1(quota: number): [string, string][] {
  return [
    ['cpu.cfs_period_us', String(PERIOD)],
    ['cpu.cfs_quota_us', String(quota)],
  ];
}

function quotaFilesV2(quota: number): [string, string][] {
  return [['cpu.max', `${quota} ${PERIOD}`]];
}

/** Control groups that this run made. */
export class CpuQuotas {
  readonly #groups: string[] = [];

  /** Gives processes at most `share` of one core together. False where this machine (or this user) cannot: then nothing was changed. */
  limit(share: number, ...pids: readonly number[]): boolean {
    for (const { root, usable, files } of ROOTS) {
      if (!existsSync(join(root, usable))) continue;
      const group = join(root, `gateway-bench-${process.pid}-${pids.join('-')}`);
      try {
        mkdirSync(group);
        this.#groups.push(group);
        for (const [file, text] of files(Math.round(share * PERIOD))) writeFileSync(join(group, file), text);
        for (const pid of pids) writeFileSync(join(group, 'cgroup.procs'), String(pid));
        const members = readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n');
        return pids.every((pid) => members.includes(String(pid)));
      } catch {
        // Not root, or the controller is not handed down to groups here: the next root may do.
      }
    }
    return false;
  }

  /** Removes the groups; their processes must have ended. */
  remove(): void {
    for (const group of this.#groups.splice(0)) {
      try {
        rmdirSync(group);
      } catch {
        console.error(`could not remove the control group ${group}`);
      }
    }
  }
}
