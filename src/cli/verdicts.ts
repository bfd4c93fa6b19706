import type { EndpointVerdict } from '../admin/contract.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Output } from './output.ts';
import type { Exit } from './session.ts';

/**
 * What is left to say of a registry that was tried, once its steps have been told: what to do. The exit code is 1 where no endpoint of it can
 * be used; what was changed stays.
 */
export function conclude(output: Output, exit: Exit, registry: string, check: readonly EndpointVerdict[] | null): void {
  const verdicts = check ?? [];
  const failed = verdicts.filter(({ level }) => level === 'fail');
  if (failed.length > 0 && failed.length === verdicts.length) {
    exit.code = 1;
    const [first] = failed;
    output.error(
      new OperatorError(
        'REGISTRY_UNUSABLE',
        `${registry} is in the table, but nothing can be pulled from it now: ${first?.message}`,
        {
          next: first?.next ?? undefined,
        },
      ),
    );
    return;
  }
  for (const { level, message, next } of verdicts) {
    if (level !== 'ok') output.note(next === null ? message : `${message}\n  ${next}`);
  }
}
