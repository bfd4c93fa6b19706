// After `npm install`: puts back into package-lock.json what npm leaves out and `npm ci` needs in order to compile nothing.
import { readFileSync, writeFileSync } from 'node:fs';
import { type Lock, withReadyMade, wouldCompile } from './lib/lock.ts';

const path = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8')) as Lock;
const missing = wouldCompile(lock);
if (missing.length > 0) {
  writeFileSync(path, `${JSON.stringify(withReadyMade(lock), null, 2)}\n`);
  console.log(`package-lock.json: put back gypfile: false for ${missing.join(', ')}`);
}
