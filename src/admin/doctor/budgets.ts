import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';

/** Limits of registries that are reached, as the running gateway knows them. Nothing is asked. */
export function checkBudgets({ live }: Pick<OperationsDeps, 'live'>): Finding[] {
  return (live?.upstream.budgets() ?? []).flatMap(({ registry, endpoint, account, kind, limit, restingUntil }) => {
    if (restingUntil === null) return [];
    const name = `budget ${registry}`;
    const whom = account === null ? "this gateway's address" : `the account ${account}`;
    if (kind === 'abuse') {
      const message = `${endpoint} wants no requests from ${whom} until ${restingUntil}: it got too many of them`;
      const next = 'look for what else pulls from this address; what is kept is served meanwhile';
      return [{ name, level: 'warn', message, next }];
    }
    const message = `${endpoint} gives ${whom} no more pulls until ${restingUntil}${limit === null ? '' : `: its limit is ${limit}`}`;
    const more = account === null ? '' : ' that allows more';
    const next = `give it credentials${more} (gateway registry set ${registry} --username U --password-stdin), or a second endpoint; what is kept is served meanwhile`;
    return [{ name, level: 'warn', message, next }];
  });
}
