import { Command } from 'commander';
import type { AliasAdded, AliasDetails, AliasRow } from '../admin/contract.ts';
import type { ImportResult } from '../aliases/import-export.ts';
import type { PresetsDifference } from '../aliases/presets.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { stateCell } from './cert.ts';
import { formatWhen } from './output.ts';
import { collect, consent, type Exit, readGiven, readInput, type Session } from './session.ts';
import { conclude } from './verdicts.ts';

interface AddOptions {
  readonly endpoint?: string[];
  readonly cert: boolean;
  readonly check: boolean;
  readonly json?: boolean;
}

interface ImportOptions {
  readonly presets?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export function aliasCommands(session: Session, exit: Exit): Command {
  const { output } = session;
  const group = new Command('alias').description('names that stand for registries');

  group
    .command('add')
    .description('add an alias, and its registry if it is new; issue its certificate and take it into use')
    .argument('<name>', 'a name under the domain (k8s-gcr) or a full host name (hub.corp.example)')
    .argument('<registry>', 'the registry it stands for (k8s.gcr.io, localhost:5000)')
    .option('--endpoint <url>', 'where the registry is fetched from; several are tried in order', collect)
    .option('--no-cert', 'order no certificate until `gateway cert renew`')
    .option('--no-check', 'do not try whether the registry answers')
    .option('--json', 'print JSON')
    .action(async (name: string, registry: string, options: AddOptions) => {
      const added = (await session.act('alias.add', {
        name,
        registry,
        endpoints: options.endpoint ?? [],
        certificate: options.cert,
        check: options.check,
      })) as AliasAdded;
      const { host, registry: source } = added.alias;
      if (options.json === true) output.json(added);
      else {
        const when = added.running ? '' : ' when the gateway runs';
        output.line(`${host ?? 'the gateway'} serves ${source}${when}; its images are pulled as ${added.address}/NAME`);
      }
      conclude(output, exit, source, added.check);
    });

  group
    .command('ls')
    .description('list the aliases')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('alias.ls', {})) as AliasRow[];
      if (options.json === true) return output.json(rows);
      output.table(
        ['name', 'host', 'registry', 'certificate', 'expires'],
        rows.map((row) => [
          row.name,
          row.host ?? '-',
          row.registry,
          stateCell(row.certificate.state),
          formatWhen(row.certificate.notAfter),
        ]),
      );
    });

  group
    .command('show')
    .description('show one alias')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (name: string, options: { json?: boolean }) => {
      const row = (await session.act('alias.show', { name })) as AliasDetails;
      if (options.json === true) return output.json(row);
      const { certificate, registry } = row.details;
      output.facts([
        ['name', row.name],
        ['host', row.host ?? 'none: pulled by prefix'],
        ['registry', row.registry],
        ['endpoints', registry.endpoints],
        ['certificate', stateCell(row.certificate.state)],
        ...(certificate === null
          ? []
          : ([
              ['issuer', certificate.issuer ?? '-'],
              ['expires', `${certificate.notAfter ?? '-'} (${formatWhen(certificate.notAfter)})`],
              ...(certificate.lastError === null
                ? []
                : [['last error', `${certificate.lastError.type}: ${certificate.lastError.detail}`]]),
              ...(certificate.nextAttempt === null ? [] : [['next attempt', formatWhen(certificate.nextAttempt)]]),
            ] as [string, string][])),
      ]);
    });

  group
    .command('rm')
    .description('remove an alias; its certificate is kept for a later add')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (name: string, options: { json?: boolean }) => {
      const row = (await session.act('alias.rm', { name })) as AliasRow;
      if (options.json === true) return output.json(row);
      output.line(
        `removed ${row.name}${row.host === null ? '' : ` (${row.host})`}; the registry ${row.registry} stays in the table`,
      );
    });

  group
    .command('import')
    .description('add registries and aliases from a YAML file, in the format of the files in aliases/')
    .argument('[file]', 'the file, or - for standard input')
    .option('--presets', 'the registries and aliases that come with this version: show what the table has not, and ask')
    .option('--yes', 'with --presets: do not ask')
    .option('--json', 'print JSON')
    .action(async (file: string | undefined, options: ImportOptions) => {
      if ((file === undefined) !== (options.presets === true)) {
        throw new OperatorError('INPUT_INVALID', 'give either a file or --presets', {
          next: 'gateway alias import table.yaml, or gateway alias import --presets',
        });
      }
      if (file === undefined) return importPresets(session, options);
      const yaml = file === '-' ? await readInput(session) : await readGiven(file);
      const done = (await session.act('alias.import', {
        yaml,
        file: file === '-' ? 'standard input' : file,
      })) as ImportResult;
      if (options.json === true) return output.json(done);
      output.line(`registries: ${done.registriesAdded} added, ${done.registriesChanged} changed`);
      output.line(`aliases: ${done.aliasesAdded} added, ${done.aliasesChanged} changed`);
    });

  group
    .command('export')
    .description('print the whole table as YAML, without credentials')
    .action(async () => {
      output.text(((await session.act('alias.export', {})) as { yaml: string }).yaml);
    });

  return group;
}

/** Shows what the presets would change, and changes it where the person says so. */
async function importPresets(session: Session, { yes, json }: ImportOptions): Promise<void> {
  const { output } = session;
  const found = (await session.act('alias.presets', {})) as PresetsDifference;
  const show = (line: string) => (json === true ? output.note(line) : output.line(line));
  for (const sentence of found.differences) show(`+ ${sentence}`);
  for (const sentence of found.kept) show(`  ${sentence}`);
  if (found.differences.length === 0) {
    return json === true ? output.json(found) : output.line('the table has all that comes with this version');
  }
  await consent(session, 'Take this into the table?', yes === true);
  const done = (await session.act('alias.presets', { take: true })) as PresetsDifference;
  return json === true ? output.json(done) : output.line(`taken into the table: ${done.differences.length}`);
}
