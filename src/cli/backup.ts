import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Command } from 'commander';
import type { BackupMade } from '../admin/contract.ts';
import { PrivateDraft } from '../kit/durable-files.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { formatBytes } from '../kit/text.ts';
import type { Session } from './session.ts';

interface Options {
  readonly force?: boolean;
  readonly json?: boolean;
}

export function backupCommand(session: Session): Command {
  return new Command('backup')
    .description(
      'write what must not be lost into one file, while the gateway runs: table, users, certificates and all keys; not the cache',
    )
    .argument('<file>', 'the file, made with mode 0600; - for standard output')
    .option('--force', 'replace a file that is there')
    .option('--json', 'print JSON')
    .action((file: string, options: Options) => backup(session, file, options));
}

async function backup(session: Session, file: string, options: Options): Promise<void> {
  const { output } = session;
  if (file === '-' && options.json === true) {
    throw new OperatorError('INPUT_INVALID', 'standard output has the archive, and no room for JSON', {
      next: 'give a file, or leave --json out',
    });
  }
  const sink = file === '-' ? standardOutput(session) : await intoFile(file, options.force === true);
  try {
    let written = Promise.resolve();
    const made = (await session.act(
      'backup',
      {},
      ({ data }) => {
        written = written.then(() => sink.write(Buffer.from(String(data), 'base64')));
        // Met where it is awaited.
        written.catch(() => {});
      },
      () => written,
    )) as BackupMade;
    await written;
    await sink.keep();
    if (options.json === true) return output.json({ file, ...made });
    const names = made.members.map(({ name }) => name).join(', ');
    const line = `${file === '-' ? 'wrote' : `${file}:`} ${formatBytes(made.bytes)} of ${made.dataDir} (${names}); it holds private keys`;
    if (file === '-') output.note(line);
    else output.line(line);
  } catch (error) {
    await sink.drop();
    throw error;
  }
}

/** Where the archive goes. */
interface Sink {
  write(bytes: Uint8Array): Promise<void>;
  keep(): Promise<void>;
  drop(): Promise<void>;
}

function standardOutput({ output }: Session): Sink {
  if (output.isTerminal) {
    throw new OperatorError('INPUT_INVALID', 'standard output is a terminal, and an archive is no text', {
      next: 'give a file, or lead it on: gateway backup - | ssh backups "cat > gateway.tar"',
    });
  }
  return { write: (bytes) => output.bytes(bytes), keep: async () => {}, drop: async () => {} };
}

/** @throws {OperatorError} `BACKUP_EXISTS`, `BACKUP_UNWRITABLE` */
async function intoFile(file: string, force: boolean): Promise<Sink> {
  const found = await stat(file).catch(() => null);
  if (found !== null && !found.isFile()) {
    throw new OperatorError('BACKUP_UNWRITABLE', `${file} is there and is no file`, {
      next: 'give the name of a file; - for standard output',
    });
  }
  if (found !== null && !force) throw exists(file);
  const explained = async <T>(step: () => Promise<T>): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw exists(file);
      throw new OperatorError('BACKUP_UNWRITABLE', `${file} cannot be written: ${(error as Error).message}`, {
        cause: error,
      });
    }
  };
  const draft = await explained(() => PrivateDraft.begin(file));
  return {
    write: (bytes) => explained(() => draft.write(bytes)),
    keep: () => explained(() => draft.keep({ replace: force })),
    drop: () => draft.drop(),
  };
}

function exists(file: string): OperatorError {
  return new OperatorError('BACKUP_EXISTS', `${file} is there already, and was left as it is`);
}

export function restoreCommand(session: Session): Command {
  const { output } = session;
  return new Command('restore')
    .description('put a backup in place, with no gateway running there; makes the data directory where there is none')
    .argument('<file>', 'what gateway backup wrote, or a backup-….db of before an update; - for standard input')
    .option('--force', 'replace what is in the data directory, which is kept aside')
    .option('--json', 'print JSON')
    .action(async (file: string, options: Options) => {
      const { config, originOf } = await session.config();
      const source = file === '-' ? (session.stdin as AsyncIterable<Uint8Array>) : await reading(file);
      if (config.database !== null) {
        throw new OperatorError('RESTORE_REFUSED', 'the state of this gateway is in a database that several share', {
          next: 'restore it into a data directory, with database left out (GATEWAY_DATABASE=), then: gateway migrate --to postgres://…; or bring that database back by its own means',
        });
      }
      const { restoreState } = await import('../server/restore.ts');
      const { signal } = session;
      const restored = await restoreState({ dataDir: config.dataDir, source, force: options.force === true, signal });
      if (options.json === true) return output.json(restored);
      const from = restored.created === null ? '' : `, as version ${restored.version} had it on ${restored.created}`;
      output.line(`${restored.dataDir} has ${restored.files.join(', ')}${from}`);
      if (restored.aside !== null) output.line(`what was there before is in ${restored.aside}`);
      // Of an option the next command knows nothing.
      const directory = originOf('dataDir').kind === 'flag' ? ` --data-dir ${restored.dataDir}` : '';
      output.line(`start the gateway: gateway serve${directory}`);
    });
}

/** @throws {OperatorError} usage, where it cannot be read */
async function reading(file: string): Promise<AsyncIterable<Uint8Array>> {
  const stream = createReadStream(file);
  try {
    await new Promise((resolve, reject) => stream.once('open', resolve).once('error', reject));
    return stream;
  } catch (error) {
    throw new OperatorError('FILE_UNREADABLE', `${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}
