import { randomBytes } from 'node:crypto';
import { rm, stat, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { CertificateInfo } from '../../certs/service.ts';
import type { Check, DoctorReport, Operation } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';
import { checkNames, checkPorts } from './reachability.ts';
import { checkRegistries } from './registries.ts';

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

/** Every certificate by its state, and the warnings of the certificate service, such as clock skew. */
function* checkCertificates(deps: OperationsDeps): Generator<Check> {
  const { certificates, live } = deps;
  if (certificates === null) {
    yield { name: 'certificates', level: 'ok', message: 'tls.mode is off: the program in front has them' };
    return;
  }
  for (const info of certificates.list()) yield checkCertificate(info, live !== null);
  for (const warning of certificates.warnings()) {
    yield { name: 'certificates', level: 'warn', message: warning, next: 'gateway cert ls shows them all' };
  }
}

function checkCertificate(info: CertificateInfo, running: boolean): Check {
  const name = `certificate ${info.host}`;
  // The internal CA signs a leaf when it is first asked for; until then there are no dates.
  const until = info.notAfter === null ? 'and signed when it is first asked for' : `until ${info.notAfter}`;
  if (info.state === 'valid' && info.lastError === null) {
    return { name, level: 'ok', message: `valid ${until}, from ${info.issuer ?? 'an unknown issuer'}` };
  }
  const said = info.lastError === null ? '' : `; last error: ${info.lastError.type}: ${info.lastError.detail}`;
  const again = info.nextAttempt === null ? '' : `; it is tried again at ${info.nextAttempt}`;
  const next = `see what to do: gateway cert explain ${info.host}`;
  if (info.state === 'valid')
    return { name, level: 'warn', message: `valid ${until}, but its renewal fails${said}${again}`, next };
  if (info.state === 'pending' && info.lastError === null) {
    const message = running ? `is being obtained${again}` : 'is obtained when the gateway runs';
    return { name, level: 'warn', message, next: running ? next : 'start the gateway: gateway serve' };
  }
  return { name, level: 'fail', message: `is ${info.state}${said}${again}`, next };
}

/** Free bytes below which SQLite itself may fail to write. */
const LEAST_FREE = 64 * 1024 * 1024;

/** Free space, permission to write, and the mode of the file with private keys. */
async function* checkDisk(deps: OperationsDeps): AsyncGenerator<Check> {
  const { dataDir, cache } = deps.config;
  const { bavail, bsize } = await statfs(dataDir);
  const free = bavail * bsize;
  const message = `${gib(free)} free in ${dataDir}`;
  if (free < LEAST_FREE) {
    yield { name: 'disk', level: 'fail', message, next: 'make room: certificates cannot be stored on a full disk' };
  } else if (free < cache.minFree) {
    yield {
      name: 'disk',
      level: 'warn',
      message: `${message}, less than cache.minFree (${gib(cache.minFree)}): nothing new is kept`,
      next: 'make room, or lower cache.minFree; gateway cache prune drops what is kept',
    };
  } else yield { name: 'disk', level: 'ok', message };

  const file = path.join(dataDir, `.doctor-${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(file, 'x', { mode: 0o600, flag: 'wx' });
    yield { name: 'data', level: 'ok', message: `${dataDir} can be written` };
  } catch (error) {
    yield {
      name: 'data',
      level: 'fail',
      message: `${dataDir} cannot be written: ${(error as Error).message}`,
      next: 'give it to the user that the gateway runs as',
    };
  } finally {
    await rm(file, { force: true });
  }

  const { mode } = await stat(path.join(dataDir, 'gateway.db'));
  if ((mode & 0o077) !== 0) {
    yield {
      name: 'keys',
      level: 'fail',
      message: 'gateway.db, which holds private keys, is open to other users',
      next: `chmod 600 ${path.join(dataDir, 'gateway.db')}`,
    };
  }
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
