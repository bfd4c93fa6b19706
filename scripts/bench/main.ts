import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { attended } from './attended.ts';
import { machine } from './load.ts';
import { prepare } from './peers.ts';
import { CLIENT_CORE, keepAwake } from './process.ts';
import { printTable, type Result, summarise } from './report.ts';
import { SCENARIOS } from './scenarios.ts';

/** `npm run bench [-- --only 1,4] [--runs 5] [--seconds 3] [--json]` */
const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
// This program is a client, too.
execFileSync('taskset', ['-apc', CLIENT_CORE, String(process.pid)], { stdio: 'ignore' });

const only = values.only?.split(',');
const options = { runs: Number(values.runs), seconds: Number(values.seconds) };
const dir = mkdtempSync(join(tmpdir(), 'gateway-bench-'));
const results: Result[] = [];
await attended(
  async () => {
    const bench = prepare(dir);
    keepAwake();
    for (const [number, scenario] of Object.entries(SCENARIOS)) {
      if (only !== undefined && !only.includes(number)) continue;
      console.error(`scenario ${number} …`);
      const found = await scenario({ ...bench, dir: join(dir, number) }, options);
      results.push(...found);
      if (!values.json) printTable(found);
    }
    report();
  },
  () => rmSync(dir, { recursive: true, force: true }),
);

function report(): void {
  if (values.json) {
    const rows = results.map((result) => ({ ...result, rows: summarise(result) }));
    console.log(JSON.stringify({ machine: machine(), ...options, results: rows }, null, 2));
  } else console.log(`\n${machine()}; medians of ${options.runs} runs, (least … most); ratios are medians of pairs`);
}
