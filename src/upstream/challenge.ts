/** One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1); scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly params: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]/;

/**
 * Parses a `WWW-Authenticate` header: several challenges in one, commas within quotes, any case. What is malformed is
 * skipped, for some registries write it so.
 */
export function parseChallenges(header: string): Challenge[] {
  const found: { scheme: string; params: Map<string, string> }[] = [];
  let at = 0;

  const skipSpace = (): void => {
    while (header[at] === ' ' || header[at] === '\t') at++;
  };
  const token = (): string => {
    const start = at;
    while (at < header.length && TOKEN.test(header.charAt(at))) at++;
    return header.slice(start, at);
  };
  const quoted = (): string => {
    let text = '';
    for (at++; at < header.length && header[at] !== '"'; at++) {
      if (header[at] === '\\') at++;
      text += header.charAt(at);
    }
    at++;
    return text;
  };
  const bare = (): string => {
    const start = at;
    while (at < header.length && header[at] !== ',' && header[at] !== ' ' && header[at] !== '\t') at++;
    return header.slice(start, at);
  };

  while (at < header.length) {
    const name = token();
    if (name === '') {
      at++;
      continue;
    }
    skipSpace();
    if (header[at] !== '=') {
      found.push({ scheme: name.toLowerCase(), params: new Map() });
      continue;
    }
    at++;
    skipSpace();
    const value = header[at] === '"' ? quoted() : bare();
    found.at(-1)?.params.set(name.toLowerCase(), value);
  }
  return found;
}
