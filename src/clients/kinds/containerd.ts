import { OperatorError } from '../../kit/operator-error.ts';
import { type Edit, tomlTable } from '../edits.ts';
import {
  authority,
  type ClientFacts,
  type Login,
  type Machine,
  mirrorLocation,
  notes,
  type Plan,
  together,
} from '../facts.ts';
import { EVERY_VERSION, headerNote, hostsFiles, hostTables, loginNote, quoted, WITH_REFERRERS } from '../hosts-toml.ts';
import { aroundProxy } from '../proxy.ts';
import { readToml } from '../toml.ts';

export const CONTAINERD_CERTS = '/etc/containerd/certs.d';
const CONFIG = '/etc/containerd/config.toml';

/** Where the configuration of containerd's Kubernetes part names the folder of `hosts.toml`, by the version of the file (its docs/cri/registry.md). */
const CRI: Readonly<Record<number, string>> = {
  2: 'io.containerd.grpc.v1.cri',
  3: 'io.containerd.cri.v1.images',
};

export function containerd(facts: ClientFacts, machine: Machine, login: Login | null): Plan {
  const version = machine.version('containerd');
  const [major, minor] = version ?? [0, 0];
  const knowsReferrers = major > 2 || (major === 2 && minor >= 2);
  const configured = machine.known ? configPath(machine) : { folder: CONTAINERD_CERTS, plan: notes() };
  const { folder } = configured;
  const also = machine
    .list(folder)
    .filter((name) => facts.registries.includes(name) && machine.read(`${folder}/${name}/hosts.toml`) !== null);
  const capabilities = knowsReferrers ? WITH_REFERRERS : EVERY_VERSION;
  return together(
    hostsFiles(facts, { seen: folder, written: folder, also }, capabilities, login),
    configured.plan,
    notes(...words(facts, folder, login)),
    aroundProxy(facts, machine, 'containerd'),
  );
}

/**
 * The folder that config.toml names, or the edit that makes it name ours. From 2.2 on containerd has a list of two folders where none is named,
 * but its transfer service, by which Kubernetes' pulls go, takes that list for one folder's name (2.4.2, core/transfer/registry).
 */
function configPath(machine: Machine): { readonly folder: string; readonly plan: Plan } {
  const text = machine.read(CONFIG);
  const config = text === null ? {} : (readToml(CONFIG, text) as ContainerdConfig);
  const version = text === null || text.trim() === '' ? 2 : Number(config.version ?? 1);
  const name = CRI[version];
  if (name === undefined) {
    throw new OperatorError(
      'CLIENT_FILE_REFUSED',
      `${CONFIG} has version ${version}, which cannot name a folder of hosts.toml`,
      {
        next: 'write it in a newer form (containerd config migrate), or pull with ctr --hosts-dir; then try again',
      },
    );
  }
  const disabled = (config.disabled_plugins ?? []) as unknown;
  if (Array.isArray(disabled) && disabled.some((one) => one === 'cri' || one === name)) {
    return {
      folder: CONTAINERD_CERTS,
      plan: notes(
        `${CONFIG} switches the Kubernetes part off: nerdctl reads the folder by itself, ctr by --hosts-dir.`,
      ),
    };
  }
  const registry = (config.plugins?.[name]?.registry ?? {}) as Record<string, unknown>;
  // A list, where the first folder that has the host counts (path/filepath's list separator).
  const [given = '', ...others] = String(registry.config_path ?? '').split(':');
  if (given !== '') {
    const plan = notes(
      ...(others.length === 0
        ? []
        : [
            `${CONFIG} names several folders, which containerd 2 takes for the name of one: let config_path name ${given} alone.`,
          ]),
    );
    return { folder: given, plan };
  }
  for (const old of ['mirrors', 'configs']) {
    if (Object.keys((registry[old] ?? {}) as object).length === 0) continue;
    throw new OperatorError(
      'CLIENT_FILE_REFUSED',
      `${CONFIG} has [plugins."${name}".registry.${old}], which containerd refuses beside config_path`,
      {
        next: `move what it says into ${CONTAINERD_CERTS}/<registry>/hosts.toml (containerd's docs/hosts.md), take it out, and try again`,
      },
    );
  }
  const edit: Edit = {
    path: CONFIG,
    format: 'toml',
    head: 'version = 2\n',
    tables: [{ path: ['plugins', name, 'registry'], values: { config_path: CONTAINERD_CERTS } }],
  };
  return { folder: CONTAINERD_CERTS, plan: { edits: [edit], notes: [], restart: ['systemctl restart containerd'] } };
}

interface ContainerdConfig {
  readonly version?: unknown;
  readonly disabled_plugins?: unknown;
  readonly plugins?: Readonly<Record<string, { readonly registry?: unknown } | undefined>>;
}

function words(facts: ClientFacts, folder: string, login: Login | null): string[] {
  const single = facts.registries.find((registry) => registry !== 'docker.io') ?? 'docker.io';
  const singleUrl = `${facts.scheme}://${mirrorLocation(facts, single)?.replace('/', '/v2/') ?? authority(facts)}`;
  const ca = facts.ca === null ? null : `${folder}/_default/gateway-ca.crt`;
  const more = { override_path: true };
  const alone = hostTables(singleUrl, { capabilities: EVERY_VERSION, ca, login: null, more }).map(tomlTable).join('');
  return [
    `It is read at each pull. config.toml must name the folder, alone (also for containerd 2.2 and later: what they have by themselves
is a list of two, which Kubernetes' pulls do not find), then:
systemctl restart containerd
  containerd 2, version = 3: [plugins."${CRI[3]}".registry]
  containerd 1.6, 1.7, version = 2 (containerd 2 reads it too): [plugins."${CRI[2]}".registry]
    config_path = "${folder}"
crictl, the kubelet and whatever else pulls by Kubernetes' runtime interface go by it.`,
    `containerd 2.2 and later: add "referrers", so that signatures and attestations are asked of the gateway too:
  capabilities = ${quoted(WITH_REFERRERS)}
Earlier ones (1.6, 1.7, 2.0, 2.1) do not know that word: they log "unknown capability", pass the whole file over and pull past
the gateway. dial_timeout is known from 2.1 on; earlier ones wait 30 s for a gateway that does not answer.`,
    `ctr reads it with: ctr images pull --hosts-dir ${folder} docker.io/library/alpine:latest
nerdctl by itself: nerdctl pull alpine`,
    `For one registry alone, use ${folder}/${single}/hosts.toml instead, with:\n${alone.trimEnd().replace(/^/gm, '  ')}`,
    ...headerNote(facts, login),
    ...loginNote(facts, 'nerdctl login'),
  ];
}
