import { AnonymousRule } from '../access/anonymous.ts';
import type { UserInfo, Users } from '../access/users.ts';
import type { Config } from '../config/config.ts';
import { formatSpan } from '../kit/time.ts';

interface Warning {
  readonly message: string;
  readonly next: string;
}

/** What an operator should know of who may pull, a sentence each, and what to do: nobody may, or a token is about to expire, or has. */
export async function accessWarnings(
  users: Pick<Users, 'count' | 'everAdded' | 'list'>,
  anonymous: Config['access']['anonymous'],
  now = Date.now(),
): Promise<Warning[]> {
  return [...closedToAll(users, anonymous), ...tokenWarnings(await users.list(), now)];
}

/** Networks that need no credentials let somebody in. */
function closedToAll(users: Pick<Users, 'count' | 'everAdded'>, anonymous: Config['access']['anonymous']): Warning[] {
  const isNobody = users.count === 0 && !Array.isArray(anonymous) && !new AnonymousRule(anonymous).isOpen(users);
  if (!isNobody) return [];
  const why = anonymous === false ? 'access.anonymous is false' : 'there were some, and access.anonymous is not true';
  return [
    {
      message: `nobody can pull: there are no users, and clients without credentials are refused (${why})`,
      next: 'add a user: gateway user add NAME; or let everybody in: access.anonymous: true (GATEWAY_ACCESS_ANONYMOUS=true)',
    },
  ];
}

function tokenWarnings(users: readonly UserInfo[], now: number): Warning[] {
  return users.flatMap(({ name, expiresAt, lastUsedAt, state }) => {
    if (expiresAt === null || state === 'valid') return [];
    const renew = `make a new one: gateway user rotate ${name}`;
    if (state === 'expiring') {
      const message = `the token of ${name} expires in ${formatSpan(Date.parse(expiresAt) - now)}`;
      return [{ message, next: `${renew} --grace 1d` }];
    }
    const seen = lastUsedAt === null ? 'it was never used' : `it was last used at ${lastUsedAt}`;
    const message = `the token of ${name} expired at ${expiresAt} and is refused (${seen})`;
    return [{ message, next: `${renew}, or: gateway user rm ${name}` }];
  });
}
