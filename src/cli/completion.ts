import { Argument, Command, type Option } from 'commander';
import type { AliasRow, RegistryRow } from '../admin/contract.ts';
import type { Session } from './session.ts';
import { SHELL_SCRIPTS, type Shell } from './shell-scripts.ts';

/** What shells call at each TAB; no person types it. */
export const COMPLETE = '__complete';

/** How long the gateway may take to tell its names, ms: whoever has pressed TAB waits for it. */
const PATIENCE = 1_000;

/** What can stand in a place of the command line. `files`: the shell knows them better. */
type Completion = { readonly files: true } | { readonly words: readonly Candidate[] };

interface Candidate {
  readonly word: string;
  readonly about?: string;
}

/** Names that a gateway has. */
type Names = 'aliases' | 'registries' | 'hosts' | 'users' | 'warm';

/** Operands and options whose values are names of the gateway: by the command's path and the operand's position, or the option. */
const NAMES: Readonly<Record<string, Names>> = {
  'alias show 0': 'aliases',
  'alias rm 0': 'aliases',
  'alias add 1': 'registries',
  'registry show 0': 'registries',
  'registry set 0': 'registries',
  'registry rm 0': 'registries',
  'cert show 0': 'hosts',
  'cert renew 0': 'hosts',
  'cert explain 0': 'hosts',
  'cert export 0': 'hosts',
  'cert rm 0': 'hosts',
  'user rm 0': 'users',
  'user rotate 0': 'users',
  'cache prune --registry': 'registries',
  'warm rm 0': 'warm',
};

/** Placeholders of operands and options that are paths. */
const PATHS = /^(file|dir|certificate|key|config|archive)$/;

export function completionCommands(session: Session, program: Command): Command[] {
  const { output } = session;
  const shells = Object.keys(SHELL_SCRIPTS);
  return [
    new Command('completion')
      .description('print what makes a shell complete commands, options and the names that the gateway has')
      .addArgument(new Argument('<shell>', 'which shell').choices(shells))
      .action((shell: Shell) => output.text(SHELL_SCRIPTS[shell])),
    new Command(COMPLETE)
      .addArgument(new Argument('<shell>').choices(shells))
      .argument('[words...]', 'the command line after the name of the program, up to the cursor')
      .action(async (shell: Shell, words: string[]) => {
        const typed = shell === 'bash' ? bashWords(words[0] ?? '') : words;
        output.text(answer(shell, await complete(session, program, typed), typed.at(-1) ?? ''));
      }),
  ];
}

/** The first line says what follows; then a candidate a line, where the shell shows it with what it is about. */
function answer(shell: Shell, found: Completion, current: string): string {
  if ('files' in found) return 'files\n';
  const words = found.words.filter(({ word }) => word.startsWith(current));
  if (shell !== 'bash') return ['words', ...words.map(({ word, about = '' }) => `${word}\t${about}`), ''].join('\n');
  // For bash a word ends at : and =, and it replaces what comes after the last of them alone.
  const kept = current.length - (/[^:=]*$/.exec(current)?.[0].length ?? 0);
  return ['words', ...words.map(({ word }) => word.slice(kept)), ''].join('\n');
}

/** Splits as bash does; the last word is the one that is being typed. */
function bashWords(line: string): string[] {
  const words = line.match(/(?:[^\s'"\\]|\\.|'[^']*'?|"[^"]*"?)+/g) ?? [];
  const plain = words.map((word) => word.replace(/\\(.)|['"]/g, '$1'));
  return (/\s$/.test(line) ? [...plain, ''] : plain).slice(1);
}

/** Where a command line stands, after all words but the last. */
interface Position {
  readonly command: Command;
  /** Operands of that command so far. */
  readonly operands: number;
  /** The option whose value comes next. */
  readonly option: Option | undefined;
  /** After `--`. */
  readonly ended: boolean;
}

async function complete(session: Session, program: Command, words: readonly string[]): Promise<Completion> {
  const current = words.at(-1) ?? '';
  const { command, operands, option, ended } = positionAfter(program, words.slice(0, -1));
  if (option !== undefined) return valuesFor(session, command, option, '');
  if (!ended && current.startsWith('-')) {
    const [, name = '', sign = ''] = /^([^=]*)(=?)/.exec(current) ?? [];
    const given = sign === '' ? undefined : optionOf(command, name);
    if (given !== undefined) return valuesFor(session, command, given, `${name}=`);
    const seen = new Map([...visibleOptions(program), ...visibleOptions(command)].map((one) => [one.long, one]));
    return { words: [...seen.values()].map(({ long, description }) => ({ word: long ?? '', about: description })) };
  }
  const subcommands = command.createHelp().visibleCommands(command);
  if (subcommands.length > 0 && operands === 0) {
    return { words: subcommands.map((sub) => ({ word: sub.name(), about: sub.description() })) };
  }
  const all = command.registeredArguments;
  const last = all.at(-1);
  const index = operands < all.length ? operands : last?.variadic === true ? all.length - 1 : -1;
  const argument = all[index];
  if (argument === undefined) return { words: [] };
  if (argument.argChoices !== undefined) return { words: argument.argChoices.map((word) => ({ word })) };
  return namesOr(session, `${pathOf(command)} ${index}`, argument.name());
}

function valuesFor(session: Session, command: Command, option: Option, prefix: string): Promise<Completion> {
  if (option.argChoices !== undefined) {
    return Promise.resolve({ words: option.argChoices.map((word) => ({ word: `${prefix}${word}` })) });
  }
  const placeholder = /[<[]([^\]>.]+)/.exec(option.flags)?.[1] ?? '';
  return namesOr(session, `${pathOf(command)} ${option.long}`, placeholder, prefix);
}

async function namesOr(session: Session, place: string, placeholder: string, prefix = ''): Promise<Completion> {
  const names = NAMES[place];
  if (names !== undefined) {
    const words = await namesOf(session, names);
    return { words: words.map(({ word, ...rest }) => ({ word: `${prefix}${word}`, ...rest })) };
  }
  return PATHS.test(placeholder) ? { files: true } : { words: [] };
}

/** Follows the words through the tree of commands, and takes `--config` and `--data-dir` for the gateway that is asked. */
function positionAfter(program: Command, words: readonly string[]): Position {
  let command = program;
  let operands = 0;
  let option: Option | undefined;
  let ended = false;
  for (const word of words) {
    if (option !== undefined) {
      if (program.options.includes(option)) program.setOptionValue(option.attributeName(), word);
      option = undefined;
    } else if (!ended && word === '--') ended = true;
    else if (!ended && word.startsWith('-')) {
      const [, name = '', value] = /^([^=]*)(?:=(.*))?$/.exec(word) ?? [];
      const found = optionOf(command, name);
      if (found?.required !== true && found?.optional !== true) continue;
      if (value === undefined) option = found;
      else if (program.options.includes(found)) program.setOptionValue(found.attributeName(), value);
    } else {
      const sub = operands > 0 ? undefined : command.commands.find((one) => one.name() === word);
      if (sub === undefined) operands += 1;
      else command = sub;
    }
  }
  return { command, operands, option, ended };
}

function optionOf(command: Command, name: string): Option | undefined {
  for (let at: Command | null = command; at !== null; at = at.parent) {
    const found = at.options.find((option) => option.long === name || option.short === name);
    if (found !== undefined) return found;
  }
  return undefined;
}

const visibleOptions = (command: Command): readonly Option[] => command.createHelp().visibleOptions(command);

/** `alias show`; nothing for the program itself. */
function pathOf(command: Command): string {
  return command.parent === null ? '' : `${pathOf(command.parent)} ${command.name()}`.trim();
}

/** Of a gateway that runs; none where none does, or where it takes too long: a shell has no place for a reason. */
async function namesOf(session: Session, names: Names): Promise<readonly Candidate[]> {
  const late = new Promise<null>((resolve) => setTimeout(resolve, PATIENCE, null).unref());
  const ask = async <T>(operation: string): Promise<readonly T[]> =>
    ((await Promise.race([session.ask(operation, {}, { quiet: true }), late])) as readonly T[] | null) ?? [];
  try {
    switch (names) {
      case 'aliases':
        return (await ask<AliasRow>('alias.ls')).map(({ name, registry }) => ({ word: name, about: registry }));
      case 'hosts':
        return (await ask<{ host: string; state: string }>('cert.ls')).map(({ host, state }) => ({
          word: host,
          about: state,
        }));
      case 'registries':
        return (await ask<RegistryRow>('registry.ls')).map(({ host }) => ({ word: host }));
      case 'users':
        return (await ask<{ name: string }>('user.ls')).map(({ name }) => ({ word: name }));
      case 'warm':
        return (await ask<{ image: string }>('warm.ls')).map(({ image }) => ({ word: image }));
    }
  } catch {
    return [];
  }
}
