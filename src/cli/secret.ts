import { randomBytes } from 'node:crypto';
import { Command } from 'commander';
import type { SecretsRotated } from '../admin/contract.ts';
import type { Session } from './session.ts';

/** Bytes of a key, as `secretFile` has them. */
const KEY_BYTES = 32;

export function secretCommands(session: Session): Command {
  const { output } = session;
  const group = new Command('secret').description('the keys that encrypt in a database that several gateways share');

  group
    .command('new')
    .description('print a new key, a line of secretFile')
    .action(() => output.line(randomBytes(KEY_BYTES).toString('base64')));

  group
    .command('rotate')
    .description('encrypt all that is in the database under the first key of secretFile')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const done = (await session.act('secret.rotate', {})) as SecretsRotated;
      if (options.json === true) return output.json(done);
      output.line(`encrypted under the first key: ${done.sealed} values anew, ${done.current} were already`);
      output.line(
        'the other keys can be taken out of each secretFile, once every gateway was started with the first one',
      );
    });

  return group;
}
