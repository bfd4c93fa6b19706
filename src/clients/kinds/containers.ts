import { OperatorError } from '../../kit/operator-error.ts';
import type { Edit, MirroredRegistry } from '../edits.ts';
import {
  authority,
  type ClientFacts,
  caFiles,
  copyRoot,
  type Machine,
  mirrorLocation,
  notes,
  ownHosts,
  type Plan,
  patternNotes,
  together,
} from '../facts.ts';
import { loginNote } from '../hosts-toml.ts';
import { aroundProxy } from '../proxy.ts';
import { readToml } from '../toml.ts';

const SYSTEM = '/etc/containers';
const OURS = '50-gateway.conf';
const KUBELET_LOGINS = '/var/lib/kubelet/config.json';
/** Mirrors are logged in to as registries are. */
const ASKS = 'The gateway asks for credentials';

/** containers-registries.conf(5), version 2: each registry gets the gateway as its mirror, and itself as the fallback. */
function containers(facts: ClientFacts, machine: Machine): Plan {
  const base = machine.home === null ? SYSTEM : `${machine.home}/.config/containers`;
  const ours = `${base}/registries.conf.d/${OURS}`;
  const wanted = facts.registries.flatMap((registry): MirroredRegistry[] => {
    const mirror = mirrorLocation(facts, registry);
    return mirror === null ? [] : [{ registry, mirror, insecure: facts.scheme === 'http' }];
  });
  const left = facts.registries.filter((registry) => mirrorLocation(facts, registry) === null);
  const held = heldBy(machine, base, ours);
  const byFile = Map.groupBy(wanted, ({ registry }) => held.get(registry) ?? ours);
  // A user's own files are merged into; the machine's count for the user too, and stay.
  const foreign = [...byFile].filter(([file]) => !file.startsWith(`${base}/`));
  const edits = [...byFile]
    .filter(([file]) => file.startsWith(`${base}/`))
    .map(([path, registries]): Edit => ({ path, format: 'registries', registries }));
  const certs = `${base}/certs.d`;
  // Each host that a mirror names: the gateway itself, and the aliases of registries with a port.
  const named = [
    authority(facts),
    ...wanted.filter(({ registry }) => registry.includes(':')).map(({ mirror }) => mirror),
  ];
  return together(
    { edits, notes: [] },
    caFiles(facts, certs, machine.known ? ownHosts(facts) : named),
    notes(
      ...foreign.map(
        ([file, registries]) =>
          `${file} says already where ${registries.map(({ registry }) => registry).join(', ')} comes from, and stays: root may put the gateway there.`,
      ),
      ...left.map(
        (registry) =>
          `${registry} has a port and no alias, so no name for it can be written here: add one with gateway alias add`,
      ),
      ...patternNotes(facts),
      ...(machine.known ? [] : copyRoot(facts, certs, `${certs}/${authority(facts)}/ca.crt`)),
    ),
  );
}

interface RegistriesConf {
  readonly registries?: unknown;
  readonly registry?: readonly { readonly prefix?: string; readonly location?: string }[];
}

/**
 * Which file has the entry of a registry that counts: the last one in the order in which they are read. An entry of ours elsewhere would take the place
 * of the whole entry, other mirrors included, so that it is merged where it is.
 */
function heldBy(machine: Machine, base: string, ours: string): ReadonlyMap<string, string> {
  const folders = base === SYSTEM ? [SYSTEM] : [SYSTEM, base];
  const main = [...folders].reverse().map((folder) => `${folder}/registries.conf`);
  const read = main.find((file) => machine.read(file) !== null);
  const dropIns = folders.flatMap((folder) =>
    [...machine.list(`${folder}/registries.conf.d`)]
      .filter((name) => name.endsWith('.conf'))
      .sort()
      .map((name) => `${folder}/registries.conf.d/${name}`),
  );
  const held = new Map<string, string>();
  for (const file of [...(read === undefined ? [] : [read]), ...dropIns]) {
    if (file === ours) continue;
    for (const { prefix, location } of registriesOf(file, machine.read(file) ?? '')) {
      const name = prefix || location;
      if (name !== undefined) held.set(name, file);
    }
  }
  return held;
}

/** @throws {OperatorError} CLIENT_FILE_REFUSED */
function registriesOf(file: string, text: string): NonNullable<RegistriesConf['registry']> {
  const conf = readToml(file, text) as RegistriesConf;
  if (conf.registries !== undefined) {
    throw new OperatorError(
      'CLIENT_FILE_REFUSED',
      `${file} is a registries.conf of version 1, which knows no mirrors`,
      {
        next: 'write it as version 2: unqualified-search-registries in place of [registries.search], a [[registry]] with insecure or blocked in place of the other lists (containers-registries.conf(5)); then try again',
      },
    );
  }
  return conf.registry ?? [];
}

export function podman(facts: ClientFacts, machine: Machine): Plan {
  return together(
    containers(facts, machine),
    notes(
      'Podman, Buildah and Skopeo read it at their next start. Without root: ~/.config/containers/ in place of /etc/containers/',
      ...loginNote(facts, 'podman login', ASKS),
    ),
  );
}

export function criO(facts: ClientFacts, machine: Machine): Plan {
  return together(
    containers(facts, machine),
    notes(
      'Then: systemctl reload crio',
      ...(facts.credentials
        ? [
            `In /etc/crio/crio.conf.d/ name the file with the login: [crio.image] global_auth_file = "${KUBELET_LOGINS}"`,
          ]
        : []),
      ...loginNote(facts, `podman login --authfile ${KUBELET_LOGINS}`, ASKS),
    ),
    { edits: [], notes: [], restart: ['systemctl reload crio'] },
    aroundProxy(facts, machine, 'crio'),
  );
}
