import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { differenceOf, type Place, planApply, planUndo } from '../../src/clients/apply/apply.ts';
import { ClientFiles } from '../../src/clients/apply/files.ts';
import { CLIENT_KINDS, type ClientFacts, type ClientKind } from '../../src/clients/facts.ts';

const FACTS: ClientFacts = {
  domain: 'cr.example.com',
  scheme: 'https',
  port: 8443,
  ownNames: [],
  ca: { pem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', file: 'ca.crt' },
  registries: ['docker.io', 'quay.io', 'registry.corp:5000'],
  patterns: [],
  aliases: [
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true },
    { name: 'corp', host: 'corp.cr.example.com', registry: 'registry.corp:5000', certificate: true },
  ],
  credentials: false,
};
const LOGIN = { username: 'ci', password: 'se:cret' };

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'clients-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function placeFor(kind: ClientKind, versions: Record<string, readonly [number, number]> = {}): Place {
  const files = new ClientFiles({ root, home: '/root', cwd: join(root, 'work') });
  return {
    kind,
    files,
    home: null,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    version: (program) => versions[program] ?? null,
  };
}

/** A file's text, or where a link leads. */
type Given = Readonly<
  Record<string, string | { readonly link: string } | { readonly text: string; readonly mode: number }>
>;

function lay(given: Given): void {
  mkdirSync(join(root, 'work'), { recursive: true });
  for (const [path, content] of Object.entries(given)) {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    if (typeof content === 'string') writeFileSync(file, content);
    else if ('link' in content) symlinkSync(content.link, file);
    else {
      writeFileSync(file, content.text);
      chmodSync(file, content.mode);
    }
  }
}

/** Every file and folder below the root with its bytes, mode and links. */
function tree(): Record<string, string> {
  const all = readdirSync(root, { recursive: true, withFileTypes: true });
  return Object.fromEntries(
    all
      .map((entry): [string, string] => {
        const path = join(entry.parentPath, entry.name);
        const mode = (lstatSync(path).mode & 0o777).toString(8);
        if (entry.isSymbolicLink()) return [path, `link ${readlinkSync(path)}`];
        return [path, entry.isDirectory() ? `folder ${mode}` : `${mode} ${readFileSync(path, 'latin1')}`];
      })
      .sort(),
  );
}

function text(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

const apply = (kind: ClientKind, facts = FACTS, login: typeof LOGIN | null = null, versions = {}) => {
  const change = planApply(placeFor(kind, versions), facts, login);
  change.carryOut();
  return change;
};
const undo = (kind: ClientKind) => {
  const change = planUndo(placeFor(kind));
  change?.carryOut();
  return change;
};

const MAIN: Record<ClientKind, string> = {
  docker: '/etc/docker/daemon.json',
  containerd: '/etc/containerd/config.toml',
  podman: '/etc/containers/registries.conf',
  'cri-o': '/etc/containers/registries.conf.d/10-mirrors.conf',
  k3s: '/etc/rancher/k3s/registries.yaml',
  buildkit: '/etc/buildkit/buildkitd.toml',
  kind: '/work/kind-cluster.yaml',
  minikube: '/root/.minikube/files/etc/containerd/certs.d/_default/hosts.toml',
};
const HOSTS =
  '# hand-made\nserver = "https://mirror.corp" # first\n\n# the company\'s\n[host."https://mirror.corp"]\n  capabilities = ["pull"]\n';
const OUR_HOST = '[host."https://cr.example.com:8443"]\n  capabilities = ["push"] # old\n  skip_verify = false\n';
const DAEMON =
  '{\n    "debug": true,\n    "registry-mirrors": ["https://mirror.corp/"],\n    "log-opts": { "max-size": "10m" }\n}\n';
const CONFIG =
  'version = 2 # CRI\n\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "pause:3.9" # ours\n  [plugins."io.containerd.grpc.v1.cri".registry]\n    config_path = ""\n';
const REGISTRIES =
  'unqualified-search-registries = ["docker.io"] # short names\n\n[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\n\n[[registry.mirror]]\nlocation = "mirror.corp/quay" # first\n\n[[registry]]\nlocation = "registry.corp:5000"\ninsecure = true\n';
const YAML =
  '# mirrors of the site\nmirrors:\n  "docker.io": # the hub\n    endpoint:\n    - "https://mirror.corp"\n  registry.corp:5000:\n    endpoint: [http://10.0.0.1:5000]\nconfigs:\n  "mirror.corp":\n    tls: {ca_file: /etc/corp.crt}\n';
const BUILDKITD =
  'debug = true\n\n[worker.oci]\n  gc = true # on\n\n[registry."docker.io"]\n  mirrors = ["mirror.corp"] # company\n  http = false\n';
const CLUSTER =
  '# three nodes\nkind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane # first\n- role: worker\n  extraMounts:\n  - hostPath: /data\n    containerPath: /data\n';

/** Per kind: what is in its main file; each also with CRLF, a BOM, no last line end, as a linked file, and none at all. */
const CONTENTS: Record<ClientKind, readonly string[]> = {
  docker: [
    DAEMON,
    '{\n\t"registry-mirrors": [\n\t\t"https://cr.example.com:8443"\n\t]\n}',
    '{}',
    '{ "registry-mirrors": [] }\n',
    ' \n',
  ],
  containerd: [
    CONFIG,
    'version = 3\n',
    'version = 2\n[plugins]\n  [plugins.other]\n    a = 1\n',
    '# nothing\nversion = 2\n',
    '[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "overlayfs"\n\nversion = 3\n'.replace(
      /^([\s\S]*)\nversion = 3\n$/,
      'version = 3\n$1',
    ),
  ],
  podman: [
    REGISTRIES,
    'short-name-mode = "enforcing"\n',
    '# only a comment\n',
    '',
    '[[registry]]\nprefix = "*.corp.example"\nlocation = "mirror.corp"\nblocked = false\n',
  ],
  'cri-o': [
    REGISTRIES,
    '[[registry]]\nlocation = "docker.io"\nmirror = [{ location = "mirror.corp" }]\n',
    '# only a comment\n',
    '',
    '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "cr.example.com:8443/docker.io"\n',
  ],
  k3s: [
    YAML,
    'mirrors:\n',
    '# nothing yet\n',
    '',
    'configs: {}\nmirrors:\n    quay.io:\n        endpoint:\n            - https://cr.example.com:8443\n            - https://mirror.corp\n',
  ],
  buildkit: [
    BUILDKITD,
    '[registry."cr.example.com:8443"]\n  http = true\n  ca = ["/etc/other.crt"]\n',
    '# nothing\n',
    '',
    '[registry]\n  [registry."quay.io"]\n    mirrors = ["cr.example.com:8443/quay.io"]\n',
  ],
  kind: [
    CLUSTER,
    'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n',
    '# empty\n',
    '',
    'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}]\n',
  ],
  minikube: [HOSTS, OUR_HOST, '# nothing\n', '', `${HOSTS}\n${OUR_HOST}`],
};

describe.each(CLIENT_KINDS)('%s', (kind) => {
  const main = MAIN[kind];
  const cases: [string, Given][] = [
    ...CONTENTS[kind].map((content, index): [string, Given] => [`existing file ${index + 1}`, { [main]: content }]),
    ['CRLF', { [main]: CONTENTS[kind][0]?.replaceAll('\n', '\r\n') ?? '' }],
    ['a byte order mark', { [main]: `\uFEFF${CONTENTS[kind][0]}` }],
    ['no last line end', { [main]: CONTENTS[kind][0]?.replace(/\n$/, '') ?? '' }],
    ['a link', { '/opt/shared': CONTENTS[kind][0] ?? '', [main]: { link: '/opt/shared' } }],
    ['a closed file', { [main]: { text: CONTENTS[kind][0] ?? '', mode: 0o640 } }],
    ['no file', {}],
  ];

  test.each(cases)('%s: put in, twice the same, taken out byte by byte', (name, given) => {
    // A file of the folder where the person is, is not followed within another root.
    if (kind === 'kind' && name === 'a link') given = { ...given, [main]: { link: join(root, 'opt/shared') } };
    lay(given);
    const before = tree();
    // Certificates are many files, which one case has.
    const facts = name === 'no file' ? FACTS : { ...FACTS, ca: null };
    const first = apply(kind, facts);
    expect(first.files.length).toBeGreaterThan(0);
    const applied = tree();
    expect(Object.values(applied).join('\n')).toContain('cr.example.com:8443');
    expect(apply(kind, facts).files).toEqual([]);
    expect(tree()).toEqual(applied);
    // What was there is there still: no line is lost but those that a list of ours goes into.
    if (main in given && name === 'existing file 1') {
      for (const comment of (CONTENTS[kind][0] ?? '').match(/#.*$/gm) ?? []) expect(text(main)).toContain(comment);
      expect(text(`${main}.before-gateway`)).toBe(CONTENTS[kind][0]);
    }
    undo(kind);
    expect(tree()).toEqual(before);
    expect(undo(kind)).toBeNull();
  });
});

test('a difference says what would change, and hides secrets', () => {
  lay({ '/etc/docker/daemon.json': DAEMON });
  const change = planApply(placeFor('docker'), { ...FACTS, credentials: true }, LOGIN);
  const shown = change.files.map((file) => differenceOf(file, [Buffer.from('ci:se:cret').toString('base64')])).join('');
  expect(shown).toContain('+        "https://cr.example.com:8443",');
  expect(shown).toContain('authorization = "Basic <hidden>"');
  expect(existsSync(join(root, '/etc/docker/certs.d'))).toBe(false);
});

test('with a login: the header, in a file that nobody else reads', () => {
  lay({ '/etc/docker/certs.d/_default/hosts.toml': { text: HOSTS, mode: 0o644 } });
  const before = tree();
  apply('docker', { ...FACTS, credentials: true }, LOGIN);
  const path = '/etc/docker/certs.d/_default/hosts.toml';
  expect(text(path)).toContain(
    '[host."https://cr.example.com:8443".header]\n  authorization = "Basic Y2k6c2U6Y3JldA=="\n\n# the company\'s\n[host."https://mirror.corp"]',
  );
  expect(statSync(join(root, path)).mode & 0o777).toBe(0o600);
  undo('docker');
  expect(tree()).toEqual(before);
  expect(() => apply('docker', { ...FACTS, credentials: true })).toThrow(/asks for credentials/);
  apply('podman', { ...FACTS, credentials: true });
});

test('our host with other settings keeps what is none of ours', () => {
  lay({ '/etc/docker/certs.d/_default/hosts.toml': OUR_HOST });
  apply('docker');
  const now = text('/etc/docker/certs.d/_default/hosts.toml');
  expect(now).toContain('capabilities = ["pull", "resolve", "referrers"] # old');
  expect(now).toContain('skip_verify = false');
  expect(now).toContain('dial_timeout = "3s"');
});

test('a registry with a hosts.toml of its own is mirrored there too', () => {
  lay({ '/etc/docker/certs.d/quay.io/hosts.toml': HOSTS, '/etc/docker/certs.d/other.example/hosts.toml': HOSTS });
  apply('docker');
  expect(text('/etc/docker/certs.d/quay.io/hosts.toml')).toMatch(/cr\.example\.com:8443"\][\s\S]*mirror\.corp"\]/);
  expect(text('/etc/docker/certs.d/other.example/hosts.toml')).toBe(HOSTS);
});

test('docker: which version wants what', () => {
  lay({});
  apply('docker', FACTS, null, { dockerd: [28, 3] });
  expect(text('/etc/docker/certs.d/_default/hosts.toml')).toContain('capabilities = ["pull", "resolve"]\n');
  undo('docker');
  apply('docker', FACTS, null, { dockerd: [20, 10] });
  expect(existsSync(join(root, '/etc/docker/certs.d/_default/hosts.toml'))).toBe(false);
  expect(text('/etc/docker/daemon.json')).toContain('https://cr.example.com:8443');
});

test('docker with mirrors by flags gets another flag, since it does not start with both', () => {
  lay({ '/etc/default/docker': '# flags\nDOCKER_OPTS="--dns 8.8.8.8 --registry-mirror=https://mirror.corp"\n' });
  const change = apply('docker');
  expect(text('/etc/default/docker')).toBe(
    '# flags\nDOCKER_OPTS="--dns 8.8.8.8 --registry-mirror=https://mirror.corp --registry-mirror=https://cr.example.com:8443"\n',
  );
  expect(existsSync(join(root, '/etc/docker/daemon.json'))).toBe(false);
  expect(change.restart).toEqual(['systemctl restart docker']);
  undo('docker');
  lay({
    '/etc/systemd/system/docker.service.d/mirror.conf':
      '[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --registry-mirror=x\n',
  });
  expect(() => apply('docker')).toThrow(/mirror\.conf starts dockerd with --registry-mirror/);
});

test('upstart has a variable in place of daemon.json', () => {
  lay({ '/etc/init/docker.conf': 'exec dockerd $DOCKER_OPTS\n' });
  expect(apply('docker').restart).toEqual(['service docker restart']);
  expect(text('/etc/default/docker')).toBe('DOCKER_OPTS="--registry-mirror=https://cr.example.com:8443"\n');
});

test('a daemon with a proxy reaches the gateway without it', () => {
  const folder = '/etc/systemd/system/docker.service.d';
  lay({
    [`${folder}/http-proxy.conf`]:
      '[Service]\nEnvironment="HTTPS_PROXY=http://proxy:3128" "NO_PROXY=localhost,.corp"\n',
    '/etc/docker/daemon.json': '{"proxies": {"https-proxy": "http://proxy:3128", "no-proxy": "10.0.0.0/8"}}\n',
  });
  const change = apply('docker');
  const words = 'localhost,.corp,cr.example.com';
  expect(text(`${folder}/zz-registry-gateway.conf`)).toBe(
    `[Service]\nEnvironment="NO_PROXY=${words}" "no_proxy=${words}"\n`,
  );
  expect(JSON.parse(text('/etc/docker/daemon.json')).proxies).toEqual({
    'https-proxy': 'http://proxy:3128',
    'no-proxy': '10.0.0.0/8,cr.example.com',
  });
  expect(change.restart).toEqual(['systemctl restart docker', 'systemctl daemon-reload']);
});

test('containerd: the folder that config.toml names is used, others are not changed', () => {
  lay({ '/etc/containerd/config.toml': CONFIG.replace('""', '"/etc/cri/certs.d:/etc/docker/certs.d"') });
  apply('containerd', FACTS, null, { containerd: [2, 2] });
  expect(text('/etc/cri/certs.d/_default/hosts.toml')).toContain('"referrers"');
  expect(text('/etc/containerd/config.toml')).toContain('/etc/cri/certs.d:/etc/docker/certs.d');
});

test.each([
  ['docker', '/etc/docker/daemon.json', '{ // debugging\n "debug": true }', 'is no JSON'],
  ['docker', '/etc/docker/daemon.json', '{"registry-mirrors": "https://mirror.corp"}', 'something else than a list'],
  ['docker', '/etc/docker/daemon.json', '[]', 'no mapping'],
  ['containerd', '/etc/containerd/config.toml', 'version = 1\n', 'version 1'],
  ['containerd', '/etc/containerd/config.toml', 'version = \n', 'is no TOML'],
  [
    'containerd',
    '/etc/containerd/config.toml',
    'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["x"]\n',
    'refuses beside config_path',
  ],
  ['podman', '/etc/containers/registries.conf', '[registries.search]\nregistries = ["docker.io"]\n', 'version 1'],
  ['k3s', '/etc/rancher/k3s/registries.yaml', 'mirrors: [\n', 'is no YAML'],
  ['k3s', '/etc/rancher/k3s/registries.yaml', 'mirrors: none\n', 'plain value'],
  ['buildkit', '/etc/buildkit/buildkitd.toml', 'registry = 1\n', ''],
  [
    'docker',
    '/etc/docker/certs.d/_default/hosts.toml',
    'host."https://m.example".capabilities = ["pull"]\n',
    'no place before it',
  ],
  ['minikube', '/root/.minikube/files/etc/containerd/certs.d/_default/hosts.toml', '\u0000', 'is no TOML'],
] as const)('%s: what cannot be read is refused in words, and nothing is changed (%#)', (kind, path, content, why) => {
  lay({ [path]: content });
  const before = tree();
  expect(() => apply(kind)).toThrow(why);
  expect(tree()).toEqual(before);
});

test('a file that is no UTF-8 is refused', () => {
  lay({});
  mkdirSync(join(root, 'etc/docker'), { recursive: true });
  writeFileSync(join(root, 'etc/docker/daemon.json'), Buffer.from([0x7b, 0xff, 0x7d]));
  expect(() => apply('docker')).toThrow('no text in UTF-8');
});

describe('a file that was edited since', () => {
  const path = '/etc/containers/registries.conf';

  test('keeps what is new when the gateway is taken out', () => {
    lay({ [path]: REGISTRIES });
    apply('podman');
    writeFileSync(join(root, path), `${text(path)}\n# added later\n[[registry]]\nlocation = "new.example"\n`);
    undo('podman');
    expect(text(path)).toBe(`${REGISTRIES}\n# added later\n[[registry]]\nlocation = "new.example"\n`);
  });

  test('keeps it when the gateway is put in again, and is undone to that', () => {
    lay({ [path]: REGISTRIES });
    apply('podman');
    writeFileSync(join(root, path), `# on top\n${text(path)}`);
    apply('podman', { ...FACTS, domain: 'other.example' });
    expect(text(path)).toContain('other.example');
    expect(text(path)).not.toContain('cr.example.com:8443/quay.io');
    undo('podman');
    expect(text(path)).toBe(`# on top\n${REGISTRIES}`);
  });

  test('is left alone where our lines cannot be told from the others', () => {
    lay({ '/etc/docker/daemon.json': DAEMON });
    apply('docker');
    const edited = text('/etc/docker/daemon.json').replace(
      '"https://cr.example.com:8443"',
      '"https://cr.example.com:8443/x"',
    );
    writeFileSync(join(root, '/etc/docker/daemon.json'), edited);
    const before = tree();
    expect(() => undo('docker')).toThrow(/daemon\.json \(as it was before: .*daemon\.json\.before-gateway\)/);
    expect(tree()).toEqual(before);
    writeFileSync(join(root, '/etc/docker/daemon.json'), DAEMON);
    undo('docker');
    expect(readdirSync(join(root, 'etc/docker'))).toEqual(['daemon.json']);
  });
});

test('a registry that has left the table leaves the files', () => {
  lay({ '/etc/rancher/k3s/registries.yaml': YAML });
  apply('k3s');
  apply('k3s', { ...FACTS, registries: ['docker.io'] });
  expect(text('/etc/rancher/k3s/registries.yaml')).not.toContain('quay.io:');
  undo('k3s');
  expect(text('/etc/rancher/k3s/registries.yaml')).toBe(YAML);
});

test('another gateway takes the place of the one before, and one undo takes out either', () => {
  lay({ '/etc/docker/daemon.json': DAEMON });
  const before = tree();
  apply('docker');
  const second = planApply(placeFor('docker'), { ...FACTS, domain: 'two.example' }, null);
  expect(second.before).toBe('https://cr.example.com:8443');
  second.carryOut();
  expect(text('/etc/docker/daemon.json')).not.toContain('cr.example.com');
  undo('docker');
  expect(tree()).toEqual(before);
});

test('what cannot be written as a whole is not written in part', () => {
  // A folder where a file is wanted: it is found only as the file is written.
  lay({ '/etc/containers/registries.conf': REGISTRIES });
  const before = tree();
  const place = placeFor('podman');
  const change = planApply(place, FACTS, null);
  const last = change.files.at(-1)?.path ?? '';
  mkdirSync(join(root, last), { recursive: true });
  expect(() => change.carryOut()).toThrow(`${last} cannot be written`);
  rmSync(join(root, last), { recursive: true });
  expect(text('/etc/containers/registries.conf')).toBe(REGISTRIES);
  expect(Object.keys(tree()).filter((path) => !/certs\.d/.test(path))).toEqual(Object.keys(before));
  expect(planUndo(place)).toBeNull();
});

test('RKE2 where it is there', () => {
  lay({ '/etc/rancher/rke2/config.yaml': 'x: 1\n' });
  expect(apply('k3s').restart).toEqual(['systemctl restart rke2-server']);
  expect(existsSync(join(root, '/etc/rancher/rke2/registries.yaml'))).toBe(true);
  expect(existsSync(join(root, '/etc/rancher/k3s'))).toBe(false);
});
