/** The clients whose configuration `gateway client` prints. */
export const CLIENT_KINDS = ['docker', 'containerd', 'podman', 'k3s', 'cri-o', 'buildkit'] as const;
export type ClientKind = (typeof CLIENT_KINDS)[number];
