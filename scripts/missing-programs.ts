// Prints the Debian packages of the programs that the tests use and this machine lacks, one a line.
import { findProgram, PROGRAMS, type Program } from '../test/support/program-list.ts';

const names = Object.keys(PROGRAMS) as Program[];
const packages = names.filter((name) => findProgram(name) === null).map((name) => PROGRAMS[name]);
for (const name of new Set(packages)) console.log(name);
