import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { BearerAuth, FakeRegistryOptions } from './options.ts';

interface Token {
  readonly scopes: readonly string[];
  readonly user: string | undefined;
  readonly expires: number;
}

/** Tokens and Basic credentials of the fake: issues them at `/token`, demands them everywhere else. */
export class FakeAuth {
  readonly #options: FakeRegistryOptions;
  readonly #tokens = new Map<string, Token>();

  constructor(options: FakeRegistryOptions) {
    this.#options = options;
  }

  /** Every token issued so far stops being good. */
  revoke(): void {
    this.#tokens.clear();
  }

  /** Null where the request may go on, else the answer. */
  check(
    request: IncomingMessage,
    repository: string | undefined,
    origin: string,
  ): { status: number; headers: Record<string, string> } | null {
    const auth = this.#options.auth;
    if (auth === undefined) return null;
    const header = request.headers.authorization ?? '';
    if (auth.scheme === 'basic') {
      return userOf(header, auth.users) === undefined
        ? { status: 401, headers: { 'www-authenticate': 'Basic realm="fake registry"' } }
        : null;
    }
    const scope = repository === undefined ? (auth.pingScope ?? '') : `repository:${repository}:pull`;
    const text = header.replace(/^bearer /i, '');
    const token = this.#tokens.get(text);
    if (token !== undefined && token.expires > Date.now()) {
      if (repository === undefined || token.scopes.includes(scope)) {
        return repository !== undefined && isPrivate(auth, repository) && !opens(auth, token.user, repository)
          ? { status: 401, headers: this.#challenge(auth, origin, scope) }
          : null;
      }
    }
    if (header !== '' && auth.expiredChallenge !== undefined) {
      return { status: 401, headers: { 'www-authenticate': auth.expiredChallenge } };
    }
    return { status: 401, headers: this.#challenge(auth, origin, scope) };
  }

  /** Whose token or credentials a request carries; undefined where nobody's. */
  accountOf(request: IncomingMessage): string | undefined {
    const { auth } = this.#options;
    const header = request.headers.authorization ?? '';
    if (auth?.scheme === 'basic') return userOf(header, auth.users);
    return this.#tokens.get(header.replace(/^bearer /i, ''))?.user;
  }

  #challenge(auth: BearerAuth, origin: string, scope: string): Record<string, string> {
    if (auth.noChallenge === true) return {};
    const realm = auth.realm ?? `${origin}/token`;
    const service = auth.service ?? 'fake.registry';
    const made =
      auth.challenge?.(realm, service, scope) ??
      `Bearer realm="${realm}",service="${service}"${scope === '' ? '' : `,scope="${scope}"`}`;
    return { 'www-authenticate': made };
  }

  /** The token endpoint. */
  issue(request: IncomingMessage, query: URLSearchParams, response: ServerResponse): number {
    const auth = this.#options.auth;
    if (auth === undefined || auth.scheme !== 'bearer') return answer(response, 404, {});
    const header = request.headers.authorization ?? '';
    const user = userOf(header, auth.users ?? {});
    if (header !== '' && user === undefined)
      return answer(response, 401, { details: 'incorrect username or password' });
    if (query.get('service') !== (auth.service ?? 'fake.registry'))
      return answer(response, 400, { details: 'service' });
    const scopes = query.getAll('scope').flatMap((scope) => scope.split(' '));
    if (auth.tokenRefusal !== undefined && user === undefined) {
      const refused = scopes.some((scope) => isPrivate(auth, scope.split(':')[1] ?? ''));
      if (refused)
        return answer(response, auth.tokenRefusal, {
          errors: [{ code: 'DENIED', message: 'requested access is denied' }],
        });
    }
    const lifetime = auth.lifetime ?? 300;
    const text = randomBytes(24).toString('base64url');
    this.#tokens.set(text, { scopes, user, expires: Date.now() + lifetime * 1000 });
    const field = auth.tokenField ?? 'token';
    const says = auth.saysLifetime === undefined ? lifetime : auth.saysLifetime;
    return answer(response, 200, {
      ...(field === 'access_token' ? {} : { token: text }),
      ...(field === 'token' ? {} : { access_token: text }),
      ...(says === null ? {} : { expires_in: says }),
      issued_at: new Date().toISOString(),
    });
  }
}

function isPrivate(auth: BearerAuth, repository: string): boolean {
  return auth.private === true || (auth.private?.includes(repository) ?? false);
}

function opens({ owners }: BearerAuth, user: string | undefined, repository: string): boolean {
  const owner = owners?.[repository.split('/')[0] ?? ''];
  return owner === undefined ? user !== undefined : user === owner;
}

function userOf(header: string, users: Readonly<Record<string, string>>): string | undefined {
  const match = /^basic (\S+)$/i.exec(header);
  if (match === null) return undefined;
  const [name = '', ...rest] = Buffer.from(match[1] ?? '', 'base64')
    .toString()
    .split(':');
  return users[name] === rest.join(':') ? name : undefined;
}

function answer(response: ServerResponse, status: number, body: object): number {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  return status;
}
