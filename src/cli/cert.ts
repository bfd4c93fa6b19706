import { Command } from 'commander';
import { shortType } from '../certs/issuer.ts';
import type { CertificateInfo, Explanation, RemovedImport } from '../certs/service.ts';
import { cutDisplay, displayWidth } from '../kit/text.ts';
import { type Cell, formatWhen, type Output, type Tone } from './output.ts';
import { readGiven, type Session } from './session.ts';

const TONES: Record<string, Tone> = {
  valid: 'good',
  'on demand': 'dim',
  pending: 'warn',
  failed: 'bad',
  expired: 'bad',
  none: 'dim',
};

/** A certificate's state as a cell. */
export function stateCell(state: string): Cell {
  return { text: state, tone: TONES[state] ?? 'plain' };
}

/** A wildcard stands for the hosts that are served under it, which have no rows of their own; none are before there is a certificate. */
export function hostCell({ host, covers, notAfter }: Pick<CertificateInfo, 'host' | 'covers' | 'notAfter'>): string {
  return covers === undefined || notAfter === null ? host : `${host} (${hosts(covers)})`;
}

function hosts(count: number): string {
  return `${count} host${count === 1 ? '' : 's'}`;
}

/** Between two columns. */
const GAP = 2;
/** What is left of the widest cells that can be cut: an issuer's beginning, a host's first labels. */
const LEAST = 10;

/** Rows as wide as the terminal at most: hosts and issuers, the widest, are cut, the widest column first. Elsewhere nothing is cut. */
export function fitted(
  rows: readonly (readonly Cell[])[],
  { isTerminal, columns }: Pick<Output, 'isTerminal' | 'columns'>,
): readonly (readonly Cell[])[] {
  if (!isTerminal) return rows;
  const text = (cell: Cell | undefined) => (cell === undefined ? '' : typeof cell === 'string' ? cell : cell.text);
  const titles = ['host', 'state', 'issuer', 'expires', 'next attempt', 'last error'];
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => displayWidth(text(row[i])))));
  const cuttable = [0, 2, 5];
  let over = widths.reduce((sum, width) => sum + width + GAP, -GAP) - columns;
  while (over > 0) {
    const widest = cuttable.reduce((one, other) => ((widths[other] ?? 0) > (widths[one] ?? 0) ? other : one));
    if ((widths[widest] ?? 0) <= LEAST) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
    over -= 1;
  }
  return rows.map((row) =>
    row.map((cell, i) => {
      const width = widths[i] ?? 0;
      return cuttable.includes(i) && typeof cell === 'string' ? cutDisplay(cell, width) : cell;
    }),
  );
}

export function certCommands(session: Session): Command {
  const { output } = session;
  const group = new Command('cert').description('certificates');

  group
    .command('ls')
    .description('list the certificates')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const rows = (await session.act('cert.ls', {})) as CertificateInfo[];
      if (options.json === true) return output.json(rows);
      output.table(
        ['host', 'state', 'issuer', 'expires', 'next attempt', 'last error'],
        fitted(
          rows.map((row) => [
            hostCell(row),
            stateCell(row.state),
            row.issuer ?? '-',
            formatWhen(row.notAfter),
            formatWhen(row.nextAttempt),
            row.lastError === null ? '-' : shortType(row.lastError.type),
          ]),
          output,
        ),
      );
      const failing = rows.find(({ lastError }) => lastError !== null);
      if (failing !== undefined && output.isTerminal)
        output.note(`what happened: gateway cert explain ${failing.host}`);
    });

  group
    .command('show')
    .description("show one host's certificate")
    .argument('<host>')
    .option('--json', 'print JSON')
    .action(async (host: string, options: { json?: boolean }) => {
      const row = (await session.act('cert.show', { host })) as CertificateInfo;
      if (options.json === true) return output.json(row);
      output.facts([
        ['host', row.host],
        ['state', stateCell(row.state)],
        ...(row.covers === undefined ? [] : [['covers', `${hosts(row.covers)} of this gateway`] as const]),
        ...(row.coveredBy === undefined ? [] : [['covered by', row.coveredBy] as const]),
        ['issuer', row.issuer ?? '-'],
        ['serial', row.serial ?? '-'],
        ['not before', row.notBefore ?? '-'],
        ['not after', row.notAfter === null ? '-' : `${row.notAfter} (${formatWhen(row.notAfter)})`],
        [
          'last error',
          row.lastError === null
            ? '-'
            : [`${row.lastError.type} (${formatWhen(row.lastError.at)})`, row.lastError.detail],
        ],
        ...(row.refused ?? []).map(({ issuer, type, detail, at }): [string, string[]] => [
          'refused before',
          [`by ${issuer}: ${shortType(type)} (${formatWhen(at)})`, detail],
        ]),
        ['next attempt', row.nextAttempt === null ? '-' : `${row.nextAttempt} (${formatWhen(row.nextAttempt)})`],
      ]);
    });

  group
    .command('renew')
    .description('obtain new certificates now')
    .argument('<host...>')
    .option('--json', 'print JSON')
    .action(async (hosts: string[], options: { json?: boolean }) => {
      const rows = (await session.act('cert.renew', { hosts })) as CertificateInfo[];
      if (options.json === true) return output.json(rows);
      for (const row of rows)
        output.line(`${row.host} has a certificate of ${row.issuer ?? '-'} until ${row.notAfter ?? '-'}`);
    });

  group
    .command('explain')
    .description("tell one host's story: what was tried, what the CA said, what to do, when the next attempt is")
    .argument('<host>')
    .option('--json', 'print JSON')
    .action(async (host: string, options: { json?: boolean }) => {
      const explanation = (await session.act('cert.explain', { host })) as Explanation;
      if (options.json === true) return output.json(explanation);
      output.line(explanation.summary);
      for (const { at, event } of explanation.events) output.line(`  ${at}  ${event}`);
      for (const advice of explanation.advice) output.line(`- ${advice}`);
      if (explanation.nextAttempt !== null)
        output.line(`next attempt: ${explanation.nextAttempt} (${formatWhen(explanation.nextAttempt)})`);
      output.line(explanation.next);
    });

  group
    .command('import')
    .description('take a certificate of your own into use; the hosts it names need no order')
    .argument('<certificate>', 'PEM file with the certificate, then its chain')
    .argument('<key>', 'PEM file with the private key')
    .option(
      '--force',
      'take it though the issuer at the end of its chain is known neither by the file nor by this machine',
    )
    .option('--json', 'print JSON')
    .action(async (certificate: string, key: string, options: { force?: boolean; json?: boolean }) => {
      const imported = (await session.act('cert.import', {
        certificate: await readGiven(certificate),
        key: await readGiven(key),
        force: options.force === true,
      })) as { names: string[]; notAfter: string };
      if (options.json === true) return output.json(imported);
      output.line(`in use for ${imported.names.join(', ')} until ${imported.notAfter}`);
    });

  group
    .command('rm')
    .description(
      'take an imported certificate out; its hosts are given back to the CA, and it is shown until each has its own',
    )
    .argument('<host>', 'a host that it covers')
    .option('--now', 'show it to nobody from now on and forget its key, which others may have')
    .option('--json', 'print JSON')
    .action(async (host: string, options: { now?: boolean; json?: boolean }) => {
      const removed = (await session.act('cert.rm', { host, now: options.now === true })) as RemovedImport;
      if (options.json === true) return output.json(removed);
      output.line(`the imported certificate for ${removed.names.join(', ')} is removed`);
      const hosts =
        removed.hosts.length === 0
          ? 'no host was'
          : `${removed.hosts.join(', ')} ${removed.hosts.length === 1 ? 'is' : 'are'}`;
      output.line(`${hosts} given back to the CA: gateway cert ls`);
      if (removed.bare.length > 0) {
        output.line(`clients of ${removed.bare.join(', ')} are refused until the CA has issued a new one`);
      } else if (removed.stays) {
        output.line('it is shown until each of them has its own, after a restart, too');
        output.line(`if others have its key: gateway cert rm ${host} --now, and have its CA revoke it`);
      }
    });

  group
    .command('export')
    .description("print one host's certificate chain and private key as PEM")
    .argument('<host>')
    .action(async (host: string) => {
      const pem = (await session.act('cert.export', { host })) as { certificate: string; key: string };
      output.text(`${pem.certificate.trimEnd()}\n${pem.key.trimEnd()}\n`);
    });

  return group;
}
