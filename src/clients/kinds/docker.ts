import { OperatorError } from '../../kit/operator-error.ts';
import type { Edit } from '../edits.ts';
import {
  authority,
  baseUrl,
  type ClientFacts,
  caFiles,
  copyRoot,
  type Login,
  type Machine,
  mirrorLocation,
  notes,
  type Plan,
  together,
} from '../facts.ts';
import { EVERY_VERSION, headerNote, hostsFiles, loginNote, quoted, WITH_REFERRERS } from '../hosts-toml.ts';
import { aroundProxy, ownNames } from '../proxy.ts';

export const DOCKER_CERTS = '/etc/docker/certs.d';
const DAEMON_JSON = '/etc/docker/daemon.json';
/** Where init scripts and upstart take dockerd's flags from. */
const DEFAULTS = '/etc/default/docker';
const UPSTART = '/etc/init/docker.conf';
const UNITS = '/etc/systemd/system/docker.service';

/** The first version whose containerd image store reads hosts.toml, and the first that knows `referrers`. */
const [WITH_HOSTS, KNOWS_REFERRERS] = [28, 29];

/**
 * Docker mirrors docker.io by `registry-mirrors`, whichever store it keeps images in; with containerd's store it reads `hosts.toml` as well,
 * for every registry, at each pull. Both are written: each Docker takes from them what it knows.
 */
export function docker(facts: ClientFacts, machine: Machine, login: Login | null): Plan {
  const [major] = machine.version('dockerd') ?? machine.version('docker') ?? [KNOWS_REFERRERS];
  const capabilities = major >= KNOWS_REFERRERS ? WITH_REFERRERS : EVERY_VERSION;
  const also = machine
    .list(DOCKER_CERTS)
    .filter((name) => facts.registries.includes(name) && machine.read(`${DOCKER_CERTS}/${name}/hosts.toml`) !== null);
  const folder = { seen: DOCKER_CERTS, written: DOCKER_CERTS, also };
  return together(
    major < WITH_HOSTS ? notes() : hostsFiles(facts, folder, capabilities, login),
    classic(facts, machine),
    caFiles(facts, DOCKER_CERTS, machine.known ? undefined : [authority(facts)]),
    notes(...words(facts, machine, login, also)),
    aroundProxy(facts, machine, 'docker'),
  );
}

/** What the daemon itself is told: in daemon.json, or by flags where it has such flags already, since it does not start with both. */
function classic(facts: ClientFacts, machine: Machine): Plan {
  const flags = machine.read(DEFAULTS) ?? '';
  const byFlag = /^\s*(?:export\s+)?DOCKER_OPTS=.*--registry-mirror/m.test(flags);
  refuseUnitFlags(machine);
  const insecure = facts.scheme === 'http' ? [authority(facts)] : [];
  const daemon = machine.read(DAEMON_JSON);
  const upstart = machine.read(UPSTART) !== null;
  const edits: Edit[] = [];
  // It takes mirrors into use as it runs, and containers go on (dockerd(8), Configuration reload behavior); flags and proxies it reads at its start.
  let restart = 'systemctl reload docker';
  if (byFlag || (upstart && daemon === null)) {
    const words = [`--registry-mirror=${baseUrl(facts)}`, ...insecure.map((host) => `--insecure-registry=${host}`)];
    edits.push({ path: DEFAULTS, format: 'variable', name: 'DOCKER_OPTS', words });
    restart = upstart ? 'service docker restart' : 'systemctl restart docker';
  } else {
    const places = [
      { at: ['registry-mirrors'], value: [baseUrl(facts)] },
      ...(insecure.length === 0 ? [] : [{ at: ['insecure-registries'], value: insecure }]),
      ...noProxy(facts, daemon),
    ];
    edits.push({ path: DAEMON_JSON, format: 'json', places });
    if (places.some(({ at }) => at[0] === 'proxies')) restart = 'systemctl restart docker';
  }
  return { edits, notes: [], restart: [restart] };
}

/** daemon.json may name a proxy itself (Docker 23 and later). */
function noProxy(facts: ClientFacts, daemon: string | null) {
  let given: unknown;
  try {
    given = (JSON.parse((daemon ?? '{}').replace(/^\uFEFF/, '')) as { proxies?: unknown } | null)?.proxies;
  } catch {
    // Whoever merges says where the error is.
    return [];
  }
  if (typeof given !== 'object' || given === null) return [];
  const before = String((given as Record<string, unknown>)['no-proxy'] ?? '');
  const words = before.split(',').filter((word) => word !== '');
  const missing = ownNames(facts).filter((name) => !words.includes(name) && before !== '*');
  return missing.length === 0 ? [] : [{ at: ['proxies', 'no-proxy'], value: [...words, ...missing].join(',') }];
}

/** @throws {OperatorError} CLIENT_FILE_REFUSED */
function refuseUnitFlags(machine: Machine): void {
  const units = [UNITS, ...machine.list(`${UNITS}.d`).map((name) => `${UNITS}.d/${name}`)];
  const flagged = units.find((unit) => /^\s*ExecStart=.*--registry-mirror/m.test(machine.read(unit) ?? ''));
  if (flagged === undefined) return;
  throw new OperatorError('CLIENT_FILE_REFUSED', `${flagged} starts dockerd with --registry-mirror`, {
    next: 'Docker does not start with mirrors both there and in daemon.json: move that flag into daemon.json, and try again',
  });
}

function words(facts: ClientFacts, machine: Machine, login: Login | null, also: readonly string[]): string[] {
  const other = facts.registries.find(
    (registry) => registry !== 'docker.io' && mirrorLocation(facts, registry) !== null,
  );
  const alias = facts.aliases.find((one) => one.registry === other);
  const names = [
    ...(other === undefined ? [] : [`docker pull ${mirrorLocation(facts, other)}/NAME:TAG`]),
    ...(alias === undefined ? [] : [`docker pull ${authority(facts, alias.host)}/NAME:TAG`]),
  ];
  return [
    `Docker 29 and later, with the containerd image store (what new installations have; docker info then says
"driver-type: io.containerd.snapshotter.v1"): ${DOCKER_CERTS}/_default/hosts.toml mirrors every registry, names
unchanged, from the next pull on, without a restart. It needs the word "referrers": without it each layer comes through the
gateway, and then the pull fails where the registry itself cannot be reached. Keep it to this one host: with two or more,
Docker passes registry-mirrors over.`,
    `Docker 28 with the containerd image store: the same file without that word, which it does not know; it passes the whole
file over for it:
  capabilities = ${quoted(EVERY_VERSION)}`,
    `Docker with the classic image store (before 29, and installations that were upgraded): daemon.json mirrors docker.io
and nothing else. Keep what it has already and add these keys, then: systemctl restart docker`,
    ...(machine.known
      ? ownFolders(machine, facts, also)
      : [
          `Docker under upstart or an init script, and any that has --registry-mirror in ${DEFAULTS}: in place of daemon.json, since
Docker does not start with mirrors in both:
  DOCKER_OPTS="$DOCKER_OPTS --registry-mirror=${baseUrl(facts)}"
then: service docker restart`,
        ]),
    ...(names.length === 0
      ? []
      : [`It pulls from other registries by a name under the gateway:\n  ${names.join('\n  ')}`]),
    ...(machine.known ? [] : copyRoot(facts, DOCKER_CERTS, `${DOCKER_CERTS}/${authority(facts)}/ca.crt`)),
    ...headerNote(facts, login),
    ...loginNote(facts, 'docker login'),
    ...(facts.credentials
      ? [
          `The classic store sends its docker.io login to a mirror, not this one: there, after docker login ${authority(facts)},\npull ${authority(facts)}/docker.io/library/NAME:TAG`,
        ]
      : []),
  ];
}

/** Folders of registries that hold certificates alone: they keep their registry from `_default`, and a hosts.toml would switch those off. */
function ownFolders(machine: Machine, facts: ClientFacts, also: readonly string[]): string[] {
  return machine
    .list(DOCKER_CERTS)
    .filter((name) => facts.registries.includes(name) && !also.includes(name))
    .map(
      (name) =>
        `${name} has a folder of its own in ${DOCKER_CERTS}, for its certificates: it is not mirrored by hosts.toml.`,
    );
}
