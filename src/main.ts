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

// A service manager that has a configuration read again while the gateway is starting must not end it: by default this signal does. The
// configuration is read later than this.
if (process.argv.includes('serve')) process.on('SIGHUP', () => {});

// Compiled code is kept beside the packages: whoever can write there could change the program as well. Where that fails, nothing is lost.
const cache = decodeURIComponent(
  new URL(
    import.meta.url.endsWith('.ts') ? '../node_modules/.cache/gateway' : '../../node_modules/.cache/gateway',
    import.meta.url,
  ).pathname,
);

void import('node:module')
  .then((node) => node.enableCompileCache(cache))
  .then(() => import('./cli/run.ts'))
  .then((cli) => cli.main());

export {};
