import { Command } from 'commander';
import type { UserRow } from '../admin/contract.ts';
import type { Session } from './session.ts';

export function userCommands(session: Session): Command {
  const { output } = session;
  const group = new Command('user').description("clients' credentials");

  group
    .command('add')
    .description('make a user with a generated token, which is printed once')
    .argument('<name>')
    .action(async (name: string) => {
      const { token } = (await session.act('user.add', { name }, (step) => output.note(step.message))) as {
        token: string;
      };
      output.line(token);
    });

  group
    .command('ls')
    .description('list the users')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('user.ls', {})) as UserRow[];
      if (options.json === true) return output.json(rows);
      output.table(
        ['name', 'created'],
        rows.map((row) => [row.name, row.createdAt]),
      );
    });

  group
    .command('rm')
    .description('remove a user; its token stops working at once')
    .argument('<name>')
    .action(async (name: string) => {
      await session.act('user.rm', { name }, (step) => output.note(step.message));
      output.line(`removed ${name}; its token does not work any more`);
    });

  return group;
}
