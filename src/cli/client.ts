import { spawnSync } from 'node:child_process';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { Argument, Command, Option } from 'commander';
import type { FileChange, Place } from '../clients/apply/apply.ts';
import { configurationText } from '../clients/configuration.ts';
import {
  authority,
  baseUrl,
  CLIENT_KINDS,
  type ClientConfiguration,
  type ClientFacts,
  type ClientKind,
  type Login,
} from '../clients/facts.ts';
import { parseAuthorities } from '../kit/authorities.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { consent, readGiven, readSecret, type Session } from './session.ts';

/** Which gateway, and who asks it. */
export interface GatewayOptions {
  readonly gateway?: string;
  readonly ca?: string;
  readonly username?: string;
  readonly passwordStdin?: boolean;
}

export function withGateway(command: Command): Command {
  return command
    .option('--gateway <url>', 'a gateway on another machine: https://cr.example.com')
    .option('--ca <file>', "what that gateway's certificate is signed by, where this machine does not know it (PEM)")
    .option('--username <name>', 'a user of the gateway, where it asks for credentials')
    .option('--password-stdin', 'the token of that user, on standard input');
}

interface Options extends GatewayOptions {
  readonly apply?: boolean;
  readonly undo?: boolean;
  readonly check?: boolean;
  readonly yes?: boolean;
  readonly restart?: boolean;
  readonly root?: string;
  readonly image?: string;
  readonly json?: boolean;
}

/** What `--apply` and `--undo` tell scripts. */
interface Report {
  readonly client: ClientKind;
  readonly done: 'applied' | 'undone' | 'nothing';
  /** Which was put in or taken out; null where there was none. */
  readonly gateway: string | null;
  readonly files: readonly {
    readonly path: string;
    readonly change: 'created' | 'changed' | 'removed';
    readonly kept: string | null;
  }[];
  /** Commands that remain to be run. */
  readonly restart: readonly string[];
}

export function clientCommand(session: Session): Command {
  return withGateway(new Command('client'))
    .description("a client's configuration for this gateway: print it, or put it in place on this machine")
    .addArgument(new Argument('<client>', 'which client').choices([...CLIENT_KINDS]))
    .addOption(
      new Option('--apply', "put it into this machine's files, keeping what they have").conflicts(['undo', 'check']),
    )
    .addOption(new Option('--undo', 'take it out again, byte by byte').conflicts(['apply', 'check']))
    .addOption(new Option('--check', 'ask for an image as the files on this machine say').conflicts(['apply', 'undo']))
    .option('--yes', 'change files without asking')
    .option('--restart', 'also restart what has to read its files again')
    .option('--root <dir>', "take this folder for the machine's root, to try it")
    .option('--image <reference>', 'which image --check asks for')
    .option('--json', 'print JSON')
    .action(async (given: string, options: Options) => {
      const kind = given as ClientKind;
      const login = await loginOf(session, options);
      if (options.apply === true) return apply(session, kind, options, login);
      if (options.undo === true) return undo(session, kind, options);
      if (options.check === true) return check(session, kind, options, login);
      await print(session, kind, options, login);
    });
}

async function print(
  { output, ...session }: Session,
  kind: ClientKind,
  options: Options,
  login: Login | null,
): Promise<void> {
  const whole = { output, ...session };
  if (options.gateway === undefined) {
    const configuration = (await whole.act('client', { client: kind })) as ClientConfiguration;
    if (options.json === true) return output.json(configuration);
    return output.text(configurationText(configuration));
  }
  const { clientConfiguration } = await import('../clients/configuration.ts');
  const configuration = clientConfiguration(kind, await factsOf(whole, kind, options, login));
  if (options.json === true) return output.json(configuration);
  output.text(configurationText(configuration));
}

async function apply(session: Session, kind: ClientKind, options: Options, login: Login | null): Promise<void> {
  const facts = await factsOf(session, kind, options, login);
  const { planApply } = await import('../clients/apply/apply.ts');
  const change = planApply(await placeOf(session, kind, options), facts, login);
  const { output } = session;
  if (change.files.length === 0) {
    if (options.json === true) return output.json(report(kind, 'nothing', baseUrl(facts), [], []));
    return output.line(`the files of ${kind} have ${authority(facts)} already; nothing was changed`);
  }
  const { basicOf } = await import('../clients/facts.ts');
  const secrets = login === null ? [] : [basicOf(login), login.password];
  const instead = change.before === null || change.before === baseUrl(facts) ? '' : ` in place of ${change.before}`;
  await agreed(session, options, change.files, secrets, `Put ${authority(facts)} into the files of ${kind}${instead}?`);
  change.carryOut();
  const left = restart(session, options, change.restart);
  if (options.json === true) return output.json(report(kind, 'applied', baseUrl(facts), change.files, left));
  tell(session, change.files, left);
  if (instead !== '') output.line(`${authority(facts)} is in them${instead}`);
  output.line(`try it: gateway client ${kind} --check; take it back: gateway client ${kind} --undo`);
}

async function undo(session: Session, kind: ClientKind, options: Options): Promise<void> {
  const { planUndo } = await import('../clients/apply/apply.ts');
  const change = planUndo(await placeOf(session, kind, options));
  const { output } = session;
  const { originOf } = await import('../clients/remote.ts');
  const other = options.gateway !== undefined && change !== null && change.before !== originOf(options.gateway);
  if (change === null || other) {
    if (options.json === true) return output.json(report(kind, 'nothing', change?.before ?? null, [], []));
    const why =
      change === null
        ? `were not changed by gateway client ${kind} --apply here`
        : `do not have ${options.gateway}; they have ${change.before}`;
    return output.line(`the files of ${kind} ${why}; there is nothing to undo`);
  }
  if (change.files.length > 0)
    await agreed(session, options, change.files, [], `Take ${change.before} out of the files of ${kind}?`);
  change.carryOut();
  const left = restart(session, options, change.restart);
  if (options.json === true) return output.json(report(kind, 'undone', change.before, change.files, left));
  if (change.files.length === 0) return output.line(`nothing of ${change.before} was left in the files of ${kind}`);
  tell(session, change.files, left);
}

async function check(session: Session, kind: ClientKind, options: Options, login: Login | null): Promise<void> {
  const { output, signal } = session;
  const place = await placeOf(session, kind, options);
  const { clientPlan } = await import('../clients/configuration.ts');
  const { appliedGateway, machineOf } = await import('../clients/apply/apply.ts');
  const applied = options.gateway === undefined ? appliedGateway(place) : null;
  const facts = applied ?? (await factsOf(session, kind, options, login));
  const { pullManifest, sampleOf, waysOf, withProgram } = await import('../clients/apply/check.ts');
  const image = options.image ?? sampleOf(facts);
  const registry = image.slice(0, Math.max(0, image.indexOf('/')));
  if (!facts.registries.includes(registry)) {
    throw new OperatorError('INPUT_INVALID', `--image ${image} does not begin with a registry of the gateway`, {
      next: `write it in full: ${sampleOf(facts)}`,
    });
  }
  const { edits } = clientPlan(kind, facts, machineOf(place), login);
  const ways = waysOf(
    kind,
    place.files,
    facts,
    edits.filter(({ format }) => format !== 'pem').map(({ path }) => path),
    registry,
  );
  const pulled = [];
  for (const way of ways) {
    const one = await pullManifest(way, image, place.files, login, signal);
    pulled.push({ file: one.file, gateway: baseUrl(facts), image, digest: one.digest });
    if (options.json !== true) output.line(`${one.file}: ${image} came through ${authority(facts)} (${one.digest})`);
  }
  const program = options.root === undefined ? await withProgram(kind, image, signal) : null;
  if (options.json === true) return output.json({ client: kind, pulled, program });
  if (program !== null) output.line(`${program}: done`);
}

/** @throws {OperatorError} usage */
export async function loginOf(session: Session, { username, passwordStdin }: GatewayOptions): Promise<Login | null> {
  if (username === undefined && passwordStdin !== true) return null;
  if (username === undefined)
    throw new OperatorError('USERNAME_MISSING', 'a password was given without a user name', {
      next: 'add --username NAME',
    });
  if (passwordStdin !== true)
    throw new OperatorError('PASSWORD_MISSING', 'a user name was given without a password', {
      next: 'pipe the password in, with --password-stdin',
    });
  return { username, password: await readSecret(session) };
}

/** Of the gateway that is named, else of the one that other commands act on. */
export async function factsOf(
  session: Session,
  kind: ClientKind,
  options: GatewayOptions,
  login: Login | null,
): Promise<ClientFacts> {
  if (options.gateway === undefined) return (await session.act('client.facts', {})) as ClientFacts;
  const { fetchFacts } = await import('../clients/remote.ts');
  const ca = options.ca === undefined ? null : authorities(options.ca, await readGiven(options.ca));
  return fetchFacts(options.gateway, kind, { ca, login, signal: session.signal });
}

/** @throws {OperatorError} usage */
function authorities(file: string, text: string): string {
  try {
    return parseAuthorities(text);
  } catch (cause) {
    throw new OperatorError('CA_INVALID', `${file} ${(cause as Error).message}`, { cause });
  }
}

async function placeOf(session: Session, kind: ClientKind, { root = '/' }: Options): Promise<Place> {
  const { ClientFiles } = await import('../clients/apply/files.ts');
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  const home = session.env.HOME ?? homedir();
  return {
    kind,
    files: new ClientFiles({ root: resolve(root), home, cwd: process.cwd() }),
    home: uid === 0 ? null : home,
    uid,
    gid,
    // Programs of this machine say nothing of another root's.
    version: (program) => (root === '/' ? versionOf(program) : null),
  };
}

/** `containerd github.com/containerd/containerd v1.7.2 …`, `Docker version 29.0.1, build …`. */
function versionOf(program: string): readonly [number, number] | null {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', timeout: 5_000 });
  const found = /\bv?(\d+)\.(\d+)\.\d+/.exec(stdout ?? '');
  return found === null ? null : [Number(found[1]), Number(found[2])];
}

/** Shows what is to change, and asks. @throws {OperatorError} `DECLINED`, `ANSWER_NEEDED` */
async function agreed(
  session: Session,
  { yes, json }: Options,
  files: readonly FileChange[],
  secrets: readonly string[],
  question: string,
): Promise<void> {
  const { differenceOf } = await import('../clients/apply/apply.ts');
  // With --json, standard output is the report alone.
  for (const file of files) {
    const difference = differenceOf(file, secrets);
    if (json === true) session.output.errorText(difference);
    else session.output.text(difference);
  }
  await consent(session, question, yes === true);
}

/** Runs the commands if that was asked for; returns those that remain for the person. @throws {OperatorError} */
function restart({ output }: Session, options: Options, commands: readonly string[]): readonly string[] {
  if (options.restart !== true || options.root !== undefined) return commands;
  for (const command of commands) {
    const [program = '', ...args] = command.split(' ');
    const ran = spawnSync(program, args, { encoding: 'utf8' });
    if (ran.status === 0) {
      output.note(`ran: ${command}`);
      continue;
    }
    const why = ran.error?.message ?? ran.stderr.trim();
    throw new OperatorError('CLIENT_FILE_FAILED', `the files are in place, but ${command} failed: ${why}`, {
      next: 'see why, and run it by hand',
    });
  }
  return [];
}

function report(
  client: ClientKind,
  done: Report['done'],
  gateway: string | null,
  files: readonly FileChange[],
  left: readonly string[],
): Report {
  return {
    client,
    done,
    gateway,
    files: files.map(({ path, was, becomes, kept }) => ({
      path,
      change: was === null ? 'created' : becomes === null ? 'removed' : 'changed',
      kept,
    })),
    restart: left,
  };
}

function tell({ output }: Session, files: readonly FileChange[], left: readonly string[]): void {
  for (const { path, was, becomes, kept } of files) {
    const copy = kept === null ? '' : ` (as it was: ${kept})`;
    output.line(`${was === null ? 'created' : becomes === null ? 'removed' : 'changed'} ${path}${copy}`);
  }
  if (left.length > 0) output.line(`then run: ${left.join(' && ')}`);
}
