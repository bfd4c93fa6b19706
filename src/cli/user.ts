import { Command } from 'commander';
import type { NewToken, UserInfo } from '../access/users.ts';
import { type Cell, formatWhen } from './output.ts';
import type { Session } from './session.ts';

const EXPIRES = "when it expires: a duration such as 90d or 12h, a date (its first moment, UTC), a time, or 'never'";

export function userCommands(session: Session): Command {
  const { output } = session;
  const group = new Command('user').description("clients' credentials");

  /** The token alone on standard output, so that it can be piped; all else is a note. */
  const make = async (operation: string, input: object, options: { json?: boolean }): Promise<void> => {
    const made = (await session.act(operation, input, (step) => output.note(step.message))) as NewToken;
    if (options.json === true) output.json(made);
    else output.line(made.token);
  };

  group
    .command('add')
    .description('make a user with a generated token, which is printed once')
    .argument('<name>')
    .option('--expires <when>', EXPIRES)
    .option('--json', 'print JSON')
    .action((name: string, options: { expires?: string; json?: boolean }) =>
      make('user.add', { name, expires: options.expires }, options),
    );

  group
    .command('rotate')
    .description('give a user a new token, which is printed once and lives as long as the old one was made for')
    .argument('<name>')
    .option('--grace <duration>', 'how long the old token still works (else it stops at once)')
    .option('--expires <when>', EXPIRES)
    .option('--json', 'print JSON')
    .action((name: string, options: { grace?: string; expires?: string; json?: boolean }) =>
      make('user.rotate', { name, grace: options.grace, expires: options.expires }, options),
    );

  group
    .command('ls')
    .description('list the users')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('user.ls', {})) as UserInfo[];
      if (options.json === true) return output.json(rows);
      output.table(
        ['name', 'state', 'created', 'expires', 'last use'],
        rows.map((row) => [
          row.name,
          stateCell(row),
          row.createdAt.slice(0, 10),
          row.expiresAt === null ? 'never' : formatWhen(row.expiresAt),
          row.lastUsedAt === null ? 'never' : formatWhen(row.lastUsedAt),
        ]),
      );
    });

  group
    .command('rm')
    .description('remove a user; its token stops working at once')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (name: string, options: { json?: boolean }) => {
      const removed = await session.act('user.rm', { name }, (step) => output.note(step.message));
      if (options.json === true) return output.json(removed);
      output.line(`removed ${name}; its token does not work any more`);
    });

  return group;
}

function stateCell({ state, previousUntil }: UserInfo): Cell {
  const text = previousUntil === null ? state : `${state}, old token too`;
  return { text, tone: state === 'valid' ? 'good' : state === 'expiring' ? 'warn' : 'bad' };
}
