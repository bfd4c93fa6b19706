import { Command } from 'commander';
import type { Origin } from '../config/load.ts';
import type { SettingText } from '../config/show.ts';
import { didYouMean } from '../kit/did-you-mean.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Cell } from './output.ts';
import type { Session } from './session.ts';

/** A row of `config show --json`. */
interface ShownSetting extends SettingText {
  readonly origin: Origin;
  /** What the gateway that runs works with; null where none runs. */
  readonly running: string | null;
}

export function configCommands(session: Session): Command {
  const group = new Command('config').description('the configuration as it is read');

  group
    .command('show')
    .description('show every key with its value and where that comes from; secrets are hidden')
    .argument('[key...]', 'these alone: domain, listen, cache.maxSize')
    .option('--json', 'print JSON')
    .action((keys: string[], options: { json?: boolean }) => show(session, keys, options.json === true));

  return group;
}

async function show(session: Session, keys: readonly string[], json: boolean): Promise<void> {
  const { output } = session;
  const { config, source, originOf } = await session.config();
  const { settingTexts } = await import('../config/show.ts');
  const texts = settingTexts(config);
  const running = await runningSettings(session);
  const settings = texts
    .filter(({ key }) => keys.length === 0 || keys.some((one) => isWithin(key, one, texts)))
    .map(({ key, value }): ShownSetting => ({ key, value, origin: originOf(key), running: running?.get(key) ?? null }));
  if (json) return output.json({ file: source.file, running: running !== null, settings });
  // The log's own default is another one on a terminal.
  const differs = ({ key, value, running: now, origin }: ShownSetting) =>
    now !== null && now !== value && !(key === 'log.format' && origin.kind === 'default');
  output.table(
    ['key', 'value', 'from'],
    settings.map((setting) => [
      setting.key,
      differs(setting) ? { text: setting.value, tone: 'warn' } : setting.value,
      originCell(setting.origin),
    ]),
  );
  if (source.file === null) output.note('no configuration file was read');
  const others = settings.filter(differs);
  if (others.length === 0) return;
  output.note('the gateway that runs works with something else:');
  for (const { key, running: now } of others) output.note(`  ${key}: ${now}`);
  output.note(
    'it may have been started elsewhere, or take what is written since by: gateway reload, or at its next start',
  );
}

/** @throws {OperatorError} usage, where there is no such key */
function isWithin(key: string, given: string, all: readonly SettingText[]): boolean {
  const matches = (one: string) => one === given || one.startsWith(`${given}.`);
  if (matches(key)) return true;
  if (all.some((one) => matches(one.key))) return false;
  const near = didYouMean(
    given,
    all.flatMap((one) => [one.key, one.key.split('.')[0] ?? one.key]),
  );
  throw new OperatorError('INPUT_INVALID', `there is no key ${given}`, {
    next: near === undefined ? 'gateway config show lists them' : `did you mean ${near}?`,
  });
}

function originCell(origin: Origin): Cell {
  switch (origin.kind) {
    case 'default':
      return { text: 'default', tone: 'dim' };
    case 'file':
      return `${origin.file}:${origin.line}`;
    case 'environment':
      return origin.variable;
    case 'flag':
      return origin.flag;
  }
}

/** Null where nothing runs, or where what runs is too old to say. */
async function runningSettings(session: Session): Promise<ReadonlyMap<string, string> | null> {
  try {
    const told = (await session.ask('config.show', {})) as SettingText[] | null;
    return told === null ? null : new Map(told.map(({ key, value }) => [key, value]));
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    session.output.note(`what the gateway that runs works with is not known: ${error.message}`);
    return null;
  }
}
