import type { NewToken } from '../../access/users.ts';
import { authority } from '../../clients/facts.ts';
import type { Config } from '../../config/config.ts';
import type { Operation, OperationContext } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';
import { clientFacts } from './client.ts';

export function userOperations(deps: OperationsDeps): Record<string, Operation> {
  const { users, live } = deps;

  const present = async (context: OperationContext, made: NewToken): Promise<NewToken> => {
    const host = authority(await clientFacts(deps));
    const end = made.expiresAt === null ? 'it does not expire' : `it expires at ${made.expiresAt}`;
    context.step('token', `the token of ${made.name}, shown only now; ${end}`);
    context.step('login', `log in with: docker login -u ${made.name} ${host}`);
    return made;
  };

  return {
    'user.add': async (input, context) => {
      const { name, expires = null } = await parseInput('user.add', input);
      const isFirst = !users.everAdded;
      const added = await users.add(name, expires);
      await live?.settled();
      if (isFirst && deps.config.access.anonymous === null) {
        context.step(
          'access',
          'the first user: from now on anonymous clients are refused (access.anonymous: true lets them in again, a list of networks lets in those)',
        );
      }
      return present(context, added);
    },

    'user.rotate': async (input, context) => {
      const { name, grace, expires } = await parseInput('user.rotate', input);
      const made = await users.rotate(name, {
        ...(grace === undefined ? {} : { grace }),
        ...(expires === undefined ? {} : { expiresAt: expires }),
      });
      await live?.settled();
      context.step(
        'rotate',
        made.previousUntil === null
          ? `the old token of ${name} does not work any more`
          : `the old token of ${name} works until ${made.previousUntil}`,
      );
      return present(context, made);
    },

    'user.ls': () => users.list(),

    'user.rm': async (input, context) => {
      const { name } = await parseInput('user.rm', input);
      await users.remove(name);
      await live?.settled();
      if (users.count === 0) context.step('access', afterTheLast(deps.config.access.anonymous));
      return { name };
    },
  };
}

/** What the removal of the last user means for clients, by `access.anonymous`. */
function afterTheLast(anonymous: Config['access']['anonymous']): string {
  if (anonymous === true) return 'that was the last user; anonymous clients may pull, since access.anonymous is true';
  const add = 'gateway user add NAME';
  if (anonymous === false) {
    return `that was the last user, and access.anonymous is false: nobody can pull until there is one again: ${add}`;
  }
  if (anonymous !== null) {
    return `that was the last user: only clients in ${anonymous.join(', ')} (access.anonymous) can pull until there is one again: ${add}`;
  }
  return (
    `that was the last user, and the gateway stays closed: nobody can pull until there is one again (${add}), ` +
    'or access.anonymous: true (GATEWAY_ACCESS_ANONYMOUS=true) opens it to everybody'
  );
}
