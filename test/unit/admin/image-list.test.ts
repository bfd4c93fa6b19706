// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables as shells and compose files have them
import { expect, test } from 'vitest';
import { type ImageText, readImageList } from '../../../src/admin/image-list.ts';
import type { RewriteFacts } from '../../../src/clients/rewrite.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const FACTS: RewriteFacts = {
  scheme: 'https',
  domain: 'cr.example.com',
  port: null,
  ownNames: ['gateway.internal'],
  registries: ['docker.io', 'quay.io', 'ghcr.io', 'k8s.gcr.io', 'registry.corp:5000'],
  patterns: ['*.pkg.dev'],
  aliases: [
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true },
    { name: 'docker', host: 'docker.cr.example.com', registry: 'docker.io', certificate: true },
    { name: 'hub.corp.example', host: 'hub.corp.example', registry: 'docker.io', certificate: false },
  ],
};

function read(...texts: (string | ImageText)[]) {
  const given = texts.map((text) => (typeof text === 'string' ? { file: null, text } : text));
  const { images, unread, notes } = readImageList(given, FACTS);
  return { images: images.map(({ text }) => text), unread, notes };
}

const file = (name: string, text: string): ImageText => ({ file: name, text });

test.each([
  ['alpine', 'docker.io/library/alpine:latest'],
  ['docker://quay.io/org/app:1', 'quay.io/org/app:1'],
  ['cr.example.com/k8s.gcr.io/pause:3.9', 'k8s.gcr.io/pause:3.9'],
  ['cr.example.com:443/quay.io/org/app', 'quay.io/org/app:latest'],
  ['gateway.internal/quay.io/org/app:1', 'quay.io/org/app:1'],
  ['cr.example.com/alpine:3', 'docker.io/library/alpine:3'],
  ['cr.example.com/org/app:3', 'docker.io/org/app:3'],
  ['quay.cr.example.com/org/app:1', 'quay.io/org/app:1'],
  ['docker.cr.example.com/alpine:3', 'docker.io/library/alpine:3'],
  ['hub.corp.example/org/app', 'docker.io/org/app:latest'],
  ['registry.corp:5000/app:1', 'registry.corp:5000/app:1'],
  [`europe.pkg.dev/p/r/app@${DIGEST}`, `europe.pkg.dev/p/r/app@${DIGEST}`],
  ['unknown.example/app:1', 'unknown.example/app:1'],
])('%s is %s upstream', (written, name) => {
  expect(read(written)).toEqual({ images: [name], unread: [], notes: [] });
});

test('of a plain list, lines are references and # begins a comment', () => {
  const list =
    '# the roll-out of May\nalpine:3 # base\n\nquay.io/org/app:1\r\ncr.example.com/alpine:3\n$REGISTRY/app\n';
  const { images, unread } = read(file('list.txt', list));
  expect(images).toEqual(['docker.io/library/alpine:3', 'quay.io/org/app:1']);
  expect(unread).toEqual([
    { reference: '$REGISTRY/app', where: 'list.txt:6', why: expect.stringContaining('variables') },
  ]);
});

test("Kubernetes' objects of several documents, whatever their kind and however many brackets they have", () => {
  const one = (kind: string, image: string) => `apiVersion: apps/v1
kind: ${kind}
spec: {template: {spec: {initContainers: [{name: a, image: ${image}}], containers: [{name: b, image: quay.io/org/app:1, resources: {}}], volumes: [${'{emptyDir: {}}, '.repeat(200)}]}}}
`;
  const text = [one('Deployment', 'alpine'), one('CronJob', 'cr.example.com/ghcr.io/a/b:2')].join('---\n');
  expect(read(file('all.yaml', text)).images).toEqual([
    'docker.io/library/alpine:latest',
    'quay.io/org/app:1',
    'ghcr.io/a/b:2',
  ]);
  const json = JSON.stringify({ kind: 'List', items: [{ kind: 'Pod', spec: { containers: [{ image: 'alpine' }] } }] });
  expect(read(file('pods.json', json)).images).toEqual(['docker.io/library/alpine:latest']);
});

test('compose files: what is built here is none, defaults of variables are taken, variables without are told', () => {
  const compose =
    'services:\n  a:\n    image: ${APP_IMAGE:-nginx:1}\n  b:\n    build: .\n    image: own/b\n  c:\n    image: "quay.io/org/c:${TAG}"\n  d: {image: "redis:${REDIS:-7}"}\n';
  const { images, unread } = read(file('compose.yaml', compose));
  expect(images).toEqual(['docker.io/library/nginx:1', 'docker.io/library/redis:7']);
  expect(unread).toEqual([
    { reference: 'quay.io/org/c:${TAG}', where: 'compose.yaml:8', why: expect.stringContaining('variables') },
  ]);
});

test("Helm's values, and templates that are no YAML yet", () => {
  const values =
    'image:\n  registry: quay.io\n  repository: org/app\n  tag: "1"\nside:\n  repository: redis\n  tag: 7\n';
  expect(read(file('values.yaml', values)).images).toEqual(['quay.io/org/app:1', 'docker.io/library/redis:7']);
  const template = '{{- if .Values.on }}\n  image: "{{ .Values.image }}"\n  image: alpine:3\n{{- end }}\n';
  const { images, unread } = read(file('t.yaml', template));
  expect(images).toEqual(['docker.io/library/alpine:3']);
  expect(unread).toHaveLength(1);
});

test('a Dockerfile, of which scratch and stages are nothing to fetch', () => {
  const text =
    'ARG BASE=alpine:3\nFROM $BASE AS build\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=quay.io/a/b:1 / /\n';
  expect(read(file('Dockerfile', text)).images).toEqual(['docker.io/library/alpine:3', 'quay.io/a/b:1']);
});

test('what is no reference is told with its place; a file without images too', () => {
  expect(read(file('list', 'alpine:3\nredis:..x\n')).unread).toEqual([
    { reference: 'redis:..x', where: 'list:2', why: expect.stringContaining('tag') },
  ]);
  expect(read(file('empty.yaml', 'a: b\n')).notes).toEqual(['empty.yaml: no image is named in it']);
});

test.each([
  ['lines', '\n'],
  ['one line', ''],
])(
  'an export of a cluster with a great many images, in %s, is read in its stride',
  (_, lineEnd) => {
    const count = 30_000;
    const items = Array.from({ length: count }, (_, at) => `{"image": "org/app${at}:1$"}`);
    const text = `{"items": [${items.join(`,${lineEnd}`)}]}`;
    const { unread, images } = read(file('export.json', text));
    expect([images.length, unread.length]).toEqual([0, count]);
    expect(unread.at(-1)?.where).toBe(`export.json:${lineEnd === '' ? 1 : count}`);
  },
  60_000,
);
