import { Argument, Command } from 'commander';
import { configurationText } from '../clients/configuration.ts';
import { CLIENT_KINDS, type ClientConfiguration } from '../clients/facts.ts';
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
      output.text(configurationText(configuration));
    });
}
