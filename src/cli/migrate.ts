import { Command } from 'commander';
import type { Session } from './session.ts';

export function migrateCommand(session: Session): Command {
  const { output } = session;
  return new Command('migrate')
    .description(
      'move the state of one machine into a database that several gateways share, or back; no gateway may run on it',
    )
    .requiredOption('--to <place>', 'postgres://…, or sqlite: the data directory')
    .option('--json', 'print JSON')
    .action(async (options: { to: string; json?: boolean }) => {
      const { config } = await session.config();
      const { migrateState } = await import('../server/migrate.ts');
      const done = await migrateState(config, options.to);
      if (options.json === true) return output.json(done);
      output.line(
        `${done.to} has what ${done.from} had: ${done.aliases} aliases for ${done.registries} registries, ${done.users} users, ${done.certificates} certificates`,
      );
      if (done.aside !== null) output.line(`what was there before is in ${done.aside}`);
      output.line(
        options.to === 'sqlite'
          ? 'take database, secretFile and cluster out of the configuration, then: gateway serve'
          : 'set database to that URL in the configuration, beside secretFile, then: gateway serve; what is left here is marked, and not served by mistake',
      );
    });
}
