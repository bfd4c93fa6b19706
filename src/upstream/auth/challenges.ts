/** One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1); scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly params: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]/;

/**
 * Parses a `WWW-Authenticate` header: several challenges in one, commas within quotes, any case. Malformed parts are skipped, since some
 * registries send them.
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

/** The operator's user name and password at a registry. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** What a Bearer challenge asks for; together with the credentials it identifies a token. */
export interface TokenDemand {
  readonly realm: string;
  readonly service: string;
  readonly scope: string;
}

/** How requests are authorised. */
export type AuthScheme = { readonly kind: 'basic' } | { readonly kind: 'bearer'; readonly demand: TokenDemand };

/**
 * The challenge to respond to: Bearer where offered with a usable realm, Basic only with credentials configured for that registry; null
 * where there is none.
 */
export function chooseScheme(
  challenges: readonly Challenge[],
  credentials: Credentials | null,
  repository: string,
): AuthScheme | null {
  for (const { scheme, params } of challenges) {
    const realm = params.get('realm');
    if (scheme !== 'bearer' || realm === undefined || !URL.canParse(realm)) continue;
    const scope = params.get('scope') || `repository:${repository}:pull`;
    return { kind: 'bearer', demand: { realm, service: params.get('service') ?? '', scope } };
  }
  const offersBasic = challenges.some((challenge) => challenge.scheme === 'basic');
  return offersBasic && credentials !== null ? { kind: 'basic' } : null;
}

/** The value of an `Authorization` header (RFC 7617). */
export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
