import { fileURLToPath } from 'node:url';
import { checkFloors } from './lib/floors.ts';

const { files, seen, problems } = await checkFloors(fileURLToPath(new URL('..', import.meta.url)));
for (const problem of problems) console.error(problem);
if (problems.length > 0) {
  console.error(`floors: ${problems.length} problem(s) in ${files} files; the rules are in .dependency-cruiser.cjs`);
  process.exitCode = 1;
} else {
  console.log(`floors: ${seen} of ${files} files read, every import leads down`);
}
