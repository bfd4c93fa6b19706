import { OperatorError } from '../../kit/operator-error.ts';
import type { Operation, SecretsRotated } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';

export function secretOperations({ shared }: OperationsDeps): Record<string, Operation> {
  return {
    'secret.rotate': async (): Promise<SecretsRotated> => {
      if (shared !== null) return shared.reseal();
      throw new OperatorError(
        'INPUT_INVALID',
        'this gateway has its state for itself: nothing in it is encrypted under a secretFile',
        {
          next: 'keys are for a database that several gateways share: see database and secretFile in the README',
        },
      );
    },
  };
}
