import { Argument, Command } from 'commander';
import { CLIENT_KINDS, type ClientConfiguration } from '../admin/contract.ts';
import type { Session } from './session.ts';

export function clientCommand(session: Session): Command {
  const { output } = session;
  return new Command('client')
    .description("print a client's configuration for this gateway, ready to paste")
    .addArgument(new Argument('<client>', 'which client').choices([...CLIENT_KINDS]))
    .option('--json', 'print JSON')
    .action(async (client: string, options: { json?: boolean }) => {
      const configuration = (await session.act('client', { client })) as ClientConfiguration;
      if (options.json === true) return output.json(configuration);
      configuration.files.forEach((file, i) => {
        if (i > 0) output.line();
        output.line(`# ---- ${file.path}`);
        output.text(file.content);
      });
      if (configuration.notes.length > 0) output.line();
      for (const note of configuration.notes) for (const line of note.split('\n')) output.line(`# ${line}`.trimEnd());
    });
}
