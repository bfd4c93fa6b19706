/** By what a node is known to the others: a key that never leaves it but sealed, and a certificate for that key, signed by itself. */
export interface NodeIdentity {
  /** As `Node.id`. */
  readonly id: string;
  /** PEM, PKCS #8. */
  readonly key: string;
  /** PEM; one certificate, for TLS servers and clients alike. What it names is of no account: it is compared whole. */
  readonly certificate: string;
}

/**
 * Port: the certificates of the nodes that share one state. A node is believed to be the one under whose id its very certificate stands here, and
 * whoever shows another one is a stranger, who does not come past the handshake.
 */
export interface TrustedNodes {
  /** By `Node.id`, PEM; this node's own among them. Another object after each change, none is waited for. */
  certificates(): ReadonlyMap<string, string>;
  /** Calls `listener` after they have changed. The function returned ends that. */
  watch(listener: () => void): () => void;
}
