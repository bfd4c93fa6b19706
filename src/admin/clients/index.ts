import type { ClientKind } from '../client-kinds.ts';
import type { ClientConfiguration } from '../rows.ts';
import { buildkit } from './buildkit.ts';
import { containerd } from './containerd.ts';
import { criO, podman } from './containers.ts';
import { docker } from './docker.ts';
import type { ClientFacts } from './facts.ts';
import { k3s } from './k3s.ts';

const WRITERS: Record<ClientKind, (facts: ClientFacts) => Omit<ClientConfiguration, 'client'>> = {
  docker,
  containerd,
  podman,
  k3s,
  'cri-o': criO,
  buildkit,
};

/** A client's configuration for this gateway: its files with their paths, and what else is to be done. */
export function clientConfiguration(kind: ClientKind, facts: ClientFacts): ClientConfiguration {
  return { client: kind, ...WRITERS[kind](facts) };
}
