import { describe, expect, test } from 'vitest';
import { type RewriteFacts, rewriteReference } from '../../../src/clients/rewrite.ts';

const FACTS: RewriteFacts = {
  scheme: 'https',
  domain: 'cr.example.com',
  port: null,
  ownNames: [],
  registries: ['docker.io', 'quay.io', 'ghcr.io', 'hf.co', 'registry.corp:5000', 'lonely.corp:5000', 'localhost:5000'],
  patterns: ['*.pkg.dev'],
  aliases: [
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true },
    { name: 'ghcr', host: 'ghcr.cr.example.com', registry: 'ghcr.io', certificate: false },
    { name: 'corp', host: 'corp.cr.example.com', registry: 'registry.corp:5000', certificate: true },
  ],
};
const LOCAL: RewriteFacts = { ...FACTS, domain: 'localhost', port: 8443, aliases: [] };
const DIGEST = `sha256:${'ab'.repeat(32)}`;

const becomes = (reference: string, facts = FACTS) => {
  const rewriting = rewriteReference(reference, facts);
  return rewriting.kind === 'rewritten' ? rewriting.to : `${rewriting.why}: ${rewriting.message}`;
};

describe('what a reference becomes', () => {
  test.each([
    ['nginx', 'cr.example.com/docker.io/library/nginx'],
    ['nginx:1.27', 'cr.example.com/docker.io/library/nginx:1.27'],
    ['grafana/grafana', 'cr.example.com/docker.io/grafana/grafana'],
    ['docker.io/nginx', 'cr.example.com/docker.io/library/nginx'],
    ['index.docker.io/library/nginx', 'cr.example.com/docker.io/library/nginx'],
    ['registry-1.docker.io/org/app:1', 'cr.example.com/docker.io/org/app:1'],
    ['quay.io/org/app', 'quay.cr.example.com/org/app'],
    ['quay.io:443/org/app:v1', 'quay.cr.example.com/org/app:v1'],
    ['QUAY.io/org/app', 'quay.cr.example.com/org/app'],
    [`quay.io/org/app@${DIGEST}`, `quay.cr.example.com/org/app@${DIGEST}`],
    [`quay.io/org/app:v1@${DIGEST}`, `quay.cr.example.com/org/app:v1@${DIGEST}`],
    ['ghcr.io/org/app', 'cr.example.com/ghcr.io/org/app'],
    ['registry.corp:5000/app:1', 'corp.cr.example.com/app:1'],
    ['localhost:5000/app', 'needs-alias'],
    ['europe-docker.pkg.dev/p/r/app', 'cr.example.com/europe-docker.pkg.dev/p/r/app'],
    ['hf.co/bartowski/Llama-GGUF:Q4_K_M', 'cr.example.com/hf.co/bartowski/Llama-GGUF:Q4_K_M'],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as compose files have it
    ['quay.io/org/app:${TAG:-a/b}', 'quay.cr.example.com/org/app:${TAG:-a/b}'],
    ['quay.io/org/app:{{ .Values.tag }}', 'quay.cr.example.com/org/app:{{ .Values.tag }}'],
    ['quay.io/org/app:$TAG', 'quay.cr.example.com/org/app:$TAG'],
    ['docker://quay.io/org/app:1', 'docker://quay.cr.example.com/org/app:1'],
    ['oci://ghcr.io/org/chart', 'oci://cr.example.com/ghcr.io/org/chart'],
  ])('%s', (reference, wanted) => {
    expect(becomes(reference)).toContain(wanted);
  });

  test('with a port where the gateway has one', () => {
    expect(becomes('quay.io/org/app', LOCAL)).toBe('localhost:8443/quay.io/org/app');
    expect(becomes('alpine', { ...LOCAL, domain: '::1' })).toBe('[::1]:8443/docker.io/library/alpine');
  });
});

test('under localhost, whose aliases most programs do not find, only where nothing else will do', () => {
  const alias = (name: string, registry: string) => ({ name, host: `${name}.localhost`, registry, certificate: true });
  const facts = { ...LOCAL, aliases: [alias('quay', 'quay.io'), alias('corp', 'registry.corp:5000')] };
  expect(becomes('quay.io/org/app', facts)).toBe('localhost:8443/quay.io/org/app');
  expect(becomes('registry.corp:5000/app', facts)).toBe('corp.localhost:8443/app');
});

describe('why a reference stays', () => {
  test.each([
    ['cr.example.com/quay.io/org/app', 'own'],
    ['cr.example.com:443/quay.io/org/app', 'own'],
    ['quay.cr.example.com/org/app', 'own'],
    ['ghcr.cr.example.com/org/app:1', 'own'],
    ['quay.oi/org/app', 'unknown-registry: quay.oi is not among this gateway’s registries; did you mean quay.io?'],
    ['pkg.dev/x', 'unknown-registry'],
    ['lonely.corp:5000/app', 'needs-alias'],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as compose files have it
    ['${REGISTRY}/app:1', 'variable'],
    ['{{ .Values.image }}:1', 'variable'],
    ['quay.io/org/$(NAME)', 'variable'],
    ['scratch', 'scratch'],
    ['ab'.repeat(32), 'image-id'],
    [`sha256:${'ab'.repeat(32)}`, 'image-id'],
    ['', 'malformed'],
    ['Upper/case', 'malformed'],
    ['quay.io/Org/app', 'malformed'],
    ['quay.io/org/app:', 'malformed'],
    ['quay.io/org/app:bad tag', 'malformed'],
    ['quay.io/org/app@sha256:12', 'malformed'],
    ['quay.io/', 'malformed'],
    ['https://quay.io/org/app', 'malformed'],
  ])('%s', (reference, why) => {
    expect(becomes(reference).replaceAll("'", '’')).toContain(why);
  });

  test('on localhost another port is another program', () => {
    expect(becomes('localhost:8443/quay.io/app', LOCAL)).toContain('own');
    expect(becomes('localhost:5001/app', LOCAL)).toContain('unknown-registry');
    expect(becomes('cr.example.com/app', { ...LOCAL, ownNames: ['cr.example.com'] })).toContain('own');
  });
});
