/** Credentials of a registry's row as an operator set them. */
export interface ModelCredentials {
  /** Null: the registry's own. */
  readonly name: string | null;
  readonly username: string;
  /** Of a registry's own: empty. */
  readonly for: readonly string[];
  /** Told apart from others that had this name before. */
  readonly instance: string;
}

/** Which credentials each registry has, written down a second time: the most exact of its patterns decides. */
export class ModelRows {
  readonly #rows = new Map<string, readonly ModelCredentials[]>();
  #made = 0;

  of(registry: string): readonly ModelCredentials[] {
    return this.#rows.get(registry) ?? [];
  }

  /** Another user name is another account; a registry's own credentials are one, whoever they are of. */
  set(registry: string, name: string | null, username: string, patterns: readonly string[] = []): void {
    const before = this.of(registry).find((one) => one.name === name);
    const isSame = before !== undefined && (name === null || before.username === username);
    const instance = name === null ? 'own' : isSame ? before.instance : `${name} ${++this.#made}`;
    const others = this.of(registry).filter((one) => one.name !== name);
    this.#rows.set(registry, [...others, { name, username, for: patterns, instance }]);
  }

  remove(registry: string, name: string | null): void {
    this.#rows.set(
      registry,
      this.of(registry).filter((one) => one.name !== name),
    );
  }

  /** Those that a repository is asked for with; null for none. */
  opener(registry: string, repository: string): ModelCredentials | null {
    const lines = this.of(registry).flatMap((one) => one.for.map((pattern) => ({ one, pattern })));
    const [first] = lines
      .filter(({ pattern }) => new RegExp(`^${pattern.replaceAll('*', '.*')}$`).test(repository))
      .sort((a, b) => b.pattern.replaceAll('*', '').length - a.pattern.replaceAll('*', '').length);
    return first?.one ?? this.of(registry).find(({ name }) => name === null) ?? null;
  }

  has(registry: string, instance: string): boolean {
    return this.of(registry).some((one) => one.instance === instance);
  }
}
