import { settingTexts } from '../../config/show.ts';
import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';

export function configOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    /** What the gateway works with, which what is written since may differ from. */
    'config.show': async () => settingTexts(deps.config),
  };
}
