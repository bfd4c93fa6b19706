import { Command } from 'commander';
import type { Session } from './session.ts';

export function serveCommand(session: Session): Command {
  return new Command('serve').description('run the gateway in the foreground').action(async () => {
    const { output, signal } = session;
    const { config, warnings } = await session.config({ quiet: true });
    await session.becomeServing?.({ config, warnings });
    // It goes on in this program.
    if (signal.aborted) return;
    const { serve } = await import('./serving.ts');
    await serve({ config, warnings }, { output, signal });
  });
}
