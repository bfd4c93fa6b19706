// Counts what vitest reported, names what was skipped, and ends with a line of its own: `N passed, N failed`.
// Usage: test-summary.ts (--STEP EXIT_CODE REPORT.json)…
import { existsSync, readFileSync } from 'node:fs';
import { summarize, type VitestReport } from './lib/summary.ts';

const steps = [];
for (let index = 2; index + 2 < process.argv.length; index += 3) {
  const [step, exitCode, path] = process.argv.slice(index, index + 3) as [string, string, string];
  const report = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as VitestReport) : null;
  steps.push({ name: step.replace(/^--/, ''), exitCode: Number(exitCode), report });
}
const { lines, failed } = summarize(steps);
for (const line of lines) console.log(line);
process.exitCode = failed > 0 ? 1 : 0;
