import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const MiB = 1024 * 1024;

/** How one version of the kernel's control groups holds memory, and says what was held. */
interface Controller {
  readonly root: string;
  /** There where this version is mounted. */
  readonly usable: string;
  /** Hands the controller down to the groups of `root`, where it is not by itself. */
  readonly handDown: readonly [file: string, text: string] | null;
  readonly limit: string;
  readonly usage: string;
  /** The file with `oom_kill`, processes that were killed for want of memory. */
  readonly events: string;
  /** Of `memory.stat`: what the processes allocated, and pages of files, which the kernel takes back when it needs them. */
  readonly anonymous: string;
  readonly pagesOfFiles: readonly string[];
}

const CONTROLLERS: readonly Controller[] = [
  {
    root: '/sys/fs/cgroup/memory',
    usable: 'memory.limit_in_bytes',
    handDown: null,
    limit: 'memory.limit_in_bytes',
    usage: 'memory.usage_in_bytes',
    events: 'memory.oom_control',
    anonymous: 'total_rss',
    pagesOfFiles: ['total_active_file', 'total_inactive_file'],
  },
  {
    root: '/sys/fs/cgroup',
    usable: 'cgroup.controllers',
    handDown: ['cgroup.subtree_control', '+memory'],
    limit: 'memory.max',
    usage: 'memory.current',
    events: 'memory.events',
    anonymous: 'anon',
    pagesOfFiles: ['active_file', 'inactive_file'],
  },
];

/** What a group holds now, MiB. */
export interface Held {
  /** All that counts against the limit but pages of files: allocated memory, and the kernel's own (sockets, descriptors, names of files). */
  readonly total: number;
  readonly anonymous: number;
}

/** A control group that may hold so much memory and no more, pages of files included; it makes its own processes leave room for those. */
export class MemoryLimit {
  readonly #group: string;
  readonly #controller: Controller;

  private constructor(group: string, controller: Controller) {
    this.#group = group;
    this.#controller = controller;
  }

  /** Null where this machine (or this user) cannot. */
  static make(name: string, bytes: number): MemoryLimit | null {
    for (const controller of CONTROLLERS) {
      const { root, usable, handDown, limit } = controller;
      if (!existsSync(join(root, usable))) continue;
      const group = join(root, `gateway-bench-${process.pid}-${name}`);
      try {
        if (handDown !== null) writeFileSync(join(root, handDown[0]), handDown[1]);
        mkdirSync(group);
        writeFileSync(join(group, limit), String(bytes));
        return new MemoryLimit(group, controller);
      } catch {
        // Not root, or the controller is not handed down to groups here: the next version may do.
        if (existsSync(group)) rmdirSync(group);
      }
    }
    return null;
  }

  /** A command that runs `command` in the group from its first moment on. */
  within(command: string, ...args: readonly string[]): { readonly command: string; readonly args: readonly string[] } {
    const procs = join(this.#group, 'cgroup.procs');
    return { command: 'sh', args: ['-c', 'echo $$ >"$0" && exec "$@"', procs, command, ...args] };
  }

  held(): Held {
    const { usage, anonymous, pagesOfFiles } = this.#controller;
    const stat = this.#read('memory.stat');
    const files = pagesOfFiles.reduce((sum, name) => sum + value(stat, name), 0);
    return {
      total: (Number(this.#read(usage)) - files) / MiB,
      anonymous: value(stat, anonymous) / MiB,
    };
  }

  /** Processes of the group that were killed because it had no more memory. */
  killed(): number {
    return value(this.#read(this.#controller.events), 'oom_kill');
  }

  /** Its processes must have ended. */
  remove(): void {
    try {
      rmdirSync(this.#group);
    } catch {
      console.error(`could not remove the control group ${this.#group}`);
    }
  }

  #read(file: string): string {
    return readFileSync(join(this.#group, file), 'utf8');
  }
}

/** Of lines `name value`. */
function value(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
}
