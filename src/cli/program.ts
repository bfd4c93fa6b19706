import { Command } from 'commander';
import { version } from '../kit/version.ts';
import { aliasCommands } from './alias.ts';
import { cacheCommands } from './cache.ts';
import { certCommands } from './cert.ts';
import { clientCommand } from './client.ts';
import { doctorCommand } from './doctor.ts';
import { registryCommands } from './registry.ts';
import { serveCommand } from './serve.ts';
import type { Exit, Session } from './session.ts';
import { statusCommand } from './status.ts';
import { userCommands } from './user.ts';

/** Options of every command, before it or after it. */
export interface GlobalOptions {
  readonly config?: string;
  readonly dataDir?: string;
}

/** The whole command line. Nothing of it runs before `parseAsync`. */
export function buildProgram(session: Session, exit: Exit): Command {
  const program = new Command('gateway')
    .description('An HTTPS gateway to container registries: pull any image through names under your own domain.')
    .version(version(), '-V, --version', 'print the version')
    .option('--config <file>', 'configuration file (else GATEWAY_CONFIG, else gateway.yaml in this directory)')
    .option('--data-dir <dir>', 'data directory (else GATEWAY_DATA_DIR, else dataDir of the configuration)')
    .helpOption('-h, --help', 'print help');
  for (const command of [
    serveCommand(session),
    aliasCommands(session),
    registryCommands(session),
    certCommands(session),
    clientCommand(session),
    doctorCommand(session, exit),
    statusCommand(session),
    cacheCommands(session),
    userCommands(session),
  ]) {
    program.addCommand(command);
  }
  settle(program, session);
  return program;
}

/** Errors in our own form, no exit from inside, options of the program shown with every command's help. */
function settle(command: Command, session: Session): void {
  command
    .exitOverride()
    .showSuggestionAfterError()
    .allowExcessArguments(false)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => session.output.text(text),
      writeErr: (text) => session.output.errorText(text),
      outputError: (text, write) => {
        const [what = '', ...rest] = text.trim().split('\n');
        const next = [...rest, `see: ${path(command)} --help`].map((line) => `  ${line}\n`).join('');
        write(`gateway: ${what.replace(/^error: /, '')}\n${next}`);
      },
    });
  for (const sub of command.commands) settle(sub, session);
}

function path(command: Command): string {
  return command.parent === null ? command.name() : `${path(command.parent)} ${command.name()}`;
}
