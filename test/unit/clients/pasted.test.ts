// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables as shells and compose files have them
import { expect, test } from 'vitest';
import { pastedReferences } from '../../../src/clients/pasted.ts';
import type { RewriteFacts } from '../../../src/clients/rewrite.ts';

const FACTS: RewriteFacts = {
  scheme: 'https',
  domain: 'cr.example.com',
  port: null,
  ownNames: [],
  registries: ['docker.io', 'quay.io', 'ghcr.io'],
  patterns: [],
  aliases: [],
};

test.each([
  ['alpine', ['alpine']],
  ['  quay.io/org/app:1  ', ['quay.io/org/app:1']],
  ['alpine redis:7', ['alpine', 'redis:7']],
  ['docker pull alpine', ['alpine']],
  ['$ sudo docker pull -q --platform linux/arm64 alpine', ['alpine']],
  ['root@host:~# docker image pull --platform=linux/arm64 alpine:3', ['alpine:3']],
  ['docker pull alpine && docker pull redis', ['alpine', 'redis']],
  ['docker run -d -p 80:80 -e A=b -v /x:/y --name web --restart always nginx:1 -g "daemon off;"', ['nginx:1']],
  ['docker run --rm -it -p80:80 --gpus all "nvcr.io/nvidia/cuda:12" nvidia-smi', ['nvcr.io/nvidia/cuda:12']],
  ['podman pull docker://quay.io/a/b', ['docker://quay.io/a/b']],
  ['nerdctl -n k8s.io pull alpine', ['alpine']],
  ['ctr -n k8s.io images pull --all-platforms docker.io/library/alpine:3', ['docker.io/library/alpine:3']],
  ['k3s ctr i pull docker.io/library/alpine:3', ['docker.io/library/alpine:3']],
  ['crictl pull --creds a:b registry.k8s.io/pause:3.10', ['registry.k8s.io/pause:3.10']],
  ['skopeo copy docker://quay.io/a/b:1 dir:/tmp/x', ['docker://quay.io/a/b:1']],
  ['helm install web oci://ghcr.io/org/charts/web --version 1.2.3', ['oci://ghcr.io/org/charts/web']],
  ['helm repo add x https://charts.example', []],
  ['crane pull quay.io/a/b:1 out.tar', ['quay.io/a/b:1']],
  ['kubectl run web --image=nginx --port 80', ['nginx']],
  ['kubectl set image deployment/web web=nginx:1 side=redis:2', ['nginx:1', 'redis:2']],
  ['grype registry:quay.io/a/b:1', ['quay.io/a/b:1']],
  ['trivy image --severity=HIGH quay.io/a/b:1', ['quay.io/a/b:1']],
  ['FROM golang:1.22 AS build', ['golang:1.22']],
  [
    'from --platform=$BUILDPLATFORM golang:1.22 as build\nRUN x\nFROM build\nCOPY --from=nginx:1 /a /b\nCOPY --from=build /a /b',
    ['golang:1.22', 'nginx:1'],
  ],
  ['FROM alpine\nRUN apk add \\\n  curl\nCMD ["sh"]', ['alpine']],
  ['image: nginx:1', ['nginx:1']],
  ['      - image: "quay.io/org/app:1"  # the app', ['quay.io/org/app:1']],
  ["  image: 'a/b@sha256:0000'", ['a/b@sha256:0000']],
  ['"image": "quay.io/org/app:1",', ['quay.io/org/app:1']],
  ['Image=quay.io/org/app:1', ['quay.io/org/app:1']],
  ['services:\n  web:\n    image: nginx\n    ports:\n      - "80:80"\n  db:\n    image: redis', ['nginx', 'redis']],
  ['apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: x\n    image: nginx', ['nginx']],
  ['https://hub.docker.com/_/nginx', ['nginx']],
  ['https://hub.docker.com/r/org/app/tags?page=1', ['org/app']],
  ['https://quay.io/repository/org/app', ['quay.io/org/app']],
  ['https://ghcr.io/org/app', ['ghcr.io/org/app']],
  ['FROM scratch', ['scratch']],
  [
    '# syntax=docker/dockerfile:1\nFROM golang:1.22\nRUN <<EOF\nimage: nope\ndocker pull nothing\nEOF\nCOPY <<-EOT /x\n hello world\nEOT',
    ['docker/dockerfile:1', 'golang:1.22'],
  ],
  ['ARG REGISTRY=quay.io\nFROM ${REGISTRY}/org/app:1', ['quay.io/org/app:1']],
  ['{"containers":[{"name":"a","image":"nginx:1"},{"image":"redis","name":"b"}]}', ['nginx:1', 'redis']],
  [
    'containers:\n- {name: z, image: busybox:1}\n- name: y\n  args: ["--image=foo"]\n  image: nginx',
    ['busybox:1', 'nginx'],
  ],
  ['image: nginx:${TAG:-1.27}\nenvironment:\n  - image=x', ['nginx:1.27']],
  ['image:\n  registry: quay.io\n  repository: org/app\n  tag: 1.0', ['quay.io/org/app:1.0']],
  [
    'runs-on: x\ncontainer: node:20\nsteps:\n- uses: docker://alpine:3\n- uses: actions/checkout@v4',
    ['node:20', 'docker://alpine:3'],
  ],
  ['docker run -dp 80:80 nginx', ['nginx']],
  ['docker run --rm alpine sh -c "date && ls; ps | cat"', ['alpine']],
  ['docker run -v ${PWD}:/x `\n  nginx', ['nginx']],
  ['docker login ghcr.io && docker build -t me/app .', []],
  ['```sh\ndocker pull nginx # the latest\n```', ['nginx']],
  ['Failed to pull image "quay.io/org/app:1": rpc error: code = Unknown', ['quay.io/org/app:1']],
  ["Unable to find image 'nginx:latest' locally", ['nginx:latest']],
  ['请拉取 docker.io/library/redis:7，谢谢。', ['docker.io/library/redis:7']],
  ['镜像：nginx：1.27', ['nginx:1.27']],
  ['docker　pull　nginx', ['nginx']],
  ['你好', []],
  [`[`.repeat(4000), ['['.repeat(4000)]],
  ['# docker pull nothing', []],
  ['docker pull', []],
  ['', []],
])('%j', (text, references) => {
  expect(pastedReferences(text, FACTS)).toEqual({ references, push: null });
});

test.each([
  'docker push quay.io/a/b',
  'docker image push quay.io/a/b',
  'skopeo sync x\nhelm push x.tgz oci://quay.io/a',
])('%j is a push', (text) => {
  expect(pastedReferences(text, FACTS).push).toMatch(/^(?:docker|helm) push$/);
});
