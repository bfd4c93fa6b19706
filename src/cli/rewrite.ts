import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { Argument, Command, Option } from 'commander';
import type { ClientFacts } from '../clients/facts.ts';
import type { Rewriting } from '../clients/rewrite.ts';
import { EXCLUDED_NAMESPACES, POLICY_VERSIONS, type PolicyVersion } from '../clients/rewriting/admission-policy.ts';
import type { Found, RewrittenText } from '../clients/rewriting/text.ts';
import { readBounded } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { factsOf, type GatewayOptions, loginOf, withGateway } from './client.ts';
import { collect, type Exit, type Session } from './session.ts';

interface Options extends GatewayOptions {
  readonly file?: string[];
  readonly type?: FileType;
  readonly inPlace?: boolean;
  readonly admissionPolicy?: boolean;
  readonly apiVersion?: PolicyVersion;
  readonly excludeNamespace?: string[];
  readonly json?: boolean;
}

/** More than any manifest; a cluster's whole export may be some. */
const MAX_FILE = 64 * 1024 * 1024;

const FILE_TYPES = ['yaml', 'dockerfile'] as const;
type FileType = (typeof FILE_TYPES)[number];

/** What stays for a good reason; anything else that was left makes the command exit 1. */
const FINE = new Set(['own', 'scratch', 'variable']);

export function rewriteCommand(session: Session, exit: Exit): Command {
  return withGateway(new Command('rewrite'))
    .description('what image references become through this gateway: one by one, or in whole files')
    .addArgument(new Argument('[reference...]', 'image references: quay.io/org/app:v1'))
    .option(
      '--file <file>',
      'Kubernetes YAML, compose, Helm values, kustomization, Dockerfile; - for standard input; may be repeated',
      collect,
    )
    .addOption(new Option('--type <type>', 'what the file is, where its name does not say it').choices([...FILE_TYPES]))
    .option('--in-place', 'write the files, showing the difference')
    .option('--admission-policy', 'print a MutatingAdmissionPolicy with its binding for a Kubernetes cluster')
    .addOption(new Option('--api-version <version>', 'of that policy').choices([...POLICY_VERSIONS]).default('v1'))
    .option(
      '--exclude-namespace <name>',
      `namespaces that it leaves alone (default: ${EXCLUDED_NAMESPACES.join(', ')}); may be repeated`,
      collect,
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nWhat was left as it is goes to standard error, with the reason. Exit 1 if that was an image that the gateway does not have.\n\nExamples:\n  gateway rewrite nginx quay.io/org/app:v1\n  gateway rewrite --file deployment.yaml | kubectl apply -f -\n  gateway rewrite --file Dockerfile --file compose.yaml --in-place',
    )
    .action(async (references: string[], options: Options) => {
      const { file: files = [] } = options;
      const asked = [references.length > 0, files.length > 0, options.admissionPolicy === true].filter(Boolean).length;
      if (asked !== 1) throw usage('give references, or --file, or --admission-policy, one of them');
      if (options.inPlace === true && (files.length === 0 || files.includes('-')))
        throw usage('--in-place wants files with a name: --file FILE');
      if (files.length > 1 && options.inPlace !== true && options.json !== true)
        throw usage('several files at once are written with --in-place, or printed with --json');
      if (files.includes('-') && options.passwordStdin === true)
        throw usage('standard input is the password, or the file');
      const facts = await factsOf(session, 'docker', options, await loginOf(session, options));
      if (options.admissionPolicy === true) return policy(session, facts, options);
      if (files.length > 0) return rewriteFiles(session, exit, facts, files, options);
      const { rewriteReference } = await import('../clients/rewrite.ts');
      const results = references.map((reference) => rewriteReference(reference, facts));
      if (results.some(isLeft)) exit.code = 1;
      if (options.json === true) return session.output.json(results);
      for (const result of results) {
        session.output.line(result.kind === 'rewritten' ? result.to : result.from);
        if (result.kind === 'kept') session.output.note(result.message);
      }
    });
}

async function policy({ output }: Session, facts: ClientFacts, options: Options): Promise<void> {
  const { admissionPolicy } = await import('../clients/rewriting/admission-policy.ts');
  const text = admissionPolicy(facts, options.apiVersion ?? 'v1', options.excludeNamespace ?? EXCLUDED_NAMESPACES);
  if (options.json !== true) return output.text(text);
  const { yamlLibrary } = await import('../kit/yaml-text.ts');
  output.json(
    yamlLibrary()
      .parseAllDocuments(text)
      .map((document) => document.toJS() as unknown),
  );
}

async function rewriteFiles(
  session: Session,
  exit: Exit,
  facts: ClientFacts,
  files: readonly string[],
  options: Options,
): Promise<void> {
  const { output } = session;
  // All are read before one is written.
  const before = [];
  for (const file of files) before.push({ file, text: await readExactly(session, file) });
  const results = [];
  for (const { file, text } of before)
    results.push({ file, before: text, ...(await rewritten(file, text, facts, options.type)) });
  if (results.some(({ found }) => found.some(({ rewriting }) => isLeft(rewriting)))) exit.code = 1;
  for (const result of results) {
    if (options.inPlace === true) await writeInPlace(session, result, options);
    else if (options.json !== true) await output.bytes(Buffer.from(result.text));
    if (options.json === true) continue;
    for (const note of result.notes) output.note(`${result.file}: ${note}`);
    for (const { line, rewriting } of result.found)
      if (rewriting.kind === 'kept' && rewriting.why !== 'own')
        output.note(`${result.file}:${line}: ${rewriting.message}`);
  }
  if (options.json !== true) return;
  output.json(
    results.map(({ file, text, found, notes }) => ({
      file,
      ...(options.inPlace === true ? {} : { text }),
      found: found.map(rowOf),
      notes,
    })),
  );
}

function rowOf({ line, rewriting }: Found): object {
  return { line, ...rewriting };
}

async function rewritten(
  file: string,
  text: string,
  facts: ClientFacts,
  type: FileType | undefined,
): Promise<RewrittenText> {
  if ((type ?? typeOf(file, text)) === 'dockerfile') {
    const { rewriteDockerfile } = await import('../clients/rewriting/dockerfile.ts');
    return rewriteDockerfile(text, facts);
  }
  const { rewriteYaml } = await import('../clients/rewriting/yaml.ts');
  return rewriteYaml(text, facts);
}

/** By its name, else by its first line that says something. */
function typeOf(file: string, text: string): FileType {
  const name = basename(file).toLowerCase();
  if (/\.(?:ya?ml|json|tpl)$/.test(name)) return 'yaml';
  if (/(?:^|\.)(?:dockerfile|containerfile)(?:\.|$)/.test(name)) return 'dockerfile';
  return /^(?:\uFEFF)?(?:\s*#.*\n|\s*\n)*\s*(?:FROM|ARG)\s/i.test(text) || /^(?:\uFEFF)?#\s*syntax\s*=/i.test(text)
    ? 'dockerfile'
    : 'yaml';
}

async function writeInPlace(
  { output, env }: Session,
  { file, before, text }: { readonly file: string; readonly before: string; readonly text: string },
  { json }: Options,
): Promise<void> {
  if (before === text) {
    if (json !== true) output.line(`${file}: nothing to change`);
    return;
  }
  const { createTwoFilesPatch } = await import('diff');
  const { ClientFiles } = await import('../clients/apply/files.ts');
  const files = new ClientFiles({ root: '/', home: env.HOME ?? '/', cwd: process.cwd() });
  const stored = files.read(file);
  if (stored === null || !stored.bytes.equals(Buffer.from(before)))
    throw new OperatorError('CLIENT_FILE_FAILED', `${file} has changed meanwhile`, { next: 'run the command again' });
  files.write(file, { ...stored, bytes: Buffer.from(text) });
  if (json !== true) output.text(createTwoFilesPatch(file, file, before, text).replace(/^=+\n/, ''));
}

/** A file as it is, byte order mark and line ends included. @throws {OperatorError} usage */
async function readExactly({ stdin }: Session, file: string): Promise<string> {
  try {
    const bytes = file === '-' ? await readBounded(stdin as AsyncIterable<Buffer>, MAX_FILE) : await readFile(file);
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    const why = cause instanceof TypeError ? 'it is no text in UTF-8' : (cause as Error).message;
    throw new OperatorError('FILE_UNREADABLE', `${file === '-' ? 'standard input' : file} cannot be read: ${why}`, {
      cause,
    });
  }
}

function isLeft(rewriting: Rewriting): boolean {
  return rewriting.kind === 'kept' && !FINE.has(rewriting.why);
}

function usage(message: string): OperatorError {
  return new OperatorError('INPUT_INVALID', message, { next: 'gateway rewrite --help shows how' });
}
