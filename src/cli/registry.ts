import { Command } from 'commander';
import type { RegistryDetails, RegistryRow, RegistrySet } from '../admin/contract.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { formatWhen } from './output.ts';
import { collect, type Exit, readGiven, readSecret, type Session } from './session.ts';
import { leftOf } from './status.ts';
import { conclude } from './verdicts.ts';

interface SetOptions {
  endpoint?: string[];
  proxy?: string;
  credential?: string;
  for?: string[];
  username?: string;
  passwordStdin?: boolean;
  public?: boolean;
  realm?: string[];
  ca?: string;
  check: boolean;
  json?: boolean;
}

/** As the list of registries has them in a column. */
function credentialsCell({ credentials, named }: RegistryRow): string {
  const some = named.length === 0 ? [] : [`${named.length} by repository`];
  return [...(credentials ? ['yes'] : []), ...some].join(', ') || '-';
}

export function registryCommands(session: Session, exit: Exit): Command {
  const { output } = session;
  const group = new Command('registry').description('registries and where their content is fetched');

  group
    .command('ls')
    .description('list the registries')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('registry.ls', {})) as RegistryRow[];
      if (options.json === true) return output.json(rows);
      output.table(
        ['registry', 'endpoints', 'proxy', 'credentials', 'public'],
        rows.map((row) => [
          row.host,
          row.endpoints.join(' '),
          row.proxy ?? '-',
          credentialsCell(row),
          row.public ? 'yes' : '-',
        ]),
      );
    });

  group
    .command('show')
    .description('show one registry and the state of its endpoints')
    .argument('<host>')
    .option('--json', 'print JSON')
    .action(async (host: string, options: { json?: boolean }) => {
      const row = (await session.act('registry.show', { host })) as RegistryDetails;
      if (options.json === true) return output.json(row);
      const health = new Map(row.health.map((entry) => [entry.url, entry]));
      output.facts([
        ['registry', row.host],
        [
          'endpoints',
          row.endpoints.map((url) => {
            const state = health.get(url);
            if (state === undefined) return url;
            if (state.state !== 'closed') {
              const reason = state.lastError ?? 'no reason is known';
              return `${url} (cannot be connected to: ${reason}; tried again with the next pull)`;
            }
            const failing = state.failing.map(
              ({ repository, reason, at }) => `${repository}: ${reason}, ${formatWhen(at)}`,
            );
            if (failing.length > 0) return `${url} (in use; failed lately for ${failing.join('; ')})`;
            return `${url} (in use${state.lastError === null ? '' : `; last error: ${state.lastError}`})`;
          }),
        ],
        [
          'allows',
          row.budgets.length === 0
            ? 'no limit is known'
            : row.budgets.map((budget) => {
                const whom = budget.account ?? 'this address';
                return `${leftOf(budget).text} (${whom}, ${budget.endpoint}; more ${formatWhen(budget.refillsAt)})`;
              }),
        ],
        ['proxy', row.proxy ?? 'none of its own'],
        ['credentials', row.credentials ? 'yes' : 'none'],
        ...(row.named.length === 0
          ? []
          : [
              [
                'for repositories',
                row.named.map((one) => `${one.for.join(', ')}: ${one.name} (user ${one.username})`),
              ] as const,
            ]),
        ['public', row.public ? 'yes' : 'no'],
        ['realms', row.realms.length === 0 ? 'none beside its own domain' : row.realms],
        [
          'authorities',
          row.ca.length === 0
            ? 'those that this machine trusts'
            : row.ca.map(({ subject, notAfter }) => `${subject}, until ${notAfter}`),
        ],
        ['aliases', row.aliases],
      ]);
    });

  group
    .command('set')
    .description('create a registry or change it; what is not given stays as it is')
    .argument('<host>')
    .option(
      '--endpoint <url>',
      'where it is fetched from; several are tried in order and replace the old ones',
      collect,
    )
    .option('--proxy <url>', 'http://, https://, socks5:// or socks5h://; "none" removes it')
    .option(
      '--credential <name>',
      'credentials for some of its repositories, beside its own: what --for and --username are about',
    )
    .option(
      '--for <pattern>',
      'repositories that they are for, as team/*; the most exact pattern decides; several replace the old ones',
      collect,
    )
    .option('--username <name>', 'credentials for the registry, or for --credential; "" removes them')
    .option('--password-stdin', 'read the password from standard input')
    .option('--public', 'what its credentials open is served to anonymous clients too')
    .option('--no-public', 'what its credentials open is served to logged-in clients only')
    .option(
      '--realm <host>',
      'may be sent its credentials though it is outside its domain; several replace the old ones, "none" removes them',
      collect,
    )
    .option(
      '--ca <file>',
      'PEM of an authority that signs its certificates, besides those that this machine trusts; "none" removes it',
    )
    .option('--no-check', 'do not try whether it answers')
    .option('--json', 'print JSON')
    .action(async (host: string, options: SetOptions) => {
      const { credential: name } = options;
      if (options.for !== undefined && name === undefined) {
        throw new OperatorError('CREDENTIALS_INVALID', '--for says which repositories a --credential is for', {
          next: `gateway registry set ${host} --credential NAME ${options.for.map((one) => `--for '${one}'`).join(' ')} --username U --password-stdin`,
        });
      }
      if (name !== undefined && options.for === undefined && options.username === undefined) {
        throw new OperatorError('CREDENTIALS_INVALID', `what is to change of the credentials ${name} is not given`, {
          next: `give --for PATTERN, --username U --password-stdin, or --username "" to remove them`,
        });
      }
      if (name !== undefined && options.for !== undefined && options.username === '') {
        throw new OperatorError(
          'CREDENTIALS_INVALID',
          '--username "" removes the credentials, and --for says what they are for',
          {
            next: 'give one of both',
          },
        );
      }
      if (options.passwordStdin === true && options.username === undefined) {
        throw new OperatorError('USERNAME_MISSING', '--password-stdin needs --username', {
          next: `echo "$PASSWORD" | gateway registry set ${host} --username NAME --password-stdin`,
        });
      }
      if (options.username !== undefined && options.username !== '' && options.passwordStdin !== true) {
        throw new OperatorError('PASSWORD_MISSING', '--username needs --password-stdin', {
          next: `echo "$PASSWORD" | gateway registry set ${host} --username ${options.username} --password-stdin`,
        });
      }
      const password = options.passwordStdin === true ? await readSecret(session) : undefined;
      const login =
        options.username === undefined
          ? {}
          : { credentials: options.username === '' ? null : { username: options.username, password } };
      const row = (await session.act('registry.set', {
        host,
        ...(options.endpoint === undefined ? {} : { endpoints: options.endpoint }),
        ...(options.proxy === undefined ? {} : { proxy: options.proxy === 'none' ? null : options.proxy }),
        ...(name === undefined
          ? login
          : { named: { name, ...(options.for === undefined ? {} : { for: options.for }), ...login } }),
        ...(options.public === undefined ? {} : { public: options.public }),
        ...(options.ca === undefined ? {} : { ca: options.ca === 'none' ? null : await readGiven(options.ca) }),
        ...(options.realm === undefined ? {} : { realms: options.realm.filter((one) => one !== 'none') }),
        check: options.check,
      })) as RegistrySet;
      if (options.json === true) output.json(row);
      else output.line(`${row.host} is fetched from ${row.endpoints.join(', ')}`);
      if (options.json !== true && name !== undefined) {
        const named = row.named.find((one) => one.name === name);
        output.line(
          named === undefined
            ? `it has no credentials ${name} any more`
            : `${named.for.join(', ')} ${named.for.length === 1 ? 'is' : 'are'} asked for as ${named.username} (${name})`,
        );
      }
      if (options.json !== true && options.realm !== undefined) {
        output.line(`its credentials may be sent to ${['its own domain', ...row.realms].join(', ')}`);
      }
      conclude(output, exit, row.host, row.check);
    });

  group
    .command('rm')
    .description('remove a registry that no alias stands for')
    .argument('<host>')
    .option('--json', 'print JSON')
    .action(async (host: string, options: { json?: boolean }) => {
      const row = (await session.act('registry.rm', { host })) as RegistryRow;
      if (options.json === true) return output.json(row);
      output.line(`removed ${host}; it is not contacted any more`);
    });

  return group;
}
