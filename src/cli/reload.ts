import { Command } from 'commander';
import type { ReloadReport } from '../admin/contract.ts';
import type { Session } from './session.ts';

export function reloadCommand(session: Session): Command {
  const { output } = session;
  return new Command('reload')
    .description('have the running gateway read its configuration again, as SIGHUP does')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const report = (await session.act('reload', {})) as ReloadReport;
      if (options.json === true) return output.json(report);
      const { changed, restart, warnings } = report;
      if (changed.length + restart.length === 0) output.line('nothing has changed');
      for (const { key, from, to } of changed) output.step('changed', `${key}: ${from} → ${to}`);
      for (const { key, from, to } of restart) output.step('restart', `${key}: ${from} → ${to} needs a restart`);
      for (const warning of warnings) output.note(warning);
    });
}
