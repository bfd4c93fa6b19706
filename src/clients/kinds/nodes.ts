import { yamlLibrary } from '../../kit/yaml-text.ts';
import type { Edit } from '../edits.ts';
import {
  authority,
  baseUrl,
  type ClientFacts,
  type Login,
  type Machine,
  notes,
  type Plan,
  together,
} from '../facts.ts';
import { EVERY_VERSION, fromNodes, headerNote, hostsFiles, loginNote, WITH_REFERRERS } from '../hosts-toml.ts';
import { CONTAINERD_CERTS } from './containerd.ts';
import { DOCKER_CERTS } from './docker.ts';

const KIND_CERTS = '/etc/registry-gateway/kind/certs.d';
const KIND_CLUSTER = 'kind-cluster.yaml';

/** kind's nodes run containerd; they are given the folder of `hosts.toml`. */
export function kind(facts: ClientFacts, machine: Machine, login: Login | null): Plan {
  return together(
    { edits: [kindCluster(machine)], notes: [] },
    hostsFiles(facts, { seen: CONTAINERD_CERTS, written: KIND_CERTS }, EVERY_VERSION, login),
    notes(
      `Give every node that ${KIND_CLUSTER} lists the same extraMounts, then: kind create cluster --config ${KIND_CLUSTER}\nA cluster that exists takes them by being made anew.`,
      `kind 0.27 and later have nodes that read ${CONTAINERD_CERTS}; for earlier ones add to ${KIND_CLUSTER}:\n  containerdConfigPatches:\n  - |-\n    [plugins."io.containerd.grpc.v1.cri".registry]\n      config_path = "${CONTAINERD_CERTS}"`,
      ...fromNodes(facts),
      ...headerNote(facts, login),
      ...loginNote(facts, 'docker login'),
    ),
  );
}

function kindCluster(machine: Machine): Edit {
  const mount = { hostPath: KIND_CERTS, containerPath: CONTAINERD_CERTS, readOnly: true };
  const nodes = nodesOf(machine.read(KIND_CLUSTER));
  const places =
    nodes === 0
      ? [{ at: ['nodes'], value: [{ role: 'control-plane', extraMounts: [mount] }] }]
      : Array.from({ length: nodes }, (_, index) => ({ at: ['nodes', String(index), 'extraMounts'], value: [mount] }));
  const head = [
    { at: ['kind'], value: 'Cluster' },
    { at: ['apiVersion'], value: 'kind.x-k8s.io/v1alpha4' },
  ];
  return { path: KIND_CLUSTER, format: 'yaml', places: [...head, ...places] };
}

/** How many nodes a cluster's file lists; whoever merges says what is wrong with one that cannot be read. */
function nodesOf(text: string | null): number {
  if (text === null) return 0;
  const document = yamlLibrary().parseDocument(text);
  const nodes = document.errors.length > 0 ? undefined : (document.toJS() as { nodes?: unknown } | null)?.nodes;
  return Array.isArray(nodes) ? nodes.length : 0;
}

const MINIKUBE_FILES = '~/.minikube/files';

/** What lies below `~/.minikube/files` is copied to the same place of each node at its start; a node runs containerd or Docker. */
export function minikube(facts: ClientFacts, _machine: Machine, login: Login | null): Plan {
  const folder = (certs: string) => ({ seen: certs, written: `${MINIKUBE_FILES}${certs}` });
  return together(
    hostsFiles(facts, folder(CONTAINERD_CERTS), EVERY_VERSION, login),
    hostsFiles(facts, folder(DOCKER_CERTS), WITH_REFERRERS, login),
    notes(
      `minikube copies them to its nodes at: minikube start --container-runtime=containerd (the first) or --container-runtime=docker (the second, which mirrors every registry where the node has Docker 29 or later with the containerd image store)`,
      `Nodes with an earlier Docker mirror docker.io alone: minikube start --registry-mirror=${baseUrl(facts)}${facts.ca === null ? '' : `, with the root in ${MINIKUBE_FILES}${DOCKER_CERTS}/${authority(facts)}/ca.crt`}`,
      ...fromNodes(facts),
      ...headerNote(facts, login),
      ...loginNote(facts, 'docker login'),
    ),
  );
}
