import { availableParallelism, constants } from 'node:os';
import { Command, CommanderError, type Option } from 'commander';
import { didYouMean } from '../kit/did-you-mean.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { ignoreDebuggerSignal, version } from '../kit/process.ts';
import { aliasCommands } from './alias.ts';
import { backupCommand, restoreCommand } from './backup.ts';
import { cacheCommands } from './cache.ts';
import { certCommands } from './cert.ts';
import { clientCommand } from './client.ts';
import { COMPLETE, completionCommands } from './completion.ts';
import { configCommands } from './config.ts';
import { dashboardCommand } from './dashboard.ts';
import { doctorCommand } from './doctor.ts';
import { drillCommand } from './drill.ts';
import { EXAMPLES } from './examples.ts';
import { importCommands } from './import.ts';
import { migrateCommand } from './migrate.ts';
import { Output, type Stream } from './output.ts';
import { registryCommands } from './registry.ts';
import { relayCommand } from './relay.ts';
import { reloadCommand } from './reload.ts';
import { rewriteCommand } from './rewrite.ts';
import { saveCommand } from './save.ts';
import { secretCommands } from './secret.ts';
import { serveCommand } from './serve.ts';
import { createSession, type Exit, type Session } from './session.ts';
import { statusCommand } from './status.ts';
import { tagCommands } from './tag.ts';
import { userCommands } from './user.ts';
import { warmCommand } from './warm.ts';

export interface RunOptions {
  /** Without `node` and the script. */
  readonly argv: readonly string[];
  readonly stdout: Stream;
  readonly stderr: Stream;
  readonly stdin: NodeJS.ReadableStream;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Aborted when the person presses Ctrl-C, or a service manager sends SIGTERM. */
  readonly signal: AbortSignal;
}

/** Options of every command, before it or after it. */
interface GlobalOptions {
  readonly config?: string;
  readonly dataDir?: string;
}

/** Runs the command line of this process, which ends with the command's exit code. */
export async function main(): Promise<void> {
  const controller = new AbortController();
  // The first signal lets the command end its work; the second one ends the process at once.
  const stop = (signal: 'SIGINT' | 'SIGTERM') => {
    if (controller.signal.aborted) process.exit(128 + constants.signals[signal]);
    controller.abort(new OperatorError('STOPPED', 'stopped', {}));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  ignoreDebuggerSignal();
  process.exitCode = await run({
    argv: process.argv.slice(2),
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    cwd: process.cwd(),
    signal: controller.signal,
  });
  process.off('SIGINT', stop);
  process.off('SIGTERM', stop);
}

/** Runs one command. Resolves to its exit code: 0 done, 1 failed, 2 bad usage. Never throws. */
export async function run(options: RunOptions): Promise<number> {
  const output = new Output({ ...options, json: asksForJson(options.argv) });
  const session = createSession({
    output,
    signal: options.signal,
    env: options.env,
    stdin: options.stdin,
    load: async () => {
      const { loadConfig } = await import('../config/load.ts');
      return loadConfig({
        env: options.env,
        cwd: options.cwd,
        cores: availableParallelism(),
        terminal: options.stdout.isTTY === true,
        file: program.opts<GlobalOptions>().config,
        dataDir: program.opts<GlobalOptions>().dataDir,
      });
    },
  });
  const exit = { code: 0 };
  const program = buildProgram(session, exit);
  try {
    await program.parseAsync(options.argv, { from: 'user' });
    return exit.code;
  } catch (error) {
    output.progressEnd();
    // Commander has printed what was wrong with the command line, or the help that was asked for.
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      output.errorJson(new OperatorError('INPUT_INVALID', error.message.replace(/^error: /, '')));
      return 2;
    }
    if (options.signal.aborted) {
      output.error(new OperatorError('STOPPED', 'stopped before it was done'));
      return 1;
    }
    output.error(error instanceof OperatorError ? error : unexpected(error, options.env));
    return error instanceof OperatorError && error.usage ? 2 : 1;
  }
}

/** What comes after `--` is no option. */
function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return argv.slice(0, end === -1 ? argv.length : end).includes('--json');
}

/** A fault of this program: one line, and the stack only for whoever asks. */
function unexpected(error: unknown, env: NodeJS.ProcessEnv): OperatorError {
  const detail =
    error instanceof Error ? (env.GATEWAY_LOG_LEVEL === 'debug' ? error.stack : error.message) : String(error);
  return new OperatorError('INTERNAL', `unexpected failure: ${detail}`, {
    next: 'GATEWAY_LOG_LEVEL=debug shows where; please report it',
    cause: error,
  });
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
    aliasCommands(session, exit),
    registryCommands(session, exit),
    certCommands(session),
    clientCommand(session),
    rewriteCommand(session, exit),
    doctorCommand(session, exit),
    statusCommand(session, exit),
    dashboardCommand(session),
    reloadCommand(session),
    configCommands(session),
    cacheCommands(session, exit),
    tagCommands(session),
    warmCommand(session, exit),
    drillCommand(session, exit),
    saveCommand(session, exit),
    relayCommand(session, exit),
    userCommands(session),
    backupCommand(session),
    restoreCommand(session),
    importCommands(session, exit),
    migrateCommand(session),
    secretCommands(session),
  ]) {
    program.addCommand(command);
  }
  for (const command of completionCommands(session, program))
    program.addCommand(command, { hidden: command.name() === COMPLETE });
  configureAll(program, session);
  return program;
}

/** For a command and all below it: errors in our own form, no exit from inside commander, the global options shown in every help. */
function configureAll(command: Command, session: Session): void {
  const examples = EXAMPLES[pathBelow(command)];
  if (examples !== undefined)
    command.addHelpText('after', `\nExamples:\n${examples.map((line) => `  ${line}`).join('\n')}`);
  command
    .exitOverride()
    .showSuggestionAfterError()
    .allowExcessArguments(false)
    .configureHelp({ showGlobalOptions: true, visibleGlobalOptions: globalOptions })
    .configureOutput({
      writeOut: (text) => session.output.text(text),
      writeErr: (text) => session.output.errorText(text),
      outputError: (text, write) => {
        const [what = '', ...rest] = [...text.trim().split('\n'), ...nearestChoice(text)];
        const next = [...rest, `see: ${path(command)} --help`].map((line) => `  ${line}\n`).join('');
        write(`gateway: ${what.replace(/^error: /, '')}\n${next}`);
      },
    });
  for (const sub of command.commands) configureAll(sub, session);
}

/** Of the program itself: those of a command between, as `warm` is for `warm ls`, do not go with what is below it. */
function globalOptions(command: Command): Option[] {
  let program = command;
  while (program.parent !== null) program = program.parent;
  return program === command
    ? []
    : program
        .createHelp()
        .visibleOptions(program)
        .filter(({ long }) => long !== '--help');
}

/** Commander names what may be chosen, and not which of it was meant. */
function nearestChoice(text: string): string[] {
  const [, given = '', choices = ''] = /'([^']*)' is invalid.*Allowed choices are (.*)\./.exec(text) ?? [];
  const near = didYouMean(given, choices.split(', '));
  return near === undefined || near === '' ? [] : [`(Did you mean ${near}?)`];
}

/** `alias add`; nothing for the program itself. */
function pathBelow(command: Command): string {
  return path(command).split(' ').slice(1).join(' ');
}

function path(command: Command): string {
  return command.parent === null ? command.name() : `${path(command.parent)} ${command.name()}`;
}
