import { Command } from 'commander';
import type { Check, DoctorReport } from '../admin/contract.ts';
import type { Tone } from './output.ts';
import type { Exit, Session } from './session.ts';

const TONES: Record<Check['level'], Tone> = { ok: 'good', warn: 'warn', fail: 'bad' };

export function doctorCommand(session: Session, exit: Exit): Command {
  const { output } = session;
  return new Command('doctor')
    .description('check DNS, ports, certificates, registries, disk and clock')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const report = (await session.act('doctor', {}, (step) => {
        const check = step.data as Check | undefined;
        if (options.json === true || check === undefined) return;
        const next = check.next === undefined ? '' : `; ${check.next}`;
        output.line(
          `${output.paint(TONES[check.level], check.level.padEnd(4))} ${check.name}: ${check.message}${next}`,
        );
      })) as DoctorReport;
      if (options.json === true) output.json(report);
      else output.line(`${report.counts.ok} ok, ${report.counts.warn} warnings, ${report.counts.fail} failures`);
      if (report.counts.fail > 0) exit.code = 1;
    });
}
