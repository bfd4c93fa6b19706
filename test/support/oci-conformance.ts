import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runProgram, type Surroundings } from './processes.ts';
import { programPath } from './programs.ts';

/** Where reports are kept after the tests, for people: git ignores it, `scripts/test` names it. */
const REPORTS = fileURLToPath(new URL('../../test-reports/oci-conformance', import.meta.url));

/** What the distribution-spec's conformance program found. */
export interface ConformanceReport {
  /** Its summary, as a person reads it. */
  readonly text: string;
  /** The state of each API, as the summary has it: `Manifest get by tag` is `Pass`, `FAIL`, `Skip`, `Disabled` or `Unknown`. */
  readonly apis: ReadonlyMap<string, string>;
  /** Clauses by their name, each with whether all its tests passed; those that were skipped are not here. */
  readonly clauses: ReadonlyMap<string, boolean>;
  readonly folder: string;
}

/** What a registry holds, for a run that pushes nothing. */
export interface ReadOnlyData {
  readonly tags: readonly string[];
  readonly manifests: readonly string[];
  readonly blobs: readonly string[];
  readonly referrers: readonly string[];
}

/**
 * Runs the distribution-spec's own conformance program (github.com/opencontainers/distribution-spec/conformance). It never deletes: what it
 * pushed stays for whoever looks afterwards.
 */
export async function runConformance(options: {
  /** `host:port`. */
  readonly registry: string;
  readonly repository: string;
  /** Where the report goes: a folder of this name. */
  readonly name: string;
  /** Speak TLS and trust this CA alone: a PEM file. */
  readonly caFile?: string;
  readonly readOnly?: ReadOnlyData;
  readonly within?: Surroundings;
}): Promise<ConformanceReport> {
  const folder = join(REPORTS, options.name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const { readOnly } = options;
  const ran = await runProgram({
    command: programPath('conformance'),
    // It reads a configuration from the folder where it is started; that of a namespace is its root.
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      OCI_RESULTS_DIR: folder,
      OCI_VERSION: '1.1',
      OCI_REGISTRY: options.registry,
      OCI_REPO1: options.repository,
      OCI_REPO2: `${options.repository}-other`,
      OCI_API_BLOBS_DELETE: 'false',
      OCI_API_MANIFESTS_DELETE: 'false',
      OCI_API_TAGS_DELETE: 'false',
      ...(options.caFile === undefined
        ? { OCI_TLS: 'disabled' }
        : { OCI_TLS: 'enabled', SSL_CERT_FILE: options.caFile }),
      ...(readOnly === undefined
        ? {}
        : {
            OCI_API_PUSH: 'false',
            OCI_RO_DATA_TAGS: readOnly.tags.join(' '),
            OCI_RO_DATA_MANIFESTS: readOnly.manifests.join(' '),
            OCI_RO_DATA_BLOBS: readOnly.blobs.join(' '),
            OCI_RO_DATA_REFERRERS: readOnly.referrers.join(' '),
          }),
    },
    ...(options.within === undefined ? {} : { within: options.within }),
  });
  const text = `${ran.stdout}\n${ran.stderr}`;
  writeFileSync(join(folder, 'output.txt'), text);
  const table = /^API conformance:\n([\s\S]*?)\n\n/m.exec(ran.stdout)?.[1];
  if (table === undefined)
    throw new Error(`the conformance program said nothing of its result:\n${text.slice(-5_000)}`);
  const rows = table.split('\n').map((line) => /^ {2}(.*?)\.*: +(\w+)$/.exec(line));
  const apis = new Map(
    rows.flatMap((row) => (row?.[1] === undefined || row[2] === undefined ? [] : [[row[1], row[2]]])),
  );
  // Of a run that pushes nothing it writes none: ranges are not tested then, and it does not know how to write that down.
  const clauses = readOnly === undefined ? clausesOf(readFileSync(join(folder, 'junit.xml'), 'utf8')) : new Map();
  return { text, apis, clauses, folder };
}

function clausesOf(junit: string): Map<string, boolean> {
  const clauses = new Map<string, boolean>();
  for (const [, name = '', status] of junit.matchAll(/<testcase name="([^"]*)"[^>]* status="(\w+)"/g)) {
    if (status !== 'skipped') clauses.set(name, status === 'passed' && (clauses.get(name) ?? true));
  }
  return clauses;
}

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

interface Descriptor {
  readonly digest: string;
}

/** Everything of a repository that can be found from its tags, and from what refers to what was found. */
export async function inventory(endpoint: string, repository: string): Promise<ReadOnlyData> {
  const base = `${endpoint}/v2/${repository}`;
  const { tags } = (await (await fetch(`${base}/tags/list`)).json()) as { tags: string[] };
  const [manifests, blobs, referrers] = [new Set<string>(), new Set<string>(), new Set<string>()];
  const waiting: string[] = [...tags];
  for (const reference of waiting) {
    if (manifests.has(reference)) continue;
    const response = await fetch(`${base}/manifests/${reference}`, { headers: { accept: ACCEPT } });
    if (!response.ok) continue;
    const digest = response.headers.get('docker-content-digest') ?? reference;
    if (manifests.has(digest)) continue;
    manifests.add(digest);
    const content = (await response.json()) as {
      manifests?: Descriptor[];
      config?: Descriptor;
      layers?: Descriptor[];
    };
    waiting.push(...(content.manifests ?? []).map((one) => one.digest));
    for (const { digest: blob } of [
      ...(content.config === undefined ? [] : [content.config]),
      ...(content.layers ?? []),
    ]) {
      const held = await fetch(`${base}/blobs/${blob}`, { method: 'HEAD' });
      if (held.ok) blobs.add(blob);
    }
    const list = await fetch(`${base}/referrers/${digest}`);
    if (!list.ok) continue;
    const found = ((await list.json()) as { manifests: Descriptor[] }).manifests;
    if (found.length > 0) referrers.add(digest);
    waiting.push(...found.map((one) => one.digest));
  }
  return { tags, manifests: [...manifests], blobs: [...blobs], referrers: [...referrers] };
}
