import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import type { TableSnapshot } from '../aliases/table.ts';
import type { RegistryError } from '../oci/errors.ts';
import type { SmallAnswer } from './response-writer.ts';
import type { HostRole } from './target.ts';

export interface PageFacts {
  readonly table: TableSnapshot;
  readonly role: HostRole;
  /** Port of the HTTPS listener; shown unless it is 443. */
  readonly port: number;
  readonly version: string;
  /** Why this client may not pull; null where it may. */
  readonly refusal: RegistryError | null;
}

/** Aliases listed before the rest is only counted. */
const LISTED = 200;

const STYLE = `
:root{color-scheme:light dark;--ink:#16202b;--soft:#5a6875;--line:#dde3e9;--paper:#fbfcfd;--card:#fff;--mark:#0b6bcb;--code:#f1f4f7}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#98a5b3;--line:#2a343f;--paper:#10161c;--card:#171f27;--mark:#6cb4ff;--code:#1e2832}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:52rem;margin:0 auto;padding:3.5rem 1.25rem 2rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:2.4rem 0 .6rem}
p{margin:.4rem 0 .8rem}.lead,.note,footer{color:var(--soft)}
pre{margin:.5rem 0 1rem;padding:.8rem 1rem;background:var(--code);border-radius:.5rem;overflow-x:auto}
code{font:.9em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre b{font-weight:600;color:var(--mark)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.5rem .9rem;border-top:1px solid var(--line);white-space:nowrap}
thead th{border-top:0;font-size:.8rem;font-weight:600;color:var(--soft)}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.85rem}
`;
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64');

const HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  // It depends on who asks.
  'cache-control': 'private, no-cache',
};

/**
 * The page at `/` for people: how to pull through this gateway. Only clients that may pull see names and registries;
 * others see why they may not.
 */
export function renderPage(facts: PageFacts): SmallAnswer {
  const { table, role, version, refusal } = facts;
  const port = facts.port === 443 ? '' : `:${facts.port}`;
  const domain = `${isIP(table.domain) === 6 ? `[${table.domain}]` : table.domain}${port}`;
  const title = role.kind === 'alias' ? `${role.alias.host}${port}` : domain;
  return {
    status: 200,
    headers: HEADERS,
    body: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escapeHtml(title)} · registry gateway</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${refusal !== null ? refusedPart(refusal) : role.kind === 'alias' ? aliasPart(`${role.alias.host}${port}`, role.alias.registry, domain) : barePart(domain, port, table)}
<footer>registry gateway ${escapeHtml(version)}, for pulls only</footer>
</main>
</body>
</html>
`,
  };
}

function refusedPart({ message, next }: RegistryError): string {
  return `<p class="lead">A gateway to container registries, for those whom its operator lets in.</p>
<p>${escapeHtml(message)}; ${escapeHtml(next)}.</p>`;
}

function aliasPart(host: string, registry: string, domain: string): string {
  const image = registry === 'docker.io' ? 'alpine' : '<name>:<tag>';
  return `<p class="lead">Pulls from here come from <b>${escapeHtml(registry)}</b>.</p>
<h2>Pull an image</h2>
<p>Write this host where an image's name has <code>${escapeHtml(registry)}</code>:</p>
${pre('docker pull ', host, `/${image}`)}
<p class="note">Every other registry of this gateway is on <a href="https://${escapeHtml(domain)}/">${escapeHtml(domain)}</a>.</p>`;
}

function barePart(domain: string, port: string, table: TableSnapshot): string {
  const aliases = [...table.aliases.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const docker = table.registries.has('docker.io');
  const prefixed = docker
    ? '/docker.io/library/alpine'
    : `/${[...table.registries.keys()][0] ?? '<registry>'}/<name>:<tag>`;
  const sample = aliases.find((alias) => alias.registry !== 'docker.io') ?? aliases[0];
  return `<p class="lead">A gateway to container registries. It fetches each layer once and serves it from here.</p>
<h2>Pull by prefix</h2>
<p>Put this host in front of the whole image name:</p>
${pre('docker pull ', domain, prefixed)}
${
  sample === undefined
    ? ''
    : `<h2>Pull by alias</h2>
<p>Write the alias's host in place of the registry, here for <code>${escapeHtml(sample.registry)}</code>:</p>
${pre('docker pull ', sample.host + port, '/<name>:<tag>')}`
}
<h2>As a mirror</h2>
<p>In <code>/etc/docker/daemon.json</code>, so that names without a registry come from here:</p>
${pre('{ "registry-mirrors": ["https://', domain, '"] }')}
<h2>Registries</h2>
${aliases.length === 0 ? '<p class="note">This gateway has no aliases yet.</p>' : tableOf(aliases, port)}`;
}

function tableOf(aliases: readonly { host: string; registry: string }[], port: string): string {
  const rows = aliases
    .slice(0, LISTED)
    .map(
      ({ host, registry }) =>
        `<tr><td><code>${escapeHtml(registry)}</code></td><td><code>${escapeHtml(host + port)}</code></td></tr>`,
    );
  const more = aliases.length > LISTED ? `<p class="note">and ${aliases.length - LISTED} more.</p>` : '';
  return `<div class="card"><table>
<thead><tr><th scope="col">Registry</th><th scope="col">Host</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table></div>${more}`;
}

/** Code with this gateway's own name set off. */
function pre(before: string, own: string, after: string): string {
  return `<pre><code>${escapeHtml(before)}<b>${escapeHtml(own)}</b>${escapeHtml(after)}</code></pre>`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
