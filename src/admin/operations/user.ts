import { z } from 'zod';
import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import { parseInput, text } from './input.ts';

const NameInput = z.strictObject({ name: text });

export function userOperations(deps: OperationsDeps): Record<string, Operation> {
  const { users, config, live } = deps;
  return {
    'user.add': async (input, context) => {
      const added = users.add(parseInput(NameInput, input).name);
      await live?.settled();
      if (users.count === 1 && config.access.anonymous === null) {
        context.step(
          'access',
          'the first user: from now on anonymous clients are refused (access.anonymous: true lets them in again)',
        );
      }
      context.step(
        'token',
        `the token of ${added.name}, shown only now; log in with: docker login -u ${added.name} ${config.domain}`,
      );
      return added;
    },

    'user.ls': async () => users.list(),

    'user.rm': async (input, context) => {
      const { name } = parseInput(NameInput, input);
      users.remove(name);
      await live?.settled();
      if (users.count === 0 && config.access.anonymous === null) {
        context.step(
          'access',
          'the last user: from now on anonymous clients are let in (access.anonymous: false keeps them out)',
        );
      }
      return { name };
    },
  };
}
