import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig } from '../../src/config/load.ts';
import { runOk, runProgram } from '../support/processes.ts';
import { describeWith, itWithClients, programPath } from '../support/programs.ts';

// What deploy/ offers for containers and for Kubernetes, as their own programs read it, and as the gateway reads what is said to it there.

const DEPLOY = resolve('deploy');
const CHART = join(DEPLOY, 'helm/registry-gateway');
const folder = mkdtempSync(join(tmpdir(), 'deployment-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: {
    readonly replicas: number;
    readonly serviceName: string;
    readonly maxUnavailable: number;
    readonly ports: readonly { readonly name: string; readonly port: number; readonly targetPort: string }[];
    readonly template: {
      readonly spec: {
        readonly containers: readonly {
          readonly image: string;
          readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
          readonly startupProbe: { readonly httpGet: { readonly path: string; readonly port: string } };
          readonly readinessProbe: { readonly httpGet: { readonly path: string; readonly port: string } };
          readonly env?: readonly { readonly name: string; readonly value?: string }[];
        }[];
      };
    };
  };
}

/** Checked as an API server does. */
async function manifestsOf(documents: string): Promise<Manifest[]> {
  await runOk({ command: programPath('kube-manifests'), args: ['-'], input: documents });
  return parseAllDocuments(documents).map((document) => document.toJS() as Manifest);
}

/** The configuration as the gateway takes it; an unknown key or a bad value is an error. */
function configuration(text: string, env: NodeJS.ProcessEnv = {}) {
  const file = join(folder, 'gateway.yaml');
  writeFileSync(file, text);
  const { config, warnings } = loadConfig({ env, cwd: '/', cores: 2, terminal: false, file });
  expect(warnings).toEqual([]);
  return config;
}

/** Ports of the container that the gateway listens on, that the services lead to, and that the probes ask, are the same. */
function expectPortsToFit(manifests: readonly Manifest[], nodes = 1): void {
  const data = manifests.find(({ kind }) => kind === 'ConfigMap')?.data?.['gateway.yaml'] ?? '';
  const set = manifests.filter(({ kind }) => kind === 'StatefulSet');
  expect(set.map(({ spec }) => spec?.replicas)).toEqual([nodes]);
  const [container] = set[0]?.spec?.template.spec.containers ?? [];
  const pod = `${set[0]?.metadata.name}-0`;
  const own = (container?.env ?? []).filter(
    ({ name, value }) => name.startsWith('GATEWAY_CLUSTER') && value !== undefined,
  );
  const env = Object.fromEntries(own.map(({ name, value }) => [name, value?.replace('$(POD_NAME)', pod)]));
  const { listen, metrics, cluster } = configuration(data, env);
  const ports = new Map((container?.ports ?? []).map(({ name, containerPort }) => [name, containerPort]));
  const listening = {
    ...{ https: listen.https?.port, http: listen.http?.port, metrics: metrics.listen?.port },
    cluster: cluster.listen?.port,
  };
  expect(Object.fromEntries(ports)).toEqual(JSON.parse(JSON.stringify(listening)));
  expect(ports.has(container?.startupProbe.httpGet.port ?? '')).toBe(true);
  for (const { spec } of manifests.filter(({ kind }) => kind === 'Service')) {
    for (const { targetPort } of spec?.ports ?? []) expect([...ports.keys()]).toContain(targetPort);
  }
}

/** Each node is reached by the others at a name that a service gives it, and one at a time may be away. */
function expectFleet(manifests: readonly Manifest[], nodes: number): void {
  expectPortsToFit(manifests, nodes);
  const set = manifests.find(({ kind }) => kind === 'StatefulSet')?.spec;
  const services = manifests.filter(({ kind }) => kind === 'Service');
  expect(services.map(({ metadata }) => metadata.name)).toContain(set?.serviceName);
  const [container] = set?.template.spec.containers ?? [];
  const address = container?.env?.find(({ name }) => name === 'GATEWAY_CLUSTER_ADDRESS')?.value;
  expect(address).toBe(`$(POD_NAME).${set?.serviceName}:7443`);
  expect(container?.readinessProbe.httpGet).toEqual({ path: '/readyz?node', port: 'http' });
  const budgets = manifests.filter(({ kind }) => kind === 'PodDisruptionBudget');
  expect(budgets.map(({ spec }) => spec?.maxUnavailable)).toEqual([1]);
}

describe('a gateway in a container', () => {
  it('gets from the image a configuration that leaves the domain to a variable', () => {
    const text = readFileSync(join(DEPLOY, 'container.yaml'), 'utf8');
    const config = configuration(text, { GATEWAY_DOMAIN: 'cr.example.com' });
    expect(config).toMatchObject({ domain: 'cr.example.com', dataDir: '/data', publicDomain: true });
    expect([config.listen.https?.port, config.listen.http?.port]).toEqual([443, 80]);
    // What is a comment in it is right, too.
    expect(configuration(text.replace(/^# (?=[a-z]+:| {2})/gm, '')).domain).toBe('cr.example.com');
  });

  it('has in the image what compose.yaml mounts over', () => {
    const image = readFileSync(join(DEPLOY, 'Dockerfile'), 'utf8');
    const compose = parse(readFileSync(join(DEPLOY, 'compose.yaml'), 'utf8')) as {
      services: { gateway: { volumes: string[] } };
    };
    const [from, to] = compose.services.gateway.volumes[1]?.split(':') ?? [];
    expect(image).toContain(`COPY ${join('deploy', from ?? '')} ${to}\n`);
    expect(image).toContain(`GATEWAY_CONFIG=${to}\n`);
  });
});

describeWith(['kube-manifests'], 'a gateway in Kubernetes', () => {
  it('is what the kustomization says', async () => {
    const built = await runOk({ command: programPath('kube-manifests'), args: [join(DEPLOY, 'kubernetes')] });
    const manifests = parseAllDocuments(built.stdout).map((document) => document.toJS() as Manifest);
    expect(manifests.map(({ kind }) => kind).sort()).toEqual([
      'ConfigMap',
      'Namespace',
      'Service',
      'Service',
      'StatefulSet',
    ]);
    expectPortsToFit(manifests);
  });

  it('is a fleet where the other kustomization says so', async () => {
    const built = await runOk({ command: programPath('kube-manifests'), args: [join(DEPLOY, 'kubernetes-fleet')] });
    const manifests = parseAllDocuments(built.stdout).map((document) => document.toJS() as Manifest);
    expectFleet(manifests, 3);
  });

  it('is not taken with a field that Kubernetes does not have', async () => {
    const input = 'apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {typ: NodePort}\n';
    const ran = await runProgram({ command: programPath('kube-manifests'), args: ['-'], input });
    expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('unknown field "typ"') });
  });

  const REQUIRED = ['--set', 'domain=cr.example.com', '--set', 'image.repository=registry.example.com/gw'];
  const helm = (verb: string, ...args: string[]) =>
    runProgram({
      command: programPath('helm'),
      args:
        verb === 'lint'
          ? ['lint', '--strict', CHART, ...args]
          : [verb, 'cr', CHART, '--kube-version', '1.31.0', ...args],
    });

  itWithClients(['helm'], 'takes the chart, in each of its ways', async () => {
    expect(await helm('lint', ...REQUIRED)).toMatchObject({ code: 0 });
    for (const way of [
      [],
      ['--set', 'config.tls.mode=off', '--set', 'service.type=ClusterIP'],
      ['--set', 'service.ports.https=8443', '--set', 'config.acme.email=ops@example.com'],
      ['--set-json', 'env=[{"name":"GATEWAY_UPSTREAM_PROXY","value":"http://proxy:3128"}]', '--set', 'podLabels.a=b'],
      ['--set', `image.digest=sha256:${'0'.repeat(64)}`, '--set', 'persistence.storageClassName=fast'],
    ]) {
      const { stdout, stderr } = await helm('template', ...REQUIRED, ...way);
      expect(stderr).toBe('');
      expectPortsToFit(await manifestsOf(stdout));
    }
  });

  const FLEET = ['--set', 'fleet=true', '--set', 'secret=cr', '--set', 'config.database=postgres://gateway@db/gateway'];

  itWithClients(['helm'], 'takes the chart as a fleet', async () => {
    expect(await helm('lint', ...REQUIRED, ...FLEET)).toMatchObject({ code: 0 });
    for (const [way, nodes] of [
      [[], 3],
      [['--set', 'nodes=5', '--set', 'config.cache.s3.bucket=images', '--set', 'config.tls.mode=off'], 5],
    ] as const) {
      const { stdout, stderr } = await helm('template', ...REQUIRED, ...FLEET, ...way);
      expect(stderr).toBe('');
      expectFleet(await manifestsOf(stdout), nodes);
    }
  });

  itWithClients(['helm'], 'refuses values that the chart does not know, or that it says itself', async () => {
    for (const [wrong, words] of [
      [['--set', 'image.repository=r.example.com/gw'], /domain/],
      [[...REQUIRED, '--set', 'replicas=2'], /replicas/],
      [[...REQUIRED, '--set', 'config.domain=x.example.com'], /domain/],
      [[...REQUIRED, '--set', 'publicUrl=cr.example.com'], /publicUrl/],
      [[...REQUIRED, '--set', 'fleet=true', '--set', 'secret=cr'], /database/],
      [[...REQUIRED, ...FLEET, '--set', 'secret='], /secret/],
      [[...REQUIRED, ...FLEET, '--set', 'nodes=1'], /nodes/],
    ] as const) {
      const ran = await helm('template', ...wrong);
      expect(ran.code).toBe(1);
      expect(ran.stderr).toMatch(words);
    }
  });
});
