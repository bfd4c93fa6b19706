import { Command } from 'commander';
import type { Check, DoctorReport } from '../admin/contract.ts';
import type { Output, Tone } from './output.ts';
import type { Exit, Session } from './session.ts';

const TONES: Record<Check['level'], Tone> = { ok: 'good', warn: 'warn', fail: 'bad' };
/** A gateway looks at everything in less time, ms; one that takes longer hangs. */
const HUNG = 12_000;
/** Names of folded checks that a line carries; `--json` has them all. */
const SHOWN_NAMES = 6;
/** Of so many each is told by itself. */
const FEW = 3;

export function doctorCommand(session: Session, exit: Exit): Command {
  const { output } = session;
  return new Command('doctor')
    .description('check machine, network, DNS, ports, certificates and registries; causes before symptoms')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const report = await examine(session);
      if (options.json === true) output.json(report);
      else print(output, report);
      if (report.counts.fail > 0) exit.code = 1;
    });
}

/** By the gateway or on its stores; where neither can be had, of all times, what this machine alone tells. */
async function examine(session: Session): Promise<DoctorReport> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error('the gateway takes the question and does not answer')), HUNG);
  try {
    return (await session.act('doctor', {}, undefined, undefined, late.signal)) as DoctorReport;
  } catch (error) {
    session.signal.throwIfAborted();
    const { config } = await session.config();
    const { examineMachine, report } = await import('../admin/doctor/doctor.ts');
    return report(await examineMachine(config, error, session.signal));
  } finally {
    clearTimeout(timer);
  }
}

function print(output: Output, { checks, counts }: DoctorReport): void {
  const many = alike(checks);
  for (const check of checks) {
    const { level, name, message, next, explains = [] } = check;
    const group = many.get(kindOf(check));
    if (group !== undefined && level === 'ok') {
      if (group[0] === check)
        output.line(`${output.paint('good', 'ok  ')} ${kindOf(check)}: ${group.map(subjectOf).join(', ')}`);
      continue;
    }
    output.line(`${output.paint(TONES[level], level.padEnd(4))} ${name}: ${message}`);
    if (explains.length > 0) {
      const more = explains.length > SHOWN_NAMES ? ` and ${explains.length - SHOWN_NAMES} more` : '';
      output.line(`       this is why: ${explains.slice(0, SHOWN_NAMES).join(', ')}${more}`);
    }
    if (next !== undefined) output.line(`       → ${next}`);
  }
  output.line(`${counts.ok} ok, ${counts.warn} warnings, ${counts.fail} failures${whatFirst(checks)}`);
}

/** What is well of more hosts than a few takes one line; registries each keep theirs, which says how long they took. */
function alike(checks: readonly Check[]): ReadonlyMap<string, readonly Check[]> {
  const well = checks.filter((check) => check.level === 'ok' && kindOf(check) !== 'registry');
  const groups = Map.groupBy(well, kindOf);
  return new Map([...groups].filter(([, group]) => group.length > FEW));
}

const kindOf = ({ name }: Pick<Check, 'name'>): string => name.split(' ')[0] ?? name;
const subjectOf = ({ name }: Pick<Check, 'name'>): string => name.slice(kindOf({ name }).length + 1);

/** The list is longer than a terminal; what is to be done first stands at its top. */
function whatFirst([first]: readonly Check[]): string {
  return first === undefined || first.level === 'ok' ? '' : `; first: ${first.name}`;
}
