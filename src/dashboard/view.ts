import { html } from 'hono/html';
import type { DashboardReport, EndpointRow, StatusReport } from '../admin/contract.ts';
import type { Language } from '../kit/language.ts';
import { formatBytes } from '../kit/text.ts';
import { chart, type Html, hitRatios, levels, rates } from './charts.ts';
import { spanText, WORDS, type Words, whenText } from './words.ts';

interface View {
  readonly report: DashboardReport;
  readonly status: StatusReport;
  readonly words: Words;
  readonly language: Language;
  readonly now: number;
}

/** The whole page. The part within `main` is what is replaced as it changes. */
export function page(main: Html, language: Language): Html {
  const words = WORDS[language];
  const other = language === 'en' ? 'zh' : 'en';
  return html`<!doctype html>
<html lang="${language === 'en' ? 'en' : 'zh-Hans'}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${words.title}</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="data:,">
<script src="/live.js" defer></script>
</head>
<body>
<header><h1>${words.title}</h1><a href="/?lang=${other}" lang="${other}" hreflang="${other}">${words.other}</a></header>
<p id="lost" role="status" data-text="${words.lost}"></p>
<main id="main" data-events="/events?lang=${language}">${main}</main>
</body>
</html>`;
}

/** What the page shows, as sections with an id each. */
export function sections(report: DashboardReport, language: Language): Html {
  const view = { report, status: report.status, words: WORDS[language], language, now: Date.parse(report.at) };
  const all = [overview, warnings, overTime, fills, troubles, registries, clients, certificates, endpoints];
  return html`${all.map((one) => one(view))}`;
}

function section(id: string, title: string, body: Html | readonly Html[]): Html {
  return html`<section id="${id}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${body}</section>`;
}

/** A table that is as wide as it must be: on a phone it is moved sideways, by keyboard too. */
function table(label: string, head: readonly string[], rows: readonly (readonly (string | Html)[])[]): Html {
  const cells = (row: readonly (string | Html)[]) =>
    row.map((cell, index) => (index === 0 ? html`<th scope="row">${cell}</th>` : html`<td>${cell}</td>`));
  return html`<div class="scroll" role="group" aria-label="${label}" tabindex="0"><table>
<thead><tr>${head.map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${cells(row)}</tr>`)}</tbody></table></div>`;
}

function overview({ status, words, language }: View): Html {
  const { cache, saved, traffic, certificates } = status;
  const facts: [string, string][] = [
    [words.domain, status.domain],
    [words.version, status.version],
    [words.uptime, spanText((status.uptimeSeconds ?? 0) * 1000, language)],
    [words.workers, String(status.workers)],
    [words.cache, words.of(formatBytes(cache.bytes), formatBytes(cache.maxBytes))],
    [words.hits, cache.hitRatio === null ? '–' : `${(100 * cache.hitRatio).toFixed(1)} %`],
    [words.saved, formatBytes(saved.bytes)],
    [words.requests, String(traffic?.requests ?? 0)],
    [words.sent, formatBytes(traffic?.bytesSent ?? 0)],
    [words.fetched, formatBytes(traffic?.bytesFetched ?? 0)],
    [
      words.certificates,
      Object.entries(certificates)
        .filter(([, count]) => count > 0)
        .map(([state, count]) => `${count} ${words[state as keyof typeof certificates]}`)
        .join(', ') || '–',
    ],
  ];
  const rows = facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`);
  return section('overview', words.gateway, html`<dl class="facts">${rows}</dl>${limits({ status, words, language })}`);
}

function limits({ status, words }: Pick<View, 'status' | 'words' | 'language'>): Html {
  const set = status.limits;
  if (set === null) return html``;
  const month = set.bytesPerMonth;
  const rows: [string, string][] = [];
  if (set.requestsPerMinute !== null) rows.push([words.perMinute, String(set.requestsPerMinute)]);
  if (set.bytesPerDay !== null) rows.push([words.perDay, formatBytes(set.bytesPerDay.limit)]);
  if (month !== null) rows.push([words.perMonth, words.of(formatBytes(month.used), formatBytes(month.limit))]);
  return html`<dl class="facts">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function warnings({ status, words }: View): Html {
  const items = status.warnings.map((warning) => html`<li>${warning}</li>`);
  return items.length === 0 ? html`` : section('warnings', words.warnings, html`<ul class="warn">${items}</ul>`);
}

function overTime({ report: { history }, words }: View): Html {
  const rate = (value: number) => `${formatBytes(Math.round(value))}/min`;
  return section('history', words.overTime, [
    chart(
      words.traffic,
      [
        { name: words.sent, tone: 'one', points: rates(history, ({ bytesSent }) => bytesSent) },
        { name: words.fetched, tone: 'two', points: rates(history, ({ bytesFetched }) => bytesFetched) },
      ],
      rate,
    ),
    chart(
      words.requests,
      [
        { name: words.requests, tone: 'one', points: rates(history, ({ requests }) => requests) },
        { name: words.failed, tone: 'two', points: rates(history, ({ failed }) => failed) },
      ],
      (value) => `${Math.round(value)}/min`,
    ),
    chart(
      words.hitRatio,
      [{ name: words.hitRatio, tone: 'one', points: hitRatios(history) }],
      (value) => `${Math.round(100 * value)} %`,
      1,
    ),
    chart(
      words.cacheSize,
      [{ name: words.cacheSize, tone: 'one', points: levels(history, ({ cacheBytes }) => cacheBytes) }],
      formatBytes,
    ),
  ]);
}

function fills({ status, words }: View): Html {
  if (status.fills.length === 0) return section('fills', words.fills, html`<p>${words.noFills}</p>`);
  const head = [words.blob, words.progress, words.speed, words.readers, words.connections];
  const rows = status.fills.map((fill) => [
    html`${fill.registry}/${fill.repository} <code>${fill.digest.slice(7, 19)}</code>`,
    fill.total === null
      ? formatBytes(fill.bytes)
      : html`<progress max="${fill.total}" value="${fill.bytes}" aria-label="${words.progress}: ${fill.repository}"></progress> ${words.of(formatBytes(fill.bytes), formatBytes(fill.total))}`,
    fill.resting ? words.rests : `${formatBytes(fill.bytesPerSecond)}/s`,
    String(fill.readers),
    String(fill.connections),
  ]);
  return section('fills', words.fills, table(words.fills, head, rows));
}

function troubles({ status, words, language, now }: View): Html {
  if (status.troubles.length === 0) return section('troubles', words.troubles, html`<p>${words.noTroubles}</p>`);
  const head = [words.when, words.times, words.what, words.state, words.reason];
  const rows = status.troubles.map(({ kind, registry, what, status: code, reason, count, lastAt }) => [
    whenText(lastAt, language, now),
    String(count),
    registry === null ? what : `${registry}/${what}`,
    html`<span class="tag bad">${kind === 'failed' ? String(code) : words[kind]}</span>`,
    html`<span class="reason">${reason}</span>`,
  ]);
  return section('troubles', words.troubles, table(words.troubles, head, rows));
}

function registries({ status, words }: View): Html {
  if (status.byRegistry.length === 0) return section('registries', words.byRegistry, html`<p>${words.nobody}</p>`);
  const head = [words.registry, words.requests, words.failed, words.sent, words.fetched];
  const rows = status.byRegistry.map((row) => [
    row.registry,
    String(row.requests),
    row.failed === 0 ? '0' : html`<span class="tag bad">${row.failed}</span>`,
    formatBytes(row.bytesSent),
    formatBytes(row.bytesFetched),
  ]);
  return section('registries', words.byRegistry, table(words.byRegistry, head, rows));
}

function clients({ status, words, language, now }: View): Html {
  if (status.byClient.length === 0) return section('clients', words.byClient, html`<p>${words.nobody}</p>`);
  const perDay = status.limits?.bytesPerDay ?? null;
  const head = [words.client, words.requests, words.sent, words.refused, words.lastSeen];
  if (perDay !== null) head.push(words.today);
  const rows = status.byClient.map((row) => {
    const cells: (string | Html)[] = [
      row.client.replace(/^user:/, ''),
      String(row.requests),
      formatBytes(row.bytes),
      row.refused === 0 ? '0' : html`<span class="tag bad">${row.refused}</span>`,
      whenText(row.lastAt, language, now),
    ];
    if (perDay !== null) cells.push(words.of(formatBytes(row.bytesToday ?? 0), formatBytes(perDay.limit)));
    return cells;
  });
  return section('clients', words.byClient, table(words.byClient, head, rows));
}

function certificates({ report, words, language, now }: View): Html {
  if (report.certificates.length === 0) {
    return section('certificates', words.certificates, html`<p>${words.noCertificates}</p>`);
  }
  const order = (state: string) => (state === 'valid' ? 1 : state === 'on demand' ? 2 : 0);
  const sorted = report.certificates.toSorted(
    (one, other) => order(one.state) - order(other.state) || ((one.notAfter ?? '') < (other.notAfter ?? '') ? -1 : 1),
  );
  const rows = sorted.map(({ host, state, notAfter, issuer, lastError }) => [
    host,
    html`<span class="tag ${state === 'valid' ? 'good' : state === 'on demand' ? '' : 'bad'}">${words[state]}</span>`,
    notAfter === null ? '–' : whenText(notAfter, language, now),
    issuer ?? '–',
    html`<span class="reason">${lastError?.detail ?? ''}</span>`,
  ]);
  const head = [words.host, words.state, words.ends, words.issuer, words.error];
  return section('certificates', words.certificates, table(words.certificates, head, rows));
}

function endpoints({ report, words, language, now }: View): Html {
  const retry = ({ retryAt }: EndpointRow) =>
    retryAt === null || Date.parse(retryAt) <= now ? '' : ` (${words.again(whenText(retryAt, language, now))})`;
  const bad = ({ state, failing }: EndpointRow) => (state !== 'closed' ? 2 : failing.length > 0 ? 1 : 0);
  const rows = report.endpoints
    .toSorted((one, other) => bad(other) - bad(one))
    .map((row) => [
      row.registry,
      row.url,
      html`<span class="tag ${row.state === 'closed' ? 'good' : 'bad'}">${words[row.state]}</span>`,
      html`<span class="reason">${row.lastError ?? ''}${retry(row)}</span>`,
    ]);
  const head = [words.registry, words.endpoint, words.state, words.error];
  return section('endpoints', words.endpoints, table(words.endpoints, head, rows));
}
