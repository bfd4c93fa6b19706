import type { Config } from '../../config/config.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { accessWarnings } from '../access-warnings.ts';
import type { Check, DoctorReport, Operation } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';
import { checkBudgets } from './budgets.ts';
import { checkAuthorities, checkCertificates, checkDnsProvider, checkIssuers } from './certificates.ts';
import { checkClock } from './clock.ts';
import { type Finding, judge } from './finding.ts';
import { checkMachine } from './machine.ts';
import { checkOwnNames, ownNames } from './own-names.ts';
import { checkPolicy } from './policy.ts';
import { checkPorts } from './ports.ts';
import { checkPublicUrl } from './public-url.ts';
import { checkRegistries, endpointHosts } from './registries.ts';
import { Names } from './resolver.ts';
import { checkSharedDatabase } from './shared-database.ts';
import { checkSharedStore } from './shared-store.ts';
import { inTime, LATEST, type Surroundings, THIS_MACHINE, TIME } from './surroundings.ts';

export function doctorOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    doctor: async (_input, context): Promise<DoctorReport> => report(await examine(deps, THIS_MACHINE, context.signal)),
  };
}

export function report(checks: readonly Check[]): DoctorReport {
  const counts = { ok: 0, warn: 0, fail: 0 };
  for (const { level } of checks) counts[level] += 1;
  return { checks, counts };
}

/**
 * Everything that can be found wrong from here, in the order in which it is put right. First what this machine alone tells, so that nothing that
 * hangs in the network holds it up; then all else at once, within `LATEST`.
 */
export async function examine(deps: OperationsDeps, around: Surroundings, stop: AbortSignal): Promise<Check[]> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(TIME)]);
  const end = AbortSignal.any([stop, AbortSignal.timeout(LATEST)]);
  const { config, live } = deps;
  const found: Finding[] = [checkGateway(deps), ...conflicts(deps)];
  found.push(...(await checkMachine(config, around, { pid: live?.pid ?? process.pid, signal })));
  found.push(...checkCertificates(deps, around));
  for (const warning of await accessWarnings(deps.users, config.access.anonymous))
    found.push({ name: 'users', level: 'warn', ...warning });
  found.push(...(await checkPolicy(deps)));

  const { names, others } = await openNames(deps, around);
  found.push(...names.findings, ...(others === names ? [] : others.findings));
  const part = <T>(name: string, work: Promise<T>, ifLate: (finding: Finding) => T): Promise<T> =>
    inTime(work, end, (error) => ifLate(late(name, error)));
  const [database, ports, own, url, authorities, store, dns, issuers, registries] = await Promise.all([
    part('database', checkSharedDatabase(deps, signal), one),
    part('port', checkPorts(deps, around, signal), one),
    part('dns', checkOwnNames({ deps, names, around, signal }), one),
    part('publicUrl', checkPublicUrl(deps, names, signal), one),
    part('authority', checkAuthorities(deps, around), one),
    part('store', checkSharedStore(deps, signal), one),
    part('dns-01', checkDnsProvider(deps, signal), one),
    part('ca', checkIssuers(deps, others, signal), (finding) => ({ findings: [finding], skews: [] })),
    part('registry', checkRegistries(deps, others, signal), (finding) => ({ findings: [finding], skews: [] })),
  ]);
  stop.throwIfAborted();
  found.push(...database, ...ports, ...own, ...url, ...authorities, ...store, ...dns);
  found.push(...issuers.findings, ...registries.findings, ...checkBudgets(deps));
  found.push(checkClock([...registries.skews, ...issuers.skews], config.tls.mode === 'internal'));
  return judge(found);
}

/** DNS for the gateway's own names, which may have servers of its own (`acme.resolvers`), and for those of others, which never has. */
async function openNames(deps: OperationsDeps, around: Surroundings): Promise<{ names: Names; others: Names }> {
  const { config } = deps;
  const [own, hosts] = [ownNames(deps), endpointHosts(deps)];
  if (config.acme.resolvers.length === 0) {
    const names = await Names.open(config, around, [...hosts, ...own]);
    return { names, others: names };
  }
  const system = { ...config, acme: { ...config.acme, resolvers: [] } };
  const [names, others] = await Promise.all([Names.open(config, around, own), Names.open(system, around, hosts)]);
  return { names, others };
}

/** What this machine alone tells, where the data directory cannot be opened: why not, and what may be the cause. */
export async function examineMachine(
  config: Config,
  problem: unknown,
  stop: AbortSignal,
  around = THIS_MACHINE,
): Promise<Check[]> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(TIME)]);
  const [machine, ports, names] = await Promise.all([
    checkMachine(config, around, { pid: process.pid, signal }),
    checkPorts({ live: null, config }, around, signal),
    Names.open(config, around, [config.domain]),
  ]);
  const full = machine.some(({ name, level }) => name === 'disk' && level === 'fail');
  const state = judgeState(problem);
  return judge([full ? { ...state, because: 'disk full' } : state, ...machine, ...ports, ...names.findings]);
}

function judgeState(problem: unknown): Finding {
  const name = 'gateway';
  if (!(problem instanceof OperatorError)) {
    const message = `what is stored cannot be looked at, so that aliases, registries and certificates were not: ${(problem as Error).message}`;
    return { name, level: 'fail', message, next: 'see the log of the gateway; end it and start it again' };
  }
  const { code, message, next } = problem;
  // A machine is looked at before the first start, too.
  if (code === 'NO_GATEWAY') return { name, level: 'warn', message, next };
  const what = 'aliases, registries and certificates were not looked at';
  return { name, level: 'fail', message: `${message}; ${what}`, next };
}

function one(finding: Finding): Finding[] {
  return [finding];
}

function late(name: string, error: unknown): Finding {
  const why =
    error instanceof Error && error.name !== 'TimeoutError' ? error.message : `not done within ${LATEST / 1000} s`;
  return { name, level: 'warn', message: `could not be looked at: ${why}`, next: 'run gateway doctor again' };
}

function checkGateway({ live, config }: OperationsDeps): Finding {
  return live === null
    ? { name: 'gateway', level: 'warn', message: `nothing runs on ${config.dataDir}`, next: 'start it: gateway serve' }
    : { name: 'gateway', level: 'ok', message: `runs as process ${live.pid}` };
}

function conflicts({ table }: OperationsDeps): Finding[] {
  return table.conflicts().map((message) => ({
    name: 'aliases',
    level: 'warn',
    message,
    next: 'remove it (gateway alias rm), or change the domain back',
  }));
}
