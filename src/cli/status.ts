import { Command } from 'commander';
import type { ClientRow, LimitsRow, StatusReport } from '../admin/contract.ts';
import { formatBytes, wrapDisplay } from '../kit/text.ts';
import { formatSpan, sleep } from '../kit/time.ts';
import type { BudgetRow } from '../upstream/upstream.ts';
import { type Cell, formatWhen, type Output } from './output.ts';
import type { Exit, Session } from './session.ts';

/** Between two readings of `--watch`, ms. */
const WATCH_EVERY = 2_000;
/** Clients, registries and troubles that are shown to a person; `--json` has more. */
const SHOWN = 10;

export function statusCommand(session: Session, exit: Exit): Command {
  const { output, signal } = session;
  return new Command('status')
    .description(
      'what is running: certificates, cache, fills, traffic, budgets, limits, what went wrong; exit 1 where nothing runs',
    )
    .option('--json', 'print JSON')
    .option('--watch', 'show it again every two seconds, until Ctrl-C')
    .action(async (options: { json?: boolean; watch?: boolean }) => {
      for (;;) {
        const status = (await session.act('status', {})) as StatusReport;
        if (options.watch === true) output.clear();
        if (options.json === true) output.json(status);
        else showStatus(output, status);
        if (!status.running) exit.code = 1;
        if (options.watch !== true || !status.running) return;
        await sleep(WATCH_EVERY, signal).catch(() => {});
        if (signal.aborted) return;
      }
    });
}

function showStatus(output: Output, status: StatusReport): void {
  output.facts(facts(status));
  nodes(output, status);
  fills(output, status);
  table(output, 'registries', ['registry', 'requests', 'failed', 'sent', 'fetched'], status.byRegistry, (row) => [
    row.registry,
    String(row.requests),
    row.failed === 0 ? '0' : { text: String(row.failed), tone: 'warn' },
    formatBytes(row.bytesSent),
    formatBytes(row.bytesFetched),
  ]);
  budgets(output, status);
  clients(output, status);
  for (const { registry, url, lastError, retryAt } of status.setAside) {
    section(output, `set aside: ${registry}`);
    paragraph(output, url);
    if (lastError !== null) paragraph(output, lastError);
    if (retryAt !== null) paragraph(output, `tried again ${formatWhen(retryAt)}`);
  }
  warmFailing(output, status);
  troubles(output, status);
  for (const warning of status.warnings) output.note(warning);
}

function facts(status: StatusReport): [string, Cell | string[]][] {
  const { cache, saved, traffic, limits, addresses } = status;
  const rows: [string, Cell | string[]][] = [
    [
      'gateway',
      status.running
        ? { text: `runs as process ${status.pid}, for ${formatSpan((status.uptimeSeconds ?? 0) * 1000)}`, tone: 'good' }
        : { text: `nothing runs on ${status.dataDir}`, tone: 'warn' },
    ],
    ['version', status.version],
    ['domain', status.domain],
    ['data', status.dataDir],
  ];
  if (status.database !== null) {
    const { where, reachable, since } = status.database;
    rows.push(['database', reachable ? where : { text: `${where}: away since ${formatWhen(since)}`, tone: 'bad' }]);
  }
  if (status.running) {
    rows.push(['https', [...addresses.https]], ['http', [...addresses.http]], ['metrics', addresses.metrics ?? 'off']);
    rows.push(['workers', String(status.workers)]);
  }
  rows.push(
    ['tls', status.tls],
    ['aliases', `${status.aliases} for ${status.registries} registries`],
    ['users', status.users === 0 ? 'none' : String(status.users)],
    ['certs', certificates(status)],
    [
      'cache',
      `${formatBytes(cache.bytes)} of ${formatBytes(cache.maxBytes)} in ${cache.blobs} ${cache.blobs === 1 ? 'blob' : 'blobs'}` +
        (cache.hitRatio === null ? '' : `, ${(cache.hitRatio * 100).toFixed(1)} % hits`) +
        (cache.pins === 0 ? '' : `; ${formatBytes(cache.pinnedBytes)} pinned`),
    ],
    [
      'saved',
      `${formatBytes(saved.bytes)} (${formatBytes(saved.served)} served, ${formatBytes(saved.fetched)} fetched)`,
    ],
  );
  for (const [name, value] of Object.entries(traffic ?? {})) {
    rows.push([words(name), /bytes/i.test(name) ? formatBytes(value) : String(value)]);
  }
  if (limits !== null) rows.push(['limits', limitLines(limits)]);
  return rows;
}

/** Those that share the state, where there are others. */
function nodes(output: Output, { database, nodes: live }: StatusReport): void {
  if (database === null) return;
  table(output, `gateways with ${database.where}`, ['node', 'address', 'version', 'state'], live, (node) => [
    node.self ? `${node.id} (this one)` : node.id,
    node.address ?? 'reached by none',
    node.version,
    node.draining ? { text: 'ends', tone: 'warn' } : 'serves',
  ]);
}

function certificates({ certificates: counts, nextExpiry }: StatusReport): string[] {
  const states = Object.entries(counts).flatMap(([state, count]) => (count > 0 ? [`${count} ${state}`] : []));
  if (states.length === 0) return ['none'];
  const next = nextExpiry === null ? [] : [`${nextExpiry.host} ends ${formatWhen(nextExpiry.notAfter)}`];
  return [states.join(', '), ...next];
}

function limitLines({ requestsPerMinute, bytesPerDay, bytesPerMonth }: LimitsRow): string[] {
  const lines: string[] = [];
  if (requestsPerMinute !== null) lines.push(`${requestsPerMinute} requests a minute of one client`);
  if (bytesPerDay !== null) {
    lines.push(`${formatBytes(bytesPerDay.limit)} a day of one client; anew ${formatWhen(bytesPerDay.endsAt)}`);
  }
  if (bytesPerMonth !== null) {
    const { used, limit, endsAt } = bytesPerMonth;
    lines.push(`${formatBytes(used)} of ${formatBytes(limit)} this month of all; anew ${formatWhen(endsAt)}`);
  }
  return lines;
}

function fills(output: Output, { fills: running }: StatusReport): void {
  if (running.length === 0) return;
  section(output, `fills (${running.length})`);
  for (const fill of running.slice(0, SHOWN)) {
    paragraph(output, `${fill.registry}/${fill.repository}@${fill.digest.slice(0, 19)}`);
    const share = fill.total === null || fill.total === 0 ? null : Math.floor((100 * fill.bytes) / fill.total);
    const size =
      share === null
        ? formatBytes(fill.bytes)
        : `${share} %: ${formatBytes(fill.bytes)} of ${formatBytes(fill.total ?? 0)}`;
    const pace = fill.resting ? 'rests' : `${formatBytes(fill.bytesPerSecond)}/s`;
    const from = fill.node === null ? '' : `, from node ${fill.node}`;
    paragraph(output, `  ${size}, ${pace}, readers: ${fill.readers}, connections: ${fill.connections}${from}`);
  }
  more(output, running.length);
}

function budgets(output: Output, { budgets: rows }: StatusReport): void {
  table(output, 'what registries allow', ['registry', 'whom', 'left', 'more'], rows, (row) => [
    row.registry,
    row.account ?? 'this address',
    leftOf(row),
    formatWhen(row.refillsAt),
  ]);
}

/** `76 of 100 pulls in 6 h`; what rests stands out. */
export function leftOf({ kind, limit, remaining, windowSeconds, restingUntil }: BudgetRow): Exclude<Cell, string> {
  if (kind === 'abuse') return { text: 'nothing: it wants no requests', tone: 'bad' };
  const whole = limit === null ? '' : ` of ${limit}`;
  const span = windowSeconds === null ? '' : ` in ${formatSpan(windowSeconds * 1000)}`;
  const isLow = limit !== null && (remaining ?? 0) < limit / 2;
  const tone = restingUntil !== null ? 'bad' : isLow ? 'warn' : 'plain';
  return { text: `${remaining ?? 0}${whole} pulls${span}`, tone };
}

function clients(output: Output, { byClient, limits }: StatusReport): void {
  const perDay = limits?.bytesPerDay?.limit ?? null;
  const perMinute = limits?.requestsPerMinute ?? null;
  const head = ['client', 'requests', 'sent', 'refused'];
  if (perDay !== null) head.push('today');
  if (perMinute !== null) head.push('of a minute');
  table(output, 'clients', head, byClient, (row: ClientRow) => {
    const cells: Cell[] = [
      row.client.replace(/^user:/, ''),
      String(row.requests),
      formatBytes(row.bytes),
      row.refused === 0 ? '0' : { text: String(row.refused), tone: 'warn' },
    ];
    if (perDay !== null) cells.push(used(row.bytesToday ?? 0, perDay, formatBytes));
    if (perMinute !== null) cells.push(used(row.requestsUsed ?? 0, perMinute, String));
    return cells;
  });
}

function used(amount: number, limit: number, text: (amount: number) => string): Cell {
  const percent = Math.floor((100 * amount) / limit);
  return { text: `${text(amount)} (${percent} %)`, tone: percent >= 100 ? 'bad' : percent >= 80 ? 'warn' : 'plain' };
}

function warmFailing(output: Output, { warmFailing: failing }: StatusReport): void {
  if (failing.length === 0) return;
  section(output, 'images at hand: the last run failed');
  for (const { image, error, retryAt } of failing.slice(0, SHOWN)) {
    paragraph(output, `${image}: tried again ${formatWhen(retryAt)}`);
    paragraph(output, `  ${error}`);
  }
  more(output, failing.length);
}

function troubles(output: Output, { troubles: seen }: StatusReport): void {
  if (seen.length === 0) return;
  section(output, 'troubles');
  for (const { kind, status, registry, reason, what, count, lastAt } of seen.slice(0, SHOWN)) {
    const answer = kind === 'stale' ? 'a kept answer' : kind === 'cut' ? 'a short body' : String(status);
    const times = count === 1 ? '' : `, ${count} times`;
    paragraph(output, `${formatWhen(lastAt)}${times}: ${answer} for ${registry === null ? '' : `${registry}/`}${what}`);
    if (reason !== '') paragraph(output, `  ${reason}`);
  }
  more(output, seen.length);
}

function table<T>(
  output: Output,
  title: string,
  head: readonly string[],
  rows: readonly T[],
  cells: (row: T) => readonly Cell[],
): void {
  if (rows.length === 0) return;
  section(output, title);
  output.table(head, rows.slice(0, SHOWN).map(cells));
  more(output, rows.length);
}

function section(output: Output, title: string): void {
  output.line();
  output.line(output.paint('dim', `-- ${title}`));
}

function more(output: Output, count: number): void {
  if (count > SHOWN) output.line(output.paint('dim', `and ${count - SHOWN} more: gateway status --json`));
}

function paragraph(output: Output, text: string): void {
  for (const line of wrapDisplay(text, output.columns)) output.line(line);
}

/** `bytesSent` as a person writes it. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
