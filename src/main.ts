#!/usr/bin/env node
// The first lines that run. Nothing is imported before it is known that this Node can run the rest, in syntax that old ones can parse.
const MAJOR = 22;
const MINOR = 19;
const found = process.versions.node.split('.');

if (Number(found[0]) < MAJOR || (Number(found[0]) === MAJOR && Number(found[1]) < MINOR)) {
  process.stderr.write(
    `gateway: Node.js ${MAJOR}.${MINOR} or newer is needed and this is ${process.versions.node}; get one from https://nodejs.org\n`,
  );
  process.exit(1);
}

// Compiled code is kept beside the packages: whoever can write there could change the program as well. Where that fails, nothing is lost.
const cache = decodeURIComponent(
  new URL(
    import.meta.url.endsWith('.ts') ? '../node_modules/.cache/gateway' : '../../node_modules/.cache/gateway',
    import.meta.url,
  ).pathname,
);

/**
 * What holds the memory of a serving process small, for it and its workers. Neither can be changed once a process runs, so `serve`
 * begins as a new image of the same process (execve). A young generation of 1 MiB: what a pull allocates dies at once, and buffers of
 * 64 KiB that hang on it as well. glibc: few arenas, freed memory goes back to the system, whole buffers at once.
 */
const FLAGS = ['--max-semi-space-size=1'];
const MALLOC = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '65536', MALLOC_TRIM_THRESHOLD_: '131072' };

const { argv, env, execArgv, execPath, execve } = process;
const begun = FLAGS.every((flag) => execArgv.includes(flag));
if (argv.includes('serve') && !begun && execve !== undefined && process.platform !== 'win32') {
  // With it set from the first moment on, not even the first file has to be stripped of its types: that loads a compiler.
  const settings = { NODE_COMPILE_CACHE: cache, ...MALLOC };
  execve.call(process, execPath, [execPath, ...execArgv, ...FLAGS, ...argv.slice(1)], { ...settings, ...env });
}

void import('node:module')
  .then((node) => node.enableCompileCache(cache))
  .then(() => import('./cli/run.ts'))
  .then((cli) => cli.main());

export {};
