import type { LimitsUsage } from '../../access/access.ts';
import type { CertificateInfo, CertificateState } from '../../certs/service.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { iso, steadyNow } from '../../kit/time.ts';
import type { Reading } from '../../telemetry/metrics.ts';
import { accessWarnings } from '../access-warnings.ts';
import type {
  ClientRow,
  DashboardReport,
  EndpointRow,
  LimitsRow,
  Operation,
  RegistryTraffic,
  StatusReport,
} from '../contract.ts';
import type { LiveGateway, OperationsDeps } from '../operation.ts';

/** Clients and troubles that are shown: what a person reads, not all that there are. */
const MAX_CLIENTS = 20;
const MAX_TROUBLES = 20;

export function statusOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    status: () => statusOf(deps),

    dashboard: async (): Promise<DashboardReport> => {
      const { live, config, certificates } = deps;
      if (live === null) throw new OperatorError('NOT_RUNNING', `nothing runs on ${config.dataDir}`);
      return {
        at: iso(Date.now()),
        status: await statusOf(deps),
        certificates: certificates?.list() ?? [],
        endpoints: endpointsOf(deps, live),
        history: await live.history.samples(),
      };
    },
  };
}

async function statusOf(deps: OperationsDeps): Promise<StatusReport> {
  const { live, config, table, users } = deps;
  const { aliases, registries } = table.snapshot();
  const { bytes, maxBytes, blobs, hitRatio, pinnedBytes, pins, bytesServed, bytesFetched } = deps.cache().stats();
  const held = deps.certificates?.list() ?? [];
  const certificates: Record<CertificateState, number> = {
    valid: 0,
    pending: 0,
    failed: 0,
    expired: 0,
    'on demand': 0,
  };
  for (const { state } of held) certificates[state] += 1;
  const reading = live === null ? null : await live.reading();
  const limits = live?.limits() ?? null;
  return {
    running: live !== null,
    version: deps.version,
    dataDir: config.dataDir,
    domain: config.domain,
    pid: live?.pid ?? null,
    startedAt: live?.startedAt.toISOString() ?? null,
    uptimeSeconds: live === null ? null : Math.floor((steadyNow() - live.startedAt.getTime()) / 1000),
    workers: live?.workers ?? null,
    addresses: live?.addresses ?? { https: [], http: [], metrics: null },
    tls: config.tls.mode,
    aliases: aliases.size,
    registries: registries.size,
    certificates,
    nextExpiry: nextExpiry(held),
    cache: { bytes, maxBytes, blobs, hitRatio, pinnedBytes, pins },
    warmFailing: await warmFailing(deps),
    saved: { served: bytesServed, fetched: bytesFetched, bytes: Math.max(0, bytesServed - bytesFetched) },
    fills: deps.cache().fills(),
    traffic: reading === null ? null : trafficOf(reading),
    byRegistry: reading === null ? [] : registriesOf(reading),
    byClient: live === null || limits === null ? [] : clientsOf(live, limits),
    limits: limits === null ? null : limitsOf(limits),
    setAside: live === null ? [] : endpointsOf(deps, live).filter(({ state }) => state !== 'closed'),
    budgets: live?.upstream.budgets() ?? [],
    troubles: live?.activity.troubles(MAX_TROUBLES) ?? [],
    users: users.count,
    database: deps.shared?.describe() ?? null,
    nodes: deps.nodes.live().map((node) => ({ ...node, self: node.id === deps.nodes.self.id })),
    warnings: [
      ...databaseWarnings(deps),
      ...table.conflicts(),
      ...(deps.certificates?.warnings() ?? []),
      ...(await accessWarnings(users, config.access.anonymous)).map(({ message, next }) => `${message}; ${next}`),
      ...monthWarnings(limits),
    ],
  };
}

async function warmFailing({ warm }: OperationsDeps): Promise<StatusReport['warmFailing']> {
  // A database that is away is told of elsewhere.
  const rows = await warm()
    .list()
    .catch(() => []);
  return rows.flatMap(({ image, lastRun }) =>
    lastRun === null || lastRun.error === null ? [] : [{ image, error: lastRun.error, retryAt: lastRun.retryAt }],
  );
}

function databaseWarnings({ shared }: OperationsDeps): string[] {
  const database = shared?.describe() ?? null;
  if (database === null || database.reachable) return [];
  return [
    `the database ${database.where} has not been there since ${database.since}: pulls go on as things were then, nothing can be changed; ${database.trouble}`,
  ];
}

function nextExpiry(held: readonly CertificateInfo[]): StatusReport['nextExpiry'] {
  const [next] = held
    .flatMap(({ host, state, notAfter }) => (state === 'valid' && notAfter !== null ? [{ host, notAfter }] : []))
    .sort((one, other) => (one.notAfter < other.notAfter ? -1 : 1));
  return next ?? null;
}

function trafficOf(reading: Reading): Readonly<Record<string, number>> {
  return {
    requests: reading.total('http_requests_total'),
    bytesSent: reading.total('http_sent_bytes_total'),
    bytesFetched: reading.total('upstream_bytes_total'),
  };
}

/** From the same numbers as `/metrics`; the one with most bytes first. */
function registriesOf(reading: Reading): RegistryTraffic[] {
  const requests = reading.by('http_request_seconds_count', 'registry');
  const sent = reading.by('http_sent_bytes_total', 'registry');
  const fetched = reading.by('upstream_bytes_total', 'registry');
  const failed = reading.by('registry_errors_total', 'registry', ({ reason }) => reason !== '');
  const names = new Set([...requests.keys(), ...fetched.keys()].filter((name) => name !== ''));
  return [...names]
    .map((registry) => ({
      registry,
      requests: requests.get(registry) ?? 0,
      bytesSent: sent.get(registry) ?? 0,
      bytesFetched: fetched.get(registry) ?? 0,
      failed: failed.get(registry) ?? 0,
    }))
    .filter((row) => row.requests + row.bytesFetched > 0)
    .sort((one, other) => other.bytesSent - one.bytesSent || other.requests - one.requests);
}

/** Those that were sent most since the start, and those that used most of today's limit, which outlives a restart. */
function clientsOf(live: LiveGateway, { day, minute }: LimitsUsage): ClientRow[] {
  const uses = new Map(live.activity.clients(MAX_CLIENTS).map((use) => [use.client, use]));
  const used = (day?.clients ?? []).map(({ client, sent, fetched }) => [client, Math.max(sent, fetched)] as const);
  const today = new Map(used.sort(([, one], [, other]) => other - one));
  const names = new Set([...[...today.keys()].slice(0, MAX_CLIENTS), ...uses.keys()]);
  return [...names].map((client) => ({
    ...(uses.get(client) ?? { client, requests: 0, bytes: 0, refused: 0, lastAt: null }),
    bytesToday: day === null ? null : (today.get(client) ?? 0),
    requestsUsed: minute === null ? null : (minute.clients.get(client) ?? 0),
  }));
}

function limitsOf({ minute, day, month }: LimitsUsage): LimitsRow | null {
  if (minute === null && day === null && month === null) return null;
  return {
    requestsPerMinute: minute?.limit ?? null,
    bytesPerDay: day === null ? null : { limit: day.limit, endsAt: day.endsAt },
    bytesPerMonth: month,
  };
}

/** Share of the month's bytes from which on an operator should know. */
const NEARLY = 0.9;

function monthWarnings(limits: LimitsUsage | null): string[] {
  const month = limits?.month ?? null;
  if (month === null || month.used < NEARLY * month.limit) return [];
  const percent = Math.floor((100 * month.used) / month.limit);
  return [
    `${percent} % of limits.bytesPerMonth are used; once they are, nobody can pull until ${month.endsAt}: raise it, then gateway reload`,
  ];
}

/** Of every registry of the table, in its order. */
function endpointsOf({ table }: OperationsDeps, { upstream }: LiveGateway): EndpointRow[] {
  return [...table.snapshot().registries.keys()].flatMap((registry) =>
    upstream.health(registry).map((health) => ({ registry, ...health })),
  );
}
