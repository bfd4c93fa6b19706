/** Times that a client may take, in ms. The values are reasons, not wishes: a test may shorten them, an operator need not. */
export interface EdgeLimits {
  /**
   * From accept to the end of the TLS handshake. It takes three round trips at most; slower is a stranger who holds
   * a descriptor.
   */
  readonly handshakeMs: number;
  /** A whole request header; whoever sends it byte by byte holds a connection for no longer. */
  readonly headersMs: number;
  /** A request with its body; pulls have none. */
  readonly requestMs: number;
  /**
   * A kept connection without a request. Longer than clients keep theirs (Go, and so Docker and containerd: 90 s; load balancers: 60 s):
   * who closes first loses nothing, and a request that meets our closing on its way is lost.
   */
  readonly keepAliveMs: number;
  /**
   * A client that takes no byte while bytes wait for it. Long enough for a link that pauses; after it, the buffers and
   * the descriptor go to someone else.
   */
  readonly stallMs: number;
}

export const EDGE_LIMITS: EdgeLimits = {
  handshakeMs: 10_000,
  headersMs: 15_000,
  requestMs: 30_000,
  keepAliveMs: 100_000,
  stallMs: 60_000,
};
