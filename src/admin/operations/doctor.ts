import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import { checkCertificates } from '../doctor/certificates.ts';
import { checkDisk } from '../doctor/disk.ts';
import { checkNames } from '../doctor/names.ts';
import { checkPorts } from '../doctor/ports.ts';
import { checkRegistries } from '../doctor/registries.ts';
import type { Check, DoctorReport } from '../rows.ts';

export function doctorOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    doctor: async (_input, context): Promise<DoctorReport> => {
      const checks: Check[] = [];
      const counts = { ok: 0, warn: 0, fail: 0 };
      for await (const check of allChecks(deps, context.signal)) {
        checks.push(check);
        counts[check.level] += 1;
        context.step(check.name, check.message, check);
      }
      return { checks, counts };
    },
  };
}

async function* allChecks(deps: OperationsDeps, signal: AbortSignal): AsyncGenerator<Check> {
  const { live, config } = deps;
  yield live === null
    ? { name: 'gateway', level: 'warn', message: `nothing runs on ${config.dataDir}`, next: 'start it: gateway serve' }
    : { name: 'gateway', level: 'ok', message: `runs as process ${live.pid}` };
  for (const conflict of deps.table.conflicts()) {
    yield {
      name: 'aliases',
      level: 'warn',
      message: conflict,
      next: 'remove it (gateway alias rm), or change the domain back',
    };
  }
  yield* checkNames(deps, signal);
  yield* checkPorts(deps, signal);
  yield* checkCertificates(deps);
  yield* checkRegistries(deps, signal);
  yield* checkDisk(deps);
}
