import { describe, expect, test } from 'vitest';
import { hostName, hostPort, roleOf } from '../../../src/edge/registry-name.ts';
import { type PullRoute, parsePing, resolvePull } from '../../../src/edge/target.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { snapshotOf } from '../../support/edge-bed.ts';

const D = `sha256:${'a'.repeat(64)}`;
const table = snapshotOf(
  'cr.example.com',
  ['docker.io', 'quay.io', 'k8s.gcr.io', 'localhost:5000', 'localhost', 'gcr.io', '[::1]:5000', '*.pkg.dev', 'hf.co'],
  { docker: 'docker.io', 'k8s-gcr': 'k8s.gcr.io', quay: 'quay.io', 'hub.corp.example': 'docker.io' },
);

function resolve(header: string | undefined, url: string): PullRoute | null {
  const [path = '', query = ''] = url.split('?', 2);
  return resolvePull({ host: hostName(header), port: hostPort(header), path, query }, table);
}

/** `registry repository what base ns`, or the error's code and status. */
function summary(header: string | undefined, url: string): string {
  try {
    const route = resolve(header, url);
    if (route === null) return 'none';
    const { registry, repository, what } = route.target;
    const subject =
      what.kind === 'manifest'
        ? `manifest:${what.reference.kind === 'tag' ? what.reference.tag : 'digest'}`
        : what.kind === 'tags'
          ? `tags n=${what.n} last=${what.last}`
          : what.kind === 'referrers'
            ? `referrers type=${what.artifactType}`
            : what.kind;
    return `${registry} ${repository} ${subject} base=${route.base} ns=${route.ns}`;
  } catch (error) {
    if (error instanceof RegistryError) return `${error.status} ${error.code}`;
    throw error;
  }
}

const BARE = 'cr.example.com';
const K8S = 'k8s-gcr.cr.example.com';
const HUB = 'docker.cr.example.com';

describe('the bare domain', () => {
  test.each([
    // prefix after /v2/
    ['/v2/quay.io/org/app/manifests/v1', 'quay.io org/app manifest:v1 base=/v2/quay.io/ ns=undefined'],
    [`/v2/quay.io/org/app/manifests/${D}`, 'quay.io org/app manifest:digest base=/v2/quay.io/ ns=undefined'],
    [`/v2/quay.io/org/app/blobs/${D}`, 'quay.io org/app blob base=/v2/quay.io/ ns=undefined'],
    ['/v2/quay.io/app/manifests/v1', 'quay.io app manifest:v1 base=/v2/quay.io/ ns=undefined'],
    ['/v2/docker.io/alpine/manifests/3', 'docker.io library/alpine manifest:3 base=/v2/docker.io/ ns=undefined'],
    ['/v2/docker.io/a/b/c/manifests/3', 'docker.io a/b/c manifest:3 base=/v2/docker.io/ ns=undefined'],
    ['/v2/index.docker.io/alpine/manifests/3', 'docker.io library/alpine manifest:3 base=/v2/docker.io/ ns=undefined'],
    ['/v2/localhost:5000/a/b/manifests/1', 'localhost:5000 a/b manifest:1 base=/v2/localhost:5000/ ns=undefined'],
    ['/v2/localhost%3A5000/a/b/manifests/1', 'localhost:5000 a/b manifest:1 base=/v2/localhost:5000/ ns=undefined'],
    ['/v2/localhost/a/manifests/1', 'localhost a manifest:1 base=/v2/localhost/ ns=undefined'],
    ['/v2/[::1]:5000/a/manifests/1', '[::1]:5000 a manifest:1 base=/v2/[::1]:5000/ ns=undefined'],
    ['/v2/QUAY.io/org/app/manifests/v1', 'quay.io org/app manifest:v1 base=/v2/quay.io/ ns=undefined'],
    // registry before /v2/
    ['/quay.io/v2/org/app/manifests/v1', 'quay.io org/app manifest:v1 base=/quay.io/v2/ ns=undefined'],
    ['/docker.io/v2/alpine/manifests/3', 'docker.io library/alpine manifest:3 base=/docker.io/v2/ ns=undefined'],
    ['/localhost:5000/v2/a/manifests/1', 'localhost:5000 a manifest:1 base=/localhost:5000/v2/ ns=undefined'],
    ['/localhost%3a5000/v2/a/manifests/1', 'localhost:5000 a manifest:1 base=/localhost:5000/v2/ ns=undefined'],
    ['/gcr.io/v2/quay.io/app/manifests/1', 'gcr.io quay.io/app manifest:1 base=/gcr.io/v2/ ns=undefined'],
    // neither: docker.io
    ['/v2/alpine/manifests/latest', 'docker.io library/alpine manifest:latest base=/v2/ ns=undefined'],
    ['/v2/library/alpine/manifests/latest', 'docker.io library/alpine manifest:latest base=/v2/ ns=undefined'],
    [`/v2/org/app/blobs/${D}`, 'docker.io org/app blob base=/v2/ ns=undefined'],
    ['/v2/alpine/tags/list', 'docker.io library/alpine tags n=undefined last=undefined base=/v2/ ns=undefined'],
    [`/v2/alpine/blobs/${D}`, 'docker.io library/alpine blob base=/v2/ ns=undefined'],
    [`/v2/alpine/referrers/${D}`, 'docker.io library/alpine referrers type=undefined base=/v2/ ns=undefined'],
    // a lone segment with a dot is a repository, as in image names
    ['/v2/foo.bar/manifests/1', 'docker.io library/foo.bar manifest:1 base=/v2/ ns=undefined'],
    // ns
    ['/v2/org/app/manifests/1?ns=quay.io', 'quay.io org/app manifest:1 base=/v2/ ns=quay.io'],
    ['/v2/app/manifests/1?ns=quay.io', 'quay.io app manifest:1 base=/v2/ ns=quay.io'],
    ['/v2/alpine/manifests/1?ns=docker.io', 'docker.io library/alpine manifest:1 base=/v2/ ns=docker.io'],
    ['/v2/a/manifests/1?ns=localhost:5000', 'localhost:5000 a manifest:1 base=/v2/ ns=localhost:5000'],
    ['/v2/a/manifests/1?ns=localhost%3A5000', 'localhost:5000 a manifest:1 base=/v2/ ns=localhost:5000'],
    ['/v2/a/manifests/1?ns=QUAY.io', 'quay.io a manifest:1 base=/v2/ ns=quay.io'],
    ['/v2/a/manifests/1?ns=', 'docker.io library/a manifest:1 base=/v2/ ns=undefined'],
    // the path wins over ns (override_path)
    ['/v2/quay.io/a/b/manifests/1?ns=docker.io', 'quay.io a/b manifest:1 base=/v2/quay.io/ ns=docker.io'],
    ['/quay.io/v2/a/b/manifests/1?ns=docker.io', 'quay.io a/b manifest:1 base=/quay.io/v2/ ns=docker.io'],
    ['/v2/quay.io/a/b/manifests/1?ns=nope.example', 'quay.io a/b manifest:1 base=/v2/quay.io/ ns=nope.example'],
    // names that look like routes
    ['/v2/manifests/manifests/1', 'docker.io library/manifests manifest:1 base=/v2/ ns=undefined'],
    ['/v2/a/blobs/manifests/1', 'docker.io a/blobs manifest:1 base=/v2/ ns=undefined'],
    [
      '/v2/quay.io/tags/list/tags/list',
      'quay.io tags/list tags n=undefined last=undefined base=/v2/quay.io/ ns=undefined',
    ],
    ['/v2/v2/manifests/1', 'docker.io library/v2 manifest:1 base=/v2/ ns=undefined'],
    ['/v2/quay.io/v2/manifests/1', 'quay.io v2 manifest:1 base=/v2/quay.io/ ns=undefined'],
    ['/quay.io/v2/v2/a/manifests/1', 'quay.io v2/a manifest:1 base=/quay.io/v2/ ns=undefined'],
    // a mirror configured without override_path
    ['/v2/quay.io/v2/org/app/manifests/1', 'quay.io org/app manifest:1 base=/v2/quay.io/v2/ ns=undefined'],
    ['/v2/quay.io/v2/app/manifests/1?ns=quay.io', 'quay.io app manifest:1 base=/v2/quay.io/v2/ ns=quay.io'],
    ['/v2/docker.io/v2/alpine/manifests/1', 'docker.io library/alpine manifest:1 base=/v2/docker.io/v2/ ns=undefined'],
    [`/v2/quay.io/v2/a/blobs/${D}`, 'quay.io a blob base=/v2/quay.io/v2/ ns=undefined'],
    ['/v2/quay.io/v2/v2/a/manifests/1', 'quay.io v2/a manifest:1 base=/v2/quay.io/v2/ ns=undefined'],
    // the names of Docker Hub
    ...[
      'index.docker.io',
      'registry-1.docker.io',
      'registry.docker.io',
      'registry.hub.docker.com',
      'docker.io:443',
    ].flatMap((hub): [string, string][] => [
      [`/v2/${hub}/org/app/manifests/1`, 'docker.io org/app manifest:1 base=/v2/docker.io/ ns=undefined'],
      [`/${hub}/v2/alpine/manifests/1`, 'docker.io library/alpine manifest:1 base=/docker.io/v2/ ns=undefined'],
      [
        `/v2/${hub}/v2/org/app/tags/list`,
        'docker.io org/app tags n=undefined last=undefined base=/v2/docker.io/v2/ ns=undefined',
      ],
      [`/v2/alpine/manifests/1?ns=${hub}`, `docker.io library/alpine manifest:1 base=/v2/ ns=${hub}`],
    ]),
    ['/v2/hub.docker.com/org/app/manifests/1', '403 DENIED'],
    [
      '/v2/hf.co/b/Llama-3.2-GGUF/manifests/Q4_K_M',
      'hf.co b/Llama-3.2-GGUF manifest:Q4_K_M base=/v2/hf.co/ ns=undefined',
    ],
    ['/v2/hf.co/b/Llama_.x/manifests/1', '400 NAME_INVALID'],
    // this gateway's own names: an alias host is its registry, the domain none
    ['/v2/org/app/manifests/1?ns=quay.cr.example.com', 'quay.io org/app manifest:1 base=/v2/ ns=quay.cr.example.com'],
    [
      '/v2/pause/manifests/1?ns=K8S-GCR.cr.example.com:8443',
      'k8s.gcr.io pause manifest:1 base=/v2/ ns=k8s-gcr.cr.example.com:8443',
    ],
    ['/v2/alpine/manifests/1?ns=hub.corp.example', 'docker.io library/alpine manifest:1 base=/v2/ ns=hub.corp.example'],
    ['/v2/quay.cr.example.com/org/app/manifests/1', 'quay.io org/app manifest:1 base=/v2/quay.io/ ns=undefined'],
    ['/quay.cr.example.com/v2/org/app/manifests/1', 'quay.io org/app manifest:1 base=/quay.io/v2/ ns=undefined'],
    ['/v2/org/app/manifests/1?ns=cr.example.com', 'docker.io org/app manifest:1 base=/v2/ ns=cr.example.com'],
    ['/v2/org/app/manifests/1?ns=cr.example.com:8443', 'docker.io org/app manifest:1 base=/v2/ ns=cr.example.com:8443'],
    [
      '/v2/quay.io/a/manifests/1?ns=cr.example.com:8443',
      'quay.io a manifest:1 base=/v2/quay.io/ ns=cr.example.com:8443',
    ],
    ['/v2/cr.example.com/a/manifests/1', '508 UNAVAILABLE'],
    ['/cr.example.com:8443/v2/a/manifests/1', '508 UNAVAILABLE'],
    ['/v2/a/manifests/1?ns=none.cr.example.com', '404 NAME_UNKNOWN'],
    ['/v2/none.cr.example.com/a/manifests/1', '404 NAME_UNKNOWN'],
    // a pattern: each host that matches
    [
      '/v2/us-docker.pkg.dev/p/r/app/manifests/1',
      'us-docker.pkg.dev p/r/app manifest:1 base=/v2/us-docker.pkg.dev/ ns=undefined',
    ],
    [
      '/v2/p/r/app/manifests/1?ns=eu-docker.pkg.dev',
      'eu-docker.pkg.dev p/r/app manifest:1 base=/v2/ ns=eu-docker.pkg.dev',
    ],
    ['/v2/pkg.dev/app/manifests/1', '403 DENIED'],
    ['/v2/a.b.pkg.dev/app/manifests/1', '403 DENIED'],
    ['/v2/a.pkg.dev:8443/app/manifests/1', '403 DENIED'],
    ['/v2/*.pkg.dev/app/manifests/1', '400 NAME_INVALID'],
    // pages and filters
    ['/v2/a/b/tags/list?n=5&last=1.0', 'docker.io a/b tags n=5 last=1.0 base=/v2/ ns=undefined'],
    ['/v2/a/b/tags/list?n=0', 'docker.io a/b tags n=0 last=undefined base=/v2/ ns=undefined'],
    ['/v2/a/b/tags/list?n=-1', 'docker.io a/b tags n=undefined last=undefined base=/v2/ ns=undefined'],
    ['/v2/a/b/tags/list?n=x', 'docker.io a/b tags n=undefined last=undefined base=/v2/ ns=undefined'],
    ['/v2/a/b/tags/list?n=5&ns=quay.io', 'quay.io a/b tags n=5 last=undefined base=/v2/ ns=quay.io'],
    [`/v2/a/b/referrers/${D}?artifactType=a%2Fb`, 'docker.io a/b referrers type=a/b base=/v2/ ns=undefined'],
    // percent-encoding is undone segment by segment
    ['/v2/a/b/manifests/v%31', 'docker.io a/b manifest:v1 base=/v2/ ns=undefined'],
    [`/v2/a/b/blobs/sha256%3A${'a'.repeat(64)}`, 'docker.io a/b blob base=/v2/ ns=undefined'],
    // refusals
    ['/v2/nope.example/a/manifests/1', '403 DENIED'],
    ['/nope.example/v2/a/manifests/1', '403 DENIED'],
    ['/v2/a/manifests/1?ns=nope.example', '403 DENIED'],
    ['/v2/a/manifests/1?ns=not a host', '400 NAME_INVALID'],
    ['/v2/quay.io:443/a/manifests/1', 'quay.io a manifest:1 base=/v2/quay.io/ ns=undefined'],
    ['/v2/quay.io:5000/a/manifests/1', '403 DENIED'],
    ['/v2/foo..bar/a/manifests/1', '400 NAME_INVALID'],
    ['/v2/Alpine/manifests/1', '400 NAME_INVALID'],
    ['/v2/a//b/manifests/1', '400 NAME_INVALID'],
    ['/v2//a/manifests/1', '400 NAME_INVALID'],
    ['/v2/../manifests/1', '400 NAME_INVALID'],
    ['/v2/a/../b/manifests/1', '400 NAME_INVALID'],
    ['/v2/../../etc/manifests/1', '400 NAME_INVALID'],
    ['/v2/quay.io/../docker.io/a/manifests/1', '400 NAME_INVALID'],
    ['/v2/a%2Fb/manifests/1', '400 NAME_INVALID'],
    ['/v2/quay.io%2Fa/manifests/1', '400 NAME_INVALID'],
    ['/v2/a%5Cb/manifests/1', '400 NAME_INVALID'],
    ['/v2/a%252Fb/manifests/1', '400 NAME_INVALID'],
    ['/v2/a%00b/manifests/1', '400 NAME_INVALID'],
    ['/v2/a%0Ab/manifests/1', '400 NAME_INVALID'],
    ['/v2/%zz/manifests/1', '400 NAME_INVALID'],
    ['/v2/%C3/manifests/1', '400 NAME_INVALID'],
    ['/v2/a/%2e%2e/manifests/1', '400 NAME_INVALID'],
    ['/v2/localhost:5000/manifests/1', '400 NAME_INVALID'],
    [`/v2/${'a'.repeat(300)}/manifests/1`, '400 NAME_INVALID'],
    ['/v2/a/manifests/-bad', '404 MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/.INVALID_MANIFEST_NAME', '404 MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/v%2F1', '404 MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/%00', '404 MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/v1+build', '404 MANIFEST_UNKNOWN'],
    ['/v2/quay.io/a/manifests/-bad?ns=docker.io', '404 MANIFEST_UNKNOWN'],
    [`/v2/a/manifests/${'t'.repeat(129)}`, '404 MANIFEST_UNKNOWN'],
    ['/v2/a/manifests/sha256:abc', '400 DIGEST_INVALID'],
    [`/v2/a/manifests/sha384:${'a'.repeat(96)}`, '400 DIGEST_INVALID'],
    ['/v2/a/blobs/sha256%2Fabc', '400 DIGEST_INVALID'],
    ['/v2/a/blobs/latest', '400 DIGEST_INVALID'],
    ['/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e', '400 DIGEST_INVALID'],
    [`/v2/a/blobs/sha256:${'A'.repeat(64)}`, '400 DIGEST_INVALID'],
    ['/v2/a/referrers/latest', '400 DIGEST_INVALID'],
    // nothing is there
    ['/v2/_catalog', '404 NAME_UNKNOWN'],
    ['/v2/a', '404 NAME_UNKNOWN'],
    ['/v2/a/b/c', '404 NAME_UNKNOWN'],
    ['/v2/manifests/latest', '404 NAME_UNKNOWN'],
    ['/v2/a/manifests/', '404 NAME_UNKNOWN'],
    ['/v2/a/tags/other', '404 NAME_UNKNOWN'],
    ['/v2/a/tags/list/', '404 NAME_UNKNOWN'],
    ['/v2/a/blobs/uploads/', '404 NAME_UNKNOWN'],
    ['/v2/quay.io/', '404 NAME_UNKNOWN'],
    // none of the content routes
    ['/', 'none'],
    ['/v2', 'none'],
    ['/v2/', 'none'],
    ['/quay.io/v2/', 'none'],
    ['/quay.io/v2', 'none'],
    ['/v1/search', 'none'],
    ['/library/v2/alpine/manifests/1', 'none'],
    ['/V2/a/manifests/1', 'none'],
    ['//v2/a/manifests/1', 'none'],
    ['/a/b/v2/c/manifests/1', 'none'],
    ['/%2Fv2/a/manifests/1', 'none'],
    ['/quay.io%2Fx/v2/a/manifests/1', 'none'],
  ])('%s', (url, expected) => {
    expect(summary(BARE, url)).toBe(expected);
  });
});

describe('localhost and addresses in ns are this gateway only as the client asked it', () => {
  test.each([
    ['localhost:8443', 'localhost:8443', 'docker.io org/app'],
    ['127.0.0.1:8443', 'localhost:8443', 'docker.io org/app'],
    ['[::1]:8443', '127.0.0.1:8443', 'docker.io org/app'],
    ['192.0.2.7', '192.0.2.7:443', 'docker.io org/app'],
    ['192.0.2.7:8443', '192.0.2.7', '403 DENIED'],
    ['localhost:8443', 'localhost:6000', '403 DENIED'],
    ['192.0.2.7', '192.0.2.8', '403 DENIED'],
    ['cr.example.com', '192.0.2.7', '403 DENIED'],
    ['localhost:8443', 'localhost:5000', 'localhost:5000 org/app'],
  ])('%s asked with ns=%s', (host, ns, expected) => {
    expect(summary(host, `/v2/org/app/manifests/1?ns=${ns}`)).toContain(expected);
  });

  test('a domain that is localhost has no other port', () => {
    const own = snapshotOf('localhost', ['docker.io'], {});
    const ask = (ns: string) =>
      resolvePull({ host: '127.0.0.1', port: '1', path: '/v2/a/manifests/1', query: `ns=${ns}` }, own);
    expect(ask('localhost')?.target.registry).toBe('docker.io');
    expect(() => ask('localhost:5000')).toThrow(/not in this gateway's table/);
  });
});

test('a pattern takes no name of this gateway, and a row of its own comes before it', () => {
  const own = snapshotOf('cr.corp.example', ['docker.io', 'quay.io', '*.corp.example', 'harbor.corp.example'], {
    'q.corp.example': 'quay.io',
  });
  const ask = (ns: string) =>
    resolvePull({ host: 'cr.corp.example', port: '', path: '/v2/x/a/manifests/1', query: `ns=${ns}` }, own)?.target
      .registry;
  expect([ask('cr.corp.example'), ask('q.corp.example'), ask('harbor.corp.example'), ask('git.corp.example')]).toEqual([
    'docker.io',
    'quay.io',
    'harbor.corp.example',
    'git.corp.example',
  ]);
});

describe('alias hosts', () => {
  test.each([
    [K8S, '/v2/pause/manifests/3.9', 'k8s.gcr.io pause manifest:3.9 base=/v2/ ns=undefined'],
    [K8S, '/v2/quay.io/app/manifests/1', 'k8s.gcr.io quay.io/app manifest:1 base=/v2/ ns=undefined'],
    [K8S, '/v2/localhost/app/manifests/1', 'k8s.gcr.io localhost/app manifest:1 base=/v2/ ns=undefined'],
    [K8S, '/v2/a/manifests/1?ns=quay.io', 'k8s.gcr.io a manifest:1 base=/v2/ ns=quay.io'],
    [K8S, '/v2/a/manifests/1?ns=k8s.gcr.io', 'k8s.gcr.io a manifest:1 base=/v2/ ns=k8s.gcr.io'],
    [K8S, '/v2/a/manifests/1?ns=nope.example', 'k8s.gcr.io a manifest:1 base=/v2/ ns=nope.example'],
    [K8S, '/v2/a/manifests/1?ns=%22bad', 'k8s.gcr.io a manifest:1 base=/v2/ ns=undefined'],
    [K8S, '/quay.io/v2/a/manifests/1', '404 NAME_UNKNOWN'],
    [K8S, '/k8s.gcr.io/v2/a/manifests/1', '404 NAME_UNKNOWN'],
    [HUB, '/v2/alpine/manifests/1', 'docker.io library/alpine manifest:1 base=/v2/ ns=undefined'],
    [HUB, '/v2/alpine/tags/list', 'docker.io library/alpine tags n=undefined last=undefined base=/v2/ ns=undefined'],
    [HUB, '/v2/org/app/manifests/1', 'docker.io org/app manifest:1 base=/v2/ ns=undefined'],
    ['hub.corp.example', '/v2/alpine/manifests/1', 'docker.io library/alpine manifest:1 base=/v2/ ns=undefined'],
  ])('%s %s', (host, url, expected) => {
    expect(summary(host, url)).toBe(expected);
  });
});

describe('hosts', () => {
  test.each([
    ['cr.example.com', 'bare'],
    ['CR.Example.COM', 'bare'],
    ['cr.example.com.', 'bare'],
    ['cr.example.com:8443', 'bare'],
    ['cr.example.com.:443', 'bare'],
    ['localhost', 'bare'],
    ['localhost:5000', 'bare'],
    ['127.0.0.1', 'bare'],
    ['198.51.100.7:8443', 'bare'],
    ['[::1]', 'bare'],
    ['[2001:db8::1]:443', 'bare'],
    [undefined, 'bare'],
    ['K8S-GCR.cr.example.com:443', 'alias'],
    ['hub.corp.example', 'alias'],
    ['hub.corp.example.cr.example.com', 'unknown'],
    ['other.cr.example.com', 'unknown'],
    ['xk8s-gcr.cr.example.com', 'unknown'],
    ['a.k8s-gcr.cr.example.com', 'unknown'],
    ['docker.io', 'unknown'],
    ['example.com', 'unknown'],
    ['evil.example', 'unknown'],
    ['cr.example.com..', 'unknown'],
    ['[::1', 'unknown'],
    ['cr.example.com@evil.example', 'unknown'],
  ])('%s', (header, kind) => {
    expect(roleOf(hostName(header), table).kind).toBe(kind);
  });

  test('no other registry is ever served under an unknown host', () => {
    for (const url of ['/v2/alpine/manifests/1', '/v2/quay.io/a/manifests/1', '/quay.io/v2/a/manifests/1?ns=quay.io']) {
      expect(summary('other.cr.example.com', url)).toBe('404 NAME_UNKNOWN');
    }
  });

  test('a host that is a port-carrying registry is still the bare domain', () => {
    expect(summary('127.0.0.1:5000', '/v2/alpine/manifests/1')).toContain('docker.io library/alpine');
  });
});

test('a table without docker.io refuses bare names in words', () => {
  const bare = snapshotOf('cr.example.com', ['quay.io'], {});
  const attempt = () =>
    resolvePull({ host: 'cr.example.com', port: '', path: '/v2/alpine/manifests/1', query: '' }, bare);
  expect(attempt).toThrow(/docker\.io is not in this gateway's table/);
});

test('a refusal tells the operator how to add the registry', () => {
  try {
    resolve(BARE, '/v2/nope.example/a/manifests/1');
    expect.unreachable();
  } catch (error) {
    expect((error as RegistryError).next).toContain('gateway alias add <name> nope.example');
  }
});

test('errors repeat a bounded part of what the client sent', () => {
  for (const url of [
    `/v2/${'x/'.repeat(4000)}manifests/1`,
    `/v2/${'y'.repeat(9000)}`,
    `/v2/${'A.'.repeat(4000)}/a/manifests/1`,
  ]) {
    try {
      resolve(BARE, url);
      expect.unreachable();
    } catch (error) {
      expect((error as RegistryError).message.length).toBeLessThan(400);
    }
  }
});

describe('pings', () => {
  test.each([
    ['/v2/', { registry: undefined }],
    ['/v2', { registry: undefined }],
    ['/quay.io/v2/', { registry: 'quay.io' }],
    ['/quay.io/v2', { registry: 'quay.io' }],
    ['/localhost%3A5000/v2/', { registry: 'localhost:5000' }],
    ['/library/v2/', null],
    ['/v2/quay.io/', null],
    ['/v2/quay.io/v2/', { registry: 'quay.io' }],
    ['/v2/quay.io/v2', { registry: 'quay.io' }],
    ['/Quay.io./v2/', { registry: 'quay.io' }],
    ['/v2/v2/', null],
    ['/v2//', null],
    ['/', null],
    ['/quay.io/v2/x', null],
  ])('%s', (path, expected) => {
    expect(parsePing(path)).toEqual(expected);
    // A ping is no pull of anything.
    if (expected !== null) expect(resolve(BARE, path)).toBeNull();
  });
});
