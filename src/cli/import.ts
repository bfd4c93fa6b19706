import { Command } from 'commander';
import type { LayersImported, RegistryRow } from '../admin/contract.ts';
import type { MovedIn, StorageFound } from '../admin/import/moved-in.ts';
import type { Additions, LeftOut } from '../aliases/additions.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { formatBytes } from '../kit/text.ts';
import { type Exit, readGiven, type Session } from './session.ts';

/** Options of every kind. */
interface Options {
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly layers?: boolean;
  readonly link?: boolean;
  readonly registry?: string;
  readonly root?: string;
}

/** Damaged blobs, and the like, that are named one by one; all are in the JSON. */
const SHOWN = 10;

export function importCommands(session: Session, exit: Exit): Command {
  const group = new Command('import').description('move in from another proxy: its table, and the layers that it has');
  const kind = (name: string, argument: string, what: string, described: string) =>
    group
      .command(name)
      .description(described)
      .argument(argument, what)
      .option('--dry-run', 'show what would change, and change nothing')
      .option('--json', 'print JSON');

  const withLayers = (command: Command) =>
    command
      .option('--no-layers', 'the table alone')
      .option(
        '--link',
        'hard links in place of copies, where the file system can: only if the old program never runs again',
      )
      .option(
        '--root <dir>',
        'where the storage of the registry lies on this machine, if not where its configuration says',
      );

  withLayers(
    kind(
      'registry',
      '<config>',
      'its config.yml',
      'a registry (distribution) that is a pull-through cache, with the layers it has',
    ),
  )
    .option('--registry <host>', 'whose images it has, if its configuration does not say')
    .action(async (file: string, options: Options) => {
      const { readRegistryConfig } = await import('../admin/import/registry-config.ts');
      await moveIn(session, exit, options, readRegistryConfig(await readGiven(file), file, session.env));
    });
  withLayers(
    kind(
      'crproxy',
      '<dir>',
      'the folder with its compose file and scripts',
      'a deployment of crproxy, with what is beside it',
    ),
  ).action(async (directory: string, options: Options) => {
    const { readCrproxy } = await import('../admin/import/crproxy.ts');
    await moveIn(session, exit, options, await readCrproxy(directory, session.env));
  });
  kind(
    'nginx',
    '<file>',
    'its nginx.conf, or one of the files that it includes',
    'an nginx in front of registries',
  ).action(async (file: string, options: Options) => {
    const { readNginx } = await import('../admin/import/nginx.ts');
    await moveIn(session, exit, { ...options, layers: false }, await readNginx(file));
  });
  return group;
}

/** Shows the difference, makes it, takes the layers over, and tells what a person has to do. */
async function moveIn(session: Session, exit: Exit, options: Options, found: MovedIn): Promise<void> {
  const { output } = session;
  const { dryRun = false, json = false, layers: wantsLayers = true } = options;
  const rows = [...found.rows];
  const given = options.registry;
  if (given !== undefined) named(rows, given);
  const table = async (take: boolean) => (await session.act('import.table', { rows, take })) as Additions;
  const planned = await table(false);
  const leftOut = [...found.leftOut, ...planned.leftOut];
  if (!json) {
    for (const sentence of planned.differences) output.line(`+ ${sentence}`);
    if (planned.present > 0) output.line(`  ${planned.present} of its rows are in the table already`);
    for (const sentence of found.notes) output.line(`  ${sentence}`);
  }
  if (!dryRun && planned.differences.length > 0) await table(true);

  const layers: LayersImported[] = [];
  for (const storage of wantsLayers ? found.storages : []) {
    const whose = await whoseStorage(session, storage, given);
    if (whose === undefined) {
      leftOut.push({
        what: `${storage.from}: whose images its storage has is not known`,
        next: 'say it: gateway import registry CONFIG.yml --registry HOST',
      });
      continue;
    }
    const root = options.root ?? storage.root;
    if (dryRun) {
      if (!json)
        output.line(
          `+ the layers in ${root}, as those of ${whose ?? 'the registries that its repositories are named by'}`,
        );
      continue;
    }
    try {
      const done = await takeLayers(session, {
        root,
        registry: whose,
        closed: storage.hasCredentials,
        link: options.link === true,
      });
      layers.push(done);
      leftOut.push(...remaining(done));
      if (!json) report(session, root, done);
    } catch (error) {
      // Told with the rest: what the table got it has.
      if (!(error instanceof OperatorError) || session.signal.aborted) throw error;
      leftOut.push({ what: error.message, next: error.next });
    }
  }

  if (leftOut.length > 0) exit.code = 1;
  if (json) {
    output.json({
      dryRun,
      added: planned.differences,
      present: planned.present,
      certificates: planned.certificates,
      notes: found.notes,
      layers,
      leftOut,
    });
    return;
  }
  for (const { what, next } of leftOut) {
    output.line(`! ${what}`);
    output.line(`  ${next}`);
  }
  if (dryRun) output.line('nothing was changed: that was --dry-run');
  else if (planned.differences.length + layers.length === 0) output.line('nothing was changed');
  if (leftOut.length > 0) output.note(`${leftOut.length} left for a person to do, marked with !`);
}

/** A registry that the command line names has what the file says of the one that it stands for. */
function named(rows: MovedIn['rows'][number][], host: string): void {
  const [only] = rows;
  if (rows.length === 1 && only !== undefined) rows[0] = { ...only, host };
  else if (rows.length === 0) rows.push({ host, aliases: [] });
}

/** Null where the repositories' names say it; undefined where nobody knows. */
async function whoseStorage(
  session: Session,
  { remote }: StorageFound,
  given: string | undefined,
): Promise<string | null | undefined> {
  if (given !== undefined) return given;
  if (remote === null || !URL.canParse(remote)) return undefined;
  const { host, origin } = new URL(remote);
  const rows = (await session.act('registry.ls', {})) as RegistryRow[];
  const fetched = rows.filter(({ endpoints }) => endpoints.includes(origin));
  const [one] = fetched;
  if (one !== undefined && fetched.length === 1) return one.host;
  const { isNameOfARegistry } = await import('../admin/import/registry-config.ts');
  // A proxy for all registries, whose names begin with the registry's.
  return isNameOfARegistry(host) ? host : null;
}

async function takeLayers(
  session: Session,
  input: { root: string; registry: string | null; closed: boolean; link: boolean },
): Promise<LayersImported> {
  const { output } = session;
  try {
    return (await session.act('import.layers', input, ({ data }) => {
      const { done, total, bytes } = data as { done: number; total: number; bytes: number };
      output.progress(`${done} of ${total} repositories, ${formatBytes(bytes)} taken over`, done, total);
    })) as LayersImported;
  } finally {
    output.progressEnd();
  }
}

function report({ output }: Session, root: string, done: LayersImported): void {
  const { repositories, manifests, tags, blobs, bytes, linked, held } = done;
  output.line(
    `${root}: ${repositories} repositories, ${manifests} manifests and ${tags} tags; ` +
      `${blobs} layers taken over (${formatBytes(bytes)}${linked > 0 ? `, ${linked} as links` : ''}), ${held} were here`,
  );
}

/** What was not taken over, and what to do about it. */
function remaining(done: LayersImported): LeftOut[] {
  const { damaged, damagedList, unknownRegistries, denied, notUnderstood, left } = done;
  const some = (names: readonly string[]) => names.slice(0, SHOWN).join(', ') + (names.length > SHOWN ? ' …' : '');
  const lines: LeftOut[] = [];
  if (left > 0) {
    lines.push({
      what: `no more room in the cache: ${left} repositories were not taken over, or not whole`,
      next: 'raise cache.maxSize, or make room on the disk, and import again: what is here is not taken twice',
    });
  }
  if (damaged > 0) {
    const names = damagedList.map(({ digest, repository, reason }) => `${repository}@${digest} (${reason})`);
    lines.push({
      what: `${damaged} damaged and skipped: ${some(names)}`,
      next: 'they are fetched from their registry when they are asked for',
    });
  }
  for (const host of unknownRegistries) {
    lines.push({
      what: `${host} is not in the table, so nothing of it was taken over`,
      next: `gateway registry set ${host}, and import again`,
    });
  }
  if (denied.length > 0) {
    lines.push({
      what: `refused by their registry since, so what it gave before was not taken: ${some(denied)}`,
      next: 'pull them: the registry decides',
    });
  }
  if (notUnderstood.length > 0) {
    lines.push({
      what: `no names of images, or no manifests of a known type: ${some(notUnderstood)}`,
      next: 'see whether anything depends on them',
    });
  }
  return lines;
}
