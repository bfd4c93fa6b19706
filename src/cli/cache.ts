import { Command } from 'commander';
import type { Exit } from './program.ts';
import type { Session } from './session.ts';

export function cacheCommands(_session: Session, _exit: Exit): Command {
  return new Command('cache').description('what the gateway keeps');
}
