/** Of a lock file, what is looked at here. */
export interface Lock {
  readonly packages: Record<string, { gypfile?: boolean; hasInstallScript?: boolean; [key: string]: unknown }>;
}

/**
 * Packages that bring their native part ready made, and a `binding.gyp` beside it. npm 10 and 11 take that file for an order to compile,
 * unless the *lock file* says `gypfile: false`: they look for the package's own `gypfile: false` only where there is no lock file,
 * and leave it out of the lock file at each `npm install`.
 */
const READY_MADE = ['better-sqlite3'] as const;

/** The ready-made packages that `npm ci` would compile; empty where the lock file is right. */
export function wouldCompile(lock: Lock): string[] {
  return READY_MADE.filter((name) => lock.packages[`node_modules/${name}`]?.gypfile !== false);
}

/** The lock file with `gypfile: false` where it belongs. */
export function withReadyMade(lock: Lock): Lock {
  const packages = { ...lock.packages };
  for (const name of READY_MADE) {
    const entry = packages[`node_modules/${name}`];
    if (entry !== undefined) packages[`node_modules/${name}`] = { ...entry, gypfile: false };
  }
  return { ...lock, packages };
}
