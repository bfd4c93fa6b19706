import type { UserInfo } from '../access/users.ts';
import { formatSpan } from '../kit/time.ts';

/** What an operator should know of tokens that are about to expire, or have: a sentence each, and what to do. */
export function tokenWarnings(users: readonly UserInfo[], now = Date.now()): { message: string; next: string }[] {
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
