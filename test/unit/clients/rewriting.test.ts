import { describe, expect, test } from 'vitest';
import type { RewriteFacts } from '../../../src/clients/rewrite.ts';
import { rewriteDockerfile } from '../../../src/clients/rewriting/dockerfile.ts';
import type { RewrittenText } from '../../../src/clients/rewriting/text.ts';
import { rewriteYaml } from '../../../src/clients/rewriting/yaml.ts';

const FACTS: RewriteFacts = {
  scheme: 'https',
  domain: 'cr.example.com',
  port: null,
  ownNames: [],
  registries: ['docker.io', 'quay.io', 'ghcr.io'],
  patterns: [],
  aliases: [{ name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true }],
};
const DIGEST = `sha256:${'ab'.repeat(32)}`;
const HUB = 'cr.example.com/docker.io/library';

/** In these files `<a|b>` stands for `a` before and `b` after. */
function both(marked: string): [string, string] {
  const side = (which: 1 | 2) =>
    marked.replace(/<([^<>|]*)\|([^<>|]*)>/g, (_all, one, other) => (which === 1 ? one : other));
  return [side(1), side(2)];
}
const left = ({ found }: RewrittenText) =>
  found.flatMap(({ line, rewriting }) =>
    rewriting.kind === 'kept' ? [`${line} ${rewriting.why} ${rewriting.from}`] : [],
  );

const KUBERNETES = `# a deployment
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      initContainers:
      - {name: init, image: '<busybox:1|${HUB}/busybox:1>'} # flow
      containers:
        - name:  app
          image:   "<quay.io/org/app:v1@${DIGEST}|quay.cr.example.com/org/app:v1@${DIGEST}>"   # pinned
          env:
            - name: RELATED_IMAGE_SIDECAR
              value: <ghcr.io/org/side:1|cr.example.com/ghcr.io/org/side:1>
            - name: PAGE
              value: quay.io/looks/like:one
        - image: quay.cr.example.com/org/app
      volumes:
        - name: model
          image: {reference: <quay.io/org/model:1|quay.cr.example.com/org/model:1>, pullPolicy: Always}
---
apiVersion: v1
kind: List
items:
- kind: Pod
  spec:
    ephemeralContainers:
    - image: &shared <nginx|${HUB}/nginx>
    containers:
    - image: *shared
---
kind: ConfigMap
data:
  image: nginx
---
apiVersion: example.com/v1
kind: Database
spec:
  image: registry.other/db:1
  postgresImage: <quay.io/org/pg:16|quay.cr.example.com/org/pg:16>
  logoImage: logo.png
`;

const COMPOSE = `x-base: &base
  image: <postgres:16|${HUB}/postgres:16>
services:
  db:
    <<: *base
  web:
    build: .
    image: web
  cache:
    image: <redis:\${TAG:-7}|${HUB}/redis:\${TAG:-7}>
  other:
    image: \${REGISTRY}/other:1
  tool:
    build:
      additional_contexts:
        base: docker-image://<quay.io/org/base|quay.cr.example.com/org/base>
`;

const VALUES = `image:
  registry: <docker.io|cr.example.com/docker.io>
  repository: bitnami/redis
  tag: "7.2" # keep
sidecar:
  image:
    repository: <quay.io/org/side|quay.cr.example.com/org/side>
metrics:
  image: {repository: "<prom/exporter|cr.example.com/docker.io/prom/exporter>", tag: v1}
global:
  imageRegistry: ""
checkout:
  repository: owner/project
dependencies:
  - name: redis
    repository: https://charts.example.com
`;

const KUSTOMIZATION = `kind: Kustomization
images:
- name: nginx # the web server
  newTag: "1.27"
- {name: quay.io/org/app, newTag: v2}
- name: internal/app
  newName: <quay.io/org/other|quay.cr.example.com/org/other>
`;

describe('YAML', () => {
  test.each([
    ['Kubernetes', KUBERNETES],
    ['compose', COMPOSE],
    ['Helm values', VALUES],
    ['CRLF', KUBERNETES.replaceAll('\n', '\r\n')],
    ['a byte order mark, no last line end', `\uFEFF${KUBERNETES.trimEnd()}`],
    ['JSON', `{"kind": "Pod", "spec": {"containers": [{"image":"<nginx|${HUB}/nginx>"}]}}`],
    ['a block', `image: >-\n  <nginx:1|${HUB}/nginx:1>\n`],
    ['a registry beside an image', `image:\n  registry: <quay.io|quay.cr.example.com>\n  image: org/app\n  tag: "1"\n`],
    [
      'a name below image',
      `image:\n  name: <ruby:3|${HUB}/ruby:3>\n  entrypoint: [""]\nservices: [<redis:7|${HUB}/redis:7>]\nstages: [a]\n`,
    ],
    [
      'GitHub workflows',
      `runs-on: x\ncontainer: <node:20|${HUB}/node:20>\nsteps:\n- uses: actions/checkout@v4\n- uses: <docker://alpine|docker://${HUB}/alpine>\n`,
    ],
    [
      'defaults of variables',
      `a: {image: "<\${R:-quay.io}/o/a:1|\${R:-quay.cr.example.com}/o/a:1>"}\nb: {image: "<\${I:-nginx}:2|\${I:-${HUB}/nginx}:2>"}\nc: {image: "\${I}"}\n`,
    ],
    ['annotations and labels', 'metadata:\n  annotations: {image: nginx}\n  labels: {image: nginx}\n'],
    [
      'operators and Tekton',
      `spec:\n  imageName: <ghcr.io/o/pg:16|cr.example.com/ghcr.io/o/pg:16>\n  params:\n  - name: builderImage\n    default: <quay.io/o/b|quay.cr.example.com/o/b>\n`,
    ],
    ['GitLab CI', `job:\n  image: <ruby:3|${HUB}/ruby:3>\n`],
  ])('%s: references alone are changed', (_name, marked) => {
    const [before, after] = both(marked);
    const { text } = rewriteYaml(before, FACTS);
    expect(text).toBe(after);
    // What goes through the gateway stays.
    expect(rewriteYaml(text, FACTS).text).toBe(after);
  });

  test('what was left, where and why', () => {
    expect(left(rewriteYaml(both(KUBERNETES)[0], FACTS))).toEqual([
      '17 own quay.cr.example.com/org/app',
      '39 unknown-registry registry.other/db:1',
    ]);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as compose files have it
    expect(left(rewriteYaml(both(COMPOSE)[0], FACTS))).toEqual(['12 variable ${REGISTRY}/other:1']);
    expect(left(rewriteYaml('image:\n  registry: registry.other\n  repository: a/b\n', FACTS))).toEqual([
      '2 unknown-registry registry.other/name',
    ]);
  });

  test('kustomizations get newName, since name is what is looked for', () => {
    expect(rewriteYaml(both(KUSTOMIZATION)[0], FACTS).text).toBe(
      both(KUSTOMIZATION)[1]
        .replace('- name: nginx # the web server\n', `- name: nginx # the web server\n  newName: ${HUB}/nginx\n`)
        .replace('{name: quay.io/org/app,', '{name: quay.io/org/app, newName: quay.cr.example.com/org/app,'),
    );
  });

  test('a template is read by its lines', () => {
    const marked = `{{- if .Values.on }}\nimage: <nginx:1|${HUB}/nginx:1> # web\n- image: "<quay.io/a/b:{{ .Values.tag }}|quay.cr.example.com/a/b:{{ .Values.tag }}>"\nimage: {{ .Values.image }}\n{{- end }}\n`;
    const [before, after] = both(marked);
    const rewritten = rewriteYaml(before, FACTS);
    expect(rewritten.text).toBe(after);
    expect(rewritten.notes[0]).toContain('is no YAML');
    expect(left(rewritten)).toEqual(['4 variable {{ .Values.image }}']);
  });

  test('an address that begins with a bracket is quoted', () => {
    const facts = { ...FACTS, domain: '::1', port: 8443 };
    expect(rewriteYaml('image: nginx\n', facts).text).toBe('image: "[::1]:8443/docker.io/library/nginx"\n');
  });
});

describe('Dockerfiles', () => {
  const DOCKERFILE = `# syntax=<docker/dockerfile:1|cr.example.com/docker.io/docker/dockerfile:1>
# FROM nothing
ARG BASE=<nginx:1.27|${HUB}/nginx:1.27>
ARG REGISTRY="<quay.io|quay.cr.example.com>"
ARG TAG=3
FROM --platform=$BUILDPLATFORM <golang:1.26|${HUB}/golang:1.26> AS Build
RUN --mount=type=bind,from=<quay.io/org/tools|quay.cr.example.com/org/tools>,target=/t \\
    # FROM busybox
    go build
RUN <<EOF
FROM busybox
COPY --from=busybox /a /b
EOF
FROM build AS test
from \${BASE} as web
ARG BASE=untouched
FROM $REGISTRY/org/app:$TAG
COPY --from=build /a /a
COPY --chown=1 --from=<alpine:3|${HUB}/alpine:3> /b /b
COPY --from=0 /c /c
FROM <alpine:\${TAG}|${HUB}/alpine:\${TAG}>
FROM \${OTHER:-<debian|${HUB}/debian>}
FROM \\
  <ubuntu|${HUB}/ubuntu>
FROM scratch
FROM quay.oi/org/app
FROM \${UNKNOWN}
`.replaceAll('<<EOF', '\u0001');

  test.each([
    ['as it is', DOCKERFILE],
    ['CRLF', DOCKERFILE.replaceAll('\n', '\r\n')],
    ['no last line end', DOCKERFILE.trimEnd()],
  ])('%s: references alone are changed', (_name, marked) => {
    const [before, after] = both(marked).map((text) => text.replaceAll('\u0001', '<<EOF')) as [string, string];
    const rewritten = rewriteDockerfile(before, FACTS);
    expect(rewritten.text).toBe(after);
    expect(rewriteDockerfile(rewritten.text, FACTS).text).toBe(after);
    expect(left(rewritten)).toEqual([
      '26 unknown-registry quay.oi/org/app',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: as Dockerfiles have it
      '27 variable ${UNKNOWN}',
    ]);
  });
});
