/** What one download has seen of the endpoints that it asked. */
export class EndpointRecord {
  /** By URL. */
  readonly #failures = new Map<string, number>();
  readonly #rangeIgnored = new Set<string>();

  failed(endpoint: URL): void {
    this.#failures.set(endpoint.href, (this.#failures.get(endpoint.href) ?? 0) + 1);
  }

  /** It responded to a range with the whole blob. */
  rangeIgnored(endpoint: URL): void {
    this.#rangeIgnored.add(endpoint.href);
  }

  ignoresRanges(endpoint: URL): boolean {
    return this.#rangeIgnored.has(endpoint.href);
  }

  get someIgnoreRanges(): boolean {
    return this.#rangeIgnored.size > 0;
  }

  /** In their usual order, but those that failed in this download after the others. */
  inOrder(candidates: readonly URL[]): URL[] {
    const failures = (endpoint: URL): number => this.#failures.get(endpoint.href) ?? 0;
    return [...candidates].sort((a, b) => failures(a) - failures(b));
  }
}
