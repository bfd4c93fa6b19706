import { Environment } from '@marcbachmann/cel-js';
import { expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import type { ClientFacts } from '../../../src/clients/facts.ts';
import { rewriteReference } from '../../../src/clients/rewrite.ts';
import { admissionPolicy, EXCLUDED_NAMESPACES } from '../../../src/clients/rewriting/admission-policy.ts';

const FACTS: ClientFacts = {
  scheme: 'https',
  domain: 'cr.example.com',
  port: 8443,
  ownNames: [],
  ca: null,
  credentials: false,
  registries: ['docker.io', 'quay.io', 'lonely.corp:5000', 'registry.corp:5000'],
  patterns: ['*.pkg.dev'],
  aliases: [
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true },
    { name: 'corp', host: 'corp.cr.example.com', registry: 'registry.corp:5000', certificate: true },
  ],
};

interface Container {
  readonly name: string;
  readonly image?: string;
}
interface Policy {
  readonly apiVersion: string;
  readonly spec: {
    readonly variables: readonly { readonly name: string; readonly expression: string }[];
    readonly mutations: readonly { readonly applyConfiguration: { readonly expression: string } }[];
  };
}

function documents(facts = FACTS): [Policy, { spec: { policyName: string; matchResources?: object } }] {
  const parsed = parseAllDocuments(admissionPolicy(facts, 'v1', EXCLUDED_NAMESPACES));
  return parsed.map((document) => document.toJS() as unknown) as ReturnType<typeof documents>;
}

/** The policy's variables for a request, as the API server evaluates them one after the other. */
function evaluated(request: Record<string, unknown>, facts = FACTS): Record<string, Container[]> {
  const environment = new Environment({ unlistedVariablesAreDyn: true });
  const variables: Record<string, Container[]> = {};
  for (const { name, expression } of documents(facts)[0].spec.variables)
    variables[name] = environment.evaluate(expression, { ...request, variables }) as Container[];
  return variables;
}

const create = (spec: object) => ({ object: { spec }, oldObject: null, request: { operation: 'CREATE' } });

test('the policy writes what a rewritten reference would be', () => {
  const images = [
    'nginx',
    'nginx:1.27',
    'grafana/grafana',
    'docker.io/library/nginx',
    'index.docker.io/nginx',
    'QUAY.io/org/app',
    `quay.io/org/app:v1@sha256:${'ab'.repeat(32)}`,
    'registry.corp:5000/app',
    'europe-docker.pkg.dev/p/r/app:1',
    'lonely.corp:5000/app',
    'registry.other/app',
    'cr.example.com:8443/quay.io/org/app',
    'quay.cr.example.com:8443/org/app',
    'localhost/app',
    'pkg.dev/x/y',
  ];
  for (const facts of [FACTS, { ...FACTS, patterns: [] }]) {
    const containers = images.map((image, index) => ({ name: `c${index}`, image }));
    const expected = containers.flatMap(({ name, image }) => {
      const rewriting = rewriteReference(image, facts);
      return rewriting.kind === 'rewritten' ? [{ name, image: rewriting.to }] : [];
    });
    const initContainers = [{ name: 'none' }, ...containers];
    const found = evaluated(create({ containers, initContainers }), facts);
    expect(found.containers).toEqual(expected);
    expect(found.initContainers).toEqual(expected);
    expect(found.ephemeralContainers).toEqual([]);
  }
});

test('of a pod that runs, new ephemeral containers alone are written', () => {
  const old = { name: 'old', image: 'alpine' };
  const pod = {
    containers: [{ name: 'a', image: 'nginx' }],
    ephemeralContainers: [old, { name: 'new', image: 'alpine' }],
  };
  const request = { operation: 'UPDATE' };
  const found = evaluated({ object: { spec: pod }, oldObject: { spec: { ephemeralContainers: [old] } }, request });
  expect(found.containers).toEqual([]);
  expect(found.ephemeralContainers).toEqual([{ name: 'new', image: 'cr.example.com:8443/docker.io/library/alpine' }]);
  const first = evaluated({ object: { spec: pod }, oldObject: { spec: {} }, request });
  expect(first.ephemeralContainers).toHaveLength(2);
});

test('each list is applied by a mutation of its own; the cluster’s namespaces are left alone', () => {
  const [policy, binding] = documents();
  expect(policy.apiVersion).toBe('admissionregistration.k8s.io/v1');
  expect(policy.spec.mutations.map(({ applyConfiguration }) => applyConfiguration.expression)).toEqual(
    ['containers', 'initContainers', 'ephemeralContainers'].map((list) =>
      expect.stringContaining(
        `optional.of(variables.${list}.map(c, Object.spec.${list}{name: c.name, image: c.image}))`,
      ),
    ),
  );
  expect(JSON.stringify(binding.spec)).toContain('"operator":"NotIn","values":["kube-system"');
  expect(admissionPolicy(FACTS, 'v1beta1', [])).toMatch(
    /feature-gates[\s\S]*apiVersion: admissionregistration.k8s.io\/v1beta1/,
  );
  expect(admissionPolicy(FACTS, 'v1', [])).not.toContain('namespaceSelector');
  expect(admissionPolicy(FACTS, 'v1', [])).toContain('Not covered: lonely.corp:5000');
});
