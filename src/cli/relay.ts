import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { ClientFacts } from '../clients/facts.ts';
import { upstreamReference } from '../clients/rewrite.ts';
import { type ImageName, parseImageName } from '../images/image-name.ts';
import { type ImageSource, SourceError } from '../images/image-source.ts';
import type { RelayedImage } from '../images/relay.ts';
import { parseAuthorities } from '../kit/authorities.ts';
import { Glob } from '../kit/glob.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { Slots } from '../kit/slots.ts';
import { formatBytes } from '../kit/text.ts';
import { imagesGiven, platformsGiven } from './images.ts';
import { RelayProgress } from './relay-progress.ts';
import { collect, type Exit, readGiven, readSecret, type Session, unavailable } from './session.ts';

interface Options {
  readonly allTags?: boolean;
  readonly tags?: string;
  readonly platform?: readonly string[];
  readonly referrers?: boolean;
  readonly username?: string;
  readonly passwordStdin?: boolean;
  readonly realm?: string[];
  readonly ca?: string;
  readonly plainHttp?: boolean;
  readonly json?: boolean;
}

/** One image to copy. */
interface Job {
  readonly image: ImageName;
  readonly tag: string | null;
}

/** What became of one; what `--json` prints. */
type Outcome = Omit<RelayedImage, 'digest' | 'form'> & {
  readonly digest: string | null;
  readonly form: RelayedImage['form'] | null;
  readonly error: { readonly code: string; readonly message: string; readonly next: string } | null;
};

/** Images at a time; their blobs share what goes at once. */
const IMAGES_AT_ONCE = 3;

export function relayCommand(session: Session, exit: Exit): Command {
  return new Command('relay')
    .description('copy images from this gateway, from its cache or through it, into a registry that takes pushes')
    .argument('<source>', 'an image, or with --all-tags or --tags a repository: quay.io/org/app:1.2')
    .argument('<destination>', 'where to: registry.example/team/app; without a tag, under the tag of the source')
    .addOption(new Option('--all-tags', 'every tag of the repository').conflicts(['tags']))
    .option('--tags <glob>', "the tags that match, where * stands for anything: 'v1.*'")
    .option(
      '--platform <list>',
      'linux/amd64,linux/arm64: these alone; one gives its manifest, several an index of them',
      collect,
    )
    .option('--referrers', 'signatures, attestations and whatever else refers to the image, too')
    .option('--username <name>', 'of the registry that is pushed to; else what docker login or podman login has kept')
    .option('--password-stdin', 'read the password from standard input')
    .option('--realm <host>', 'may be sent the credentials though it is outside the domain of the registry', collect)
    .option('--ca <file>', 'PEM of an authority that signs for the registry, besides those that this machine trusts')
    .option('--plain-http', 'push by HTTP without TLS; to this machine that needs no option')
    .option('--json', 'print JSON')
    .action(async (from: string, to: string, options: Options) => {
      const { output, signal } = session;
      const password = await passwordOf(session, to, options);
      const platforms = platformsGiven(options.platform);
      const ca = options.ca === undefined ? null : await authoritiesIn(options.ca);
      const destination = await readDestination(session, to);
      const image = await readSource(session, from, options);
      if (destination.tag !== null && isMany(options))
        throw usage(`${to} names a tag, and several are copied`, 'leave its tag out');
      const target = await openDestination(session, destination.registry, options, password, ca, destination);
      // Loaded only where it is needed: a gateway that serves pushes nothing.
      const { Relay } = await import('../images/relay.ts');
      const progress = await RelayProgress.begin(output);
      try {
        const outcomes = await session.images('relay', async (source) => {
          const relay = new Relay({ source, target, onBlob: (event) => progress.blob(event) });
          const jobs = isMany(options)
            ? (await tagsOf(source, image, options, signal)).map((tag) => jobFor(image, tag))
            : [{ image, tag: destination.tag ?? image.tag }];
          const slots = new Slots(IMAGES_AT_ONCE);
          const one = async ({ image: each, tag }: Job): Promise<Outcome> => {
            const selection = {
              platforms,
              referrers: options.referrers === true,
            };
            try {
              const where = { repository: destination.repository, tag };
              const done = { ...(await relay.relay(each, where, selection, signal)), error: null };
              if (options.json !== true) tell(session, done);
              return done;
            } catch (error) {
              signal.throwIfAborted();
              const failure = toOperatorError(error);
              if (!isMany(options) && options.json !== true) throw failure;
              return failed(each.text, `${target.registry}/${destination.repository}:${tag}`, failure);
            }
          };
          return await Promise.all(jobs.map((job) => slots.run(() => one(job))));
        });
        progress.end();
        conclude(session, exit, outcomes, options);
      } finally {
        progress.end();
        await target.close();
      }
    });
}

function isMany({ allTags, tags }: Options): boolean {
  return allTags === true || tags !== undefined;
}

async function passwordOf(session: Session, to: string, options: Options): Promise<string | null> {
  const { username, passwordStdin } = options;
  const next = `echo "$PASSWORD" | gateway relay SOURCE ${to} --username ${username ?? 'NAME'} --password-stdin`;
  if (passwordStdin === true && username === undefined)
    throw new OperatorError('USERNAME_MISSING', '--password-stdin needs --username', { next });
  if (username !== undefined && passwordStdin !== true)
    throw new OperatorError('PASSWORD_MISSING', '--username needs --password-stdin', { next });
  return passwordStdin === true ? await readSecret(session) : null;
}

async function authoritiesIn(file: string): Promise<string> {
  const text = await readGiven(file);
  try {
    return parseAuthorities(text);
  } catch (error) {
    throw new OperatorError('CA_INVALID', `${file} ${(error as Error).message}`, { cause: error });
  }
}

interface Destination {
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | null;
}

/** Whether a name has a tag or a digest behind it. */
function hasVersion(name: string): boolean {
  return /[:@]/.test(name.slice(name.lastIndexOf('/') + 1));
}

/** @throws {OperatorError} for what is no name, or this gateway itself */
async function readDestination(session: Session, written: string): Promise<Destination> {
  const { registry, repository, reference, tag } = parseImageName(written);
  if (reference.kind === 'digest')
    throw usage(`${written} has a digest, which is that of what is copied`, 'name a tag, or none');
  const facts = (await session.act('client.facts', {})) as ClientFacts;
  if (upstreamReference(written, facts) !== null)
    throw new OperatorError('PUSH_UNSUPPORTED', `${registry} is this gateway itself, which only gives images`);
  return { registry, repository, tag: hasVersion(written) ? tag : null };
}

async function readSource(session: Session, written: string, options: Options): Promise<ImageName> {
  if (isMany(options) && hasVersion(written))
    throw usage(`${written} is one image, and tags of a repository are to be copied`, 'leave its tag out');
  const { images, unread } = await imagesGiven(session, [written]);
  const [image] = images;
  if (image === undefined) throw usage(unread[0]?.why ?? `${written} is no image`, 'name one that a registry has');
  return image;
}

async function tagsOf(source: ImageSource, image: ImageName, options: Options, signal: AbortSignal): Promise<string[]> {
  const found = new Set<string>();
  const glob = new Glob(options.tags ?? '*');
  try {
    for await (const page of source.tags(image, signal)) for (const tag of page) if (glob.matches(tag)) found.add(tag);
  } catch (error) {
    signal.throwIfAborted();
    throw toOperatorError(error);
  }
  if (found.size > 0) return [...found];
  const which = options.tags === undefined ? '' : ` that matches ${options.tags}`;
  throw new OperatorError('IMAGE_UNAVAILABLE', `${image.registry}/${image.repository} has no tag${which}`);
}

function jobFor({ registry, repository }: ImageName, tag: string): Job {
  return { image: parseImageName(`${registry}/${repository}:${tag}`), tag };
}

/** Logs in as whoever was named, else as the files of this machine's clients say. */
async function openDestination(
  session: Session,
  registry: string,
  { username, realm = [], plainHttp = false }: Options,
  password: string | null,
  ca: string | null,
  { repository }: Destination,
) {
  const { env, output, signal } = session;
  const [{ openTarget }, { FileJournal }, { keptLogin }, { config }] = await Promise.all([
    import('../upstream/push/open-target.ts'),
    import('../upstream/push/upload-journal.ts'),
    import('../clients/logins/auth-files.ts'),
    session.config(),
  ]);
  const home = env.HOME ?? homedir();
  const state = env.XDG_STATE_HOME || join(home, '.local', 'state');
  const credentials =
    username !== undefined && password !== null
      ? { username, password }
      : await keptLogin({ registry, repository }, { env, home, uid: process.getuid?.(), signal });
  return await openTarget(
    { registry, credentials, realms: realm, ca, plainHttp },
    {
      config: config.upstream,
      pseudonym: 'registry-gateway-relay',
      environment: env,
      journal: new FileJournal(join(state, 'registry-gateway', 'relay')),
      tell: (sentence) => output.note(sentence),
    },
    signal,
  );
}

function tell({ output }: Session, done: Outcome): void {
  output.line(`${done.source} is at ${done.destination} as ${done.digest}: ${figures(done)}`);
  if (done.form === 'one platform')
    output.note(`${done.destination} is the manifest of the one platform, without its index`);
  if (done.form === 'reduced index')
    output.note(
      `${done.destination} is an index of the chosen platforms alone, so that its digest is another than that of ${done.source}`,
    );
  if (done.warning !== null) output.note(`${done.source}: ${done.warning}`);
}

function figures({ pushed, pushedBytes, mounted, skipped, manifests }: Outcome): string {
  if (pushed + mounted + manifests === 0) return 'all of it was there';
  const parts = [
    pushed === 0 ? '' : `${pushed} blobs pushed (${formatBytes(pushedBytes)})`,
    mounted === 0 ? '' : `${mounted} mounted`,
    skipped === 0 ? '' : `${skipped} there already`,
    manifests === 0 ? '' : `${manifests} ${manifests === 1 ? 'manifest' : 'manifests'} put`,
  ];
  return parts.filter((part) => part !== '').join(', ');
}

function failed(source: string, destination: string, { code, message, next }: OperatorError): Outcome {
  const nothing = { manifests: 0, pushed: 0, pushedBytes: 0, mounted: 0, skipped: 0, warning: null };
  return { source, destination, digest: null, form: null, ...nothing, error: { code, message, next } };
}

function conclude({ output }: Session, exit: Exit, outcomes: readonly Outcome[], options: Options): void {
  const failures = outcomes.filter(({ error }) => error !== null);
  if (failures.length > 0) exit.code = 1;
  if (options.json === true) output.json(outcomes);
  if (options.json === true || !isMany(options)) return;
  output.table(
    ['source', 'digest', 'pushed', 'mounted', 'there', 'result'],
    outcomes.map((one) => [
      one.source,
      one.digest?.slice(0, 19) ?? '-',
      one.error === null ? `${one.pushed} (${formatBytes(one.pushedBytes)})` : '-',
      one.error === null ? String(one.mounted) : '-',
      one.error === null ? String(one.skipped) : '-',
      one.error === null ? { text: 'done', tone: 'good' } : { text: one.error.message, tone: 'bad' },
    ]),
  );
  if (failures.length > 0)
    output.note(`${failures.length} of ${outcomes.length} images were not copied; run it again for what is missing`);
}

function toOperatorError(error: unknown): OperatorError {
  if (error instanceof OperatorError) return error;
  if (error instanceof SourceError) return unavailable(error);
  return new OperatorError('INTERNAL', `unexpected failure: ${(error as Error).message}`, { cause: error });
}

function usage(message: string, next: string): OperatorError {
  return new OperatorError('INPUT_INVALID', message, { next });
}
