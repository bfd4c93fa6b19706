import { authority } from '../../clients/facts.ts';
import type { Operation } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';
import { clientFacts } from './client.ts';

export function userOperations(deps: OperationsDeps): Record<string, Operation> {
  const { users, config, live } = deps;
  return {
    'user.add': async (input, context) => {
      const added = await users.add((await parseInput('user.add', input)).name);
      await live?.settled();
      if (users.count === 1 && config.access.anonymous === null) {
        context.step(
          'access',
          'the first user: from now on anonymous clients are refused (access.anonymous: true lets them in again)',
        );
      }
      const host = authority(await clientFacts(deps));
      context.step(
        'token',
        `the token of ${added.name}, shown only now; log in with: docker login -u ${added.name} ${host}`,
      );
      return added;
    },

    'user.ls': async () => users.list(),

    'user.rm': async (input, context) => {
      const { name } = await parseInput('user.rm', input);
      await users.remove(name);
      await live?.settled();
      if (users.count === 0) context.step('access', afterTheLast(config.access.anonymous));
      return { name };
    },
  };
}

/** What the removal of the last user means for clients, by `access.anonymous`. */
function afterTheLast(anonymous: boolean | null): string {
  if (anonymous === false) {
    return 'that was the last user, and access.anonymous is false: nobody can pull until a user is made with gateway user add';
  }
  return anonymous === true
    ? 'that was the last user; anonymous clients may pull, since access.anonymous is true'
    : 'WARNING: that was the last user, so everybody may pull now, without credentials; to keep anonymous clients out, set access.anonymous: false (GATEWAY_ACCESS_ANONYMOUS=false) and restart';
}
