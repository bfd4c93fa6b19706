import { once } from 'node:events';
import { Command, InvalidArgumentError } from 'commander';
import type { DashboardReport } from '../admin/contract.ts';
import type { Session } from './session.ts';

const MAX_PORT = 65_535;

export function dashboardCommand(session: Session): Command {
  const { output, signal } = session;
  return new Command('dashboard')
    .description("the operator's view of the running gateway, for a browser on this machine; ends with Ctrl-C")
    .option('--port <port>', 'port on 127.0.0.1 (else a free one)', parsePort, 0)
    .action(async ({ port }: { port: number }) => {
      const read = async () => (await session.act('dashboard', {})) as DashboardReport;
      // Whether it runs, and may be asked, is said before anything is served.
      await read();
      // Loaded only where it is needed.
      const { serveDashboard } = await import('../dashboard/server.ts');
      const dashboard = await serveDashboard({ read, port });
      output.line(dashboard.url);
      output.note('open this in a browser on this machine; whoever has it sees what you see. Ctrl-C ends it');
      if (!signal.aborted) await once(signal, 'abort');
      await dashboard.close();
    });
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > MAX_PORT) throw new InvalidArgumentError(`it is no port: 0 to ${MAX_PORT}`);
  return port;
}
