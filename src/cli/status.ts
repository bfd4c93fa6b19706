import { Command } from 'commander';
import type { StatusReport } from '../admin/contract.ts';
import { formatSpan } from '../kit/time.ts';
import { formatBytes } from './output.ts';
import type { Exit, Session } from './session.ts';

export function statusCommand(session: Session, exit: Exit): Command {
  const { output } = session;
  return new Command('status')
    .description('what is running')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const status = (await session.act('status', {})) as StatusReport;
      if (!status.running) exit.code = 1;
      if (options.json === true) return output.json(status);
      const certificates = Object.entries(status.certificates)
        .filter(([, count]) => count > 0)
        .map(([state, count]) => `${count} ${state}`)
        .join(', ');
      output.facts([
        [
          'gateway',
          status.running
            ? {
                text: `runs as process ${status.pid}, for ${formatSpan((status.uptimeSeconds ?? 0) * 1000)}`,
                tone: 'good',
              }
            : { text: `nothing runs on ${status.dataDir}`, tone: 'warn' },
        ],
        ['version', status.version],
        ['domain', status.domain],
        ['data', status.dataDir],
        ...(status.running
          ? ([
              ['https', status.addresses.https],
              ['http', status.addresses.http],
              ['metrics', status.addresses.metrics ?? 'off'],
              ['workers', String(status.workers)],
            ] as [string, string | string[]][])
          : []),
        ['tls', status.tls],
        ['aliases', `${status.aliases} for ${status.registries} registries`],
        ['certs', certificates === '' ? 'none' : certificates],
        [
          'cache',
          `${formatBytes(status.cache.bytes)} of ${formatBytes(status.cache.maxBytes)} in ${status.cache.blobs} blobs` +
            (status.cache.hitRatio === null ? '' : `, ${(status.cache.hitRatio * 100).toFixed(1)} % hits`),
        ],
        ...(status.traffic === null
          ? []
          : Object.entries(status.traffic).map(
              ([name, value]) =>
                [words(name), /bytes/i.test(name) ? formatBytes(value) : String(value)] as [string, string],
            )),
      ]);
      for (const warning of status.warnings) output.note(warning);
    });
}

/** `bytesSent` as a person writes it. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
