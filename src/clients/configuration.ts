import { newFile } from './edits.ts';
import {
  type ClientConfiguration,
  type ClientFacts,
  type ClientKind,
  type Login,
  type Machine,
  NO_MACHINE,
  type Plan,
  type Planner,
} from './facts.ts';
import { buildkit } from './kinds/buildkit.ts';
import { containerd } from './kinds/containerd.ts';
import { criO, podman } from './kinds/containers.ts';
import { docker } from './kinds/docker.ts';
import { k3s } from './kinds/k3s.ts';
import { kind, minikube } from './kinds/nodes.ts';

const PLANNERS: Record<ClientKind, Planner> = {
  docker,
  containerd,
  podman,
  k3s,
  'cri-o': criO,
  buildkit,
  kind,
  minikube,
};

/** What a client of this kind needs on a machine. @throws {OperatorError} CLIENT_FILE_REFUSED where its files do not allow it */
export function clientPlan(kind: ClientKind, facts: ClientFacts, machine: Machine, login: Login | null): Plan {
  return PLANNERS[kind](facts, machine, login);
}

/** A client's configuration for this gateway: its files with their paths, and what else is to be done. */
export function clientConfiguration(kind: ClientKind, facts: ClientFacts): ClientConfiguration {
  const { edits, notes } = clientPlan(kind, facts, NO_MACHINE, null);
  return { client: kind, files: edits.map((edit) => ({ path: edit.path, content: newFile(edit) })), notes };
}

/** The same as text for a person: each file under its path, the notes as comments. */
export function configurationText({ files, notes }: ClientConfiguration): string {
  const shown = files.map(
    ({ path, content }) => `# ---- ${path}\n${content.endsWith('\n') ? content : `${content}\n`}`,
  );
  const comments = notes.map((note) => note.replace(/^/gm, '# ').replace(/ +$/gm, ''));
  const said = comments.length === 0 ? '' : `\n${comments.join('\n')}\n`;
  return `${shown.join('\n')}${said}`;
}
