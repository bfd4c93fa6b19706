import { createHash } from 'node:crypto';
import type { AliasEntry, TableSnapshot } from '../aliases/table.ts';
import { authority, baseUrl, CLIENT_KINDS, type PublicAddress } from '../clients/facts.ts';
import { DIAL_TIMEOUT } from '../clients/hosts-toml.ts';
import type { RegistryError } from '../oci/errors.ts';
import { isPattern } from '../oci/names.ts';
import type { HostRole } from './registry-name.ts';
import type { SmallAnswer } from './response-writer.ts';

/** What the page is written in. */
export type Language = 'en' | 'zh';

export interface PageFacts {
  readonly language: Language;
  readonly table: TableSnapshot;
  readonly role: HostRole;
  readonly address: PublicAddress;
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
  // It depends on who asks, and on their language.
  'cache-control': 'private, no-cache',
  vary: 'Accept-Language',
};

/** The page's words; markup among them is the page's own. */
const WORDS = {
  en: {
    tag: 'en',
    title: 'registry gateway',
    footer: 'for pulls only',
    other: '<a href="/?lang=zh" hreflang="zh" lang="zh">中文</a>',
    refused: 'A gateway to container registries, for those whom its operator lets in.',
    aliasLead: (registry: string) => `Pulls from here come from <b>${registry}</b>.`,
    aliasHead: 'Pull an image',
    aliasHow: (registry: string) => `Write this host where an image's name has <code>${registry}</code>:`,
    aliasMore: (domain: string) => `Every other registry of this gateway is on ${domain}.`,
    lead: 'A gateway to container registries. It fetches each layer once and serves it from here.',
    prefixHead: 'Pull by prefix',
    prefixHow: 'Put this host in front of the whole image name:',
    aliasesHead: 'Pull by alias',
    aliasesHow: (registry: string) =>
      `Write the alias's host in place of the registry, here for <code>${registry}</code>:`,
    mirrorHead: 'As a mirror, names unchanged',
    dockerNew:
      'Docker 29 and later with the containerd image store (new installations have it): every registry, by <code>/etc/docker/certs.d/_default/hosts.toml</code>:',
    dockerOld: 'Earlier Docker, and the classic image store: docker.io alone, by <code>/etc/docker/daemon.json</code>:',
    clientsHow: 'The whole configuration, ready to paste, for',
    registriesHead: 'Registries',
    none: 'This gateway has no aliases yet.',
    registry: 'Registry',
    host: 'Host',
    more: (count: number) => `and ${count} more.`,
  },
  zh: {
    tag: 'zh-CN',
    title: '容器镜像仓库网关',
    footer: '只提供拉取',
    other: '<a href="/?lang=en" hreflang="en" lang="en">English</a>',
    refused: '容器镜像仓库网关，只对管理员允许的用户开放。',
    aliasLead: (registry: string) => `从这里拉取的镜像来自 <b>${registry}</b>。`,
    aliasHead: '拉取镜像',
    aliasHow: (registry: string) => `把镜像名里的 <code>${registry}</code> 换成这个主机名：`,
    aliasMore: (domain: string) => `本网关的其他仓库见 ${domain}。`,
    lead: '容器镜像仓库网关：每一层只从上游下载一次，之后都由这里提供。',
    prefixHead: '按前缀拉取',
    prefixHow: '在完整的镜像名前面加上本主机名：',
    aliasesHead: '按别名拉取',
    aliasesHow: (registry: string) => `用别名主机代替仓库名，以 <code>${registry}</code> 为例：`,
    mirrorHead: '作为镜像加速，镜像名不变',
    dockerNew:
      'Docker 29 及以上、使用 containerd 镜像存储（新安装的默认值）：所有仓库，写在 <code>/etc/docker/certs.d/_default/hosts.toml</code>：',
    dockerOld: '更早的 Docker 或经典镜像存储：只对 docker.io 生效，写在 <code>/etc/docker/daemon.json</code>：',
    clientsHow: '完整配置，直接粘贴即可：',
    registriesHead: '仓库',
    none: '本网关还没有别名。',
    registry: '仓库',
    host: '主机',
    more: (count: number) => `另有 ${count} 个。`,
  },
} as const;
type Words = (typeof WORDS)[Language];

/**
 * The language that a person asked for (`?lang=`), else the one that their browser prefers (RFC 9110 §12.5.4); English where neither says.
 */
export function languageOf(asked: string | undefined, accept: string | undefined): Language {
  if (asked === 'en' || asked === 'zh') return asked;
  const ranges = (accept ?? '').split(',').map((part) => {
    const [range = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
    return { language: range.split('-')[0], weight: weight === undefined ? 1 : Number(weight) || 0 };
  });
  const best = (language: Language) =>
    Math.max(0, ...ranges.filter((range) => range.language === language).map(({ weight }) => weight));
  return best('zh') > best('en') ? 'zh' : 'en';
}

/**
 * The page at `/` for people: how to pull through this gateway. Only clients that may pull see names and registries;
 * others see why they may not.
 */
export function renderPage(facts: PageFacts): SmallAnswer {
  const { table, role, address, version, refusal, language } = facts;
  const words = WORDS[language];
  const title = role.kind === 'alias' ? authority(address, role.alias.host) : authority(address);
  return {
    status: 200,
    headers: { ...HEADERS, 'content-language': words.tag },
    body: `<!doctype html>
<html lang="${words.tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escapeHtml(title)} · ${words.title}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${refusal !== null ? refusedPart(words, refusal) : role.kind === 'alias' ? aliasPart(words, address, role.alias) : barePart(words, address, table)}
<footer>${words.title} ${escapeHtml(version)} · ${words.footer} · ${words.other}</footer>
</main>
</body>
</html>
`,
  };
}

function refusedPart(words: Words, { message, next }: RegistryError): string {
  return `<p class="lead">${words.refused}</p>
<p>${escapeHtml(message)}; ${escapeHtml(next)}.</p>`;
}

function aliasPart(words: Words, address: PublicAddress, { host, registry }: AliasEntry): string {
  const image = registry === 'docker.io' ? 'alpine' : '<name>:<tag>';
  return `<p class="lead">${words.aliasLead(escapeHtml(registry))}</p>
<h2>${words.aliasHead}</h2>
<p>${words.aliasHow(escapeHtml(registry))}</p>
${pre('docker pull ', authority(address, host), `/${image}`)}
<p class="note">${words.aliasMore(`<a href="${escapeHtml(baseUrl(address))}/">${escapeHtml(authority(address))}</a>`)}</p>`;
}

function barePart(words: Words, address: PublicAddress, table: TableSnapshot): string {
  const aliases = [...table.hosts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const docker = table.registries.has('docker.io');
  const prefixed = docker
    ? '/docker.io/library/alpine'
    : `/${[...table.registries.keys()].find((host) => !isPattern(host)) ?? '<registry>'}/<name>:<tag>`;
  const sample = aliases.find((alias) => alias.registry !== 'docker.io') ?? aliases[0];
  const kinds = CLIENT_KINDS.map((kind) => `<a href="/client/${kind}">${kind}</a>`).join(' · ');
  return `<p class="lead">${words.lead}</p>
<h2>${words.prefixHead}</h2>
<p>${words.prefixHow}</p>
${pre('docker pull ', authority(address), prefixed)}
${
  sample === undefined
    ? ''
    : `<h2>${words.aliasesHead}</h2>
<p>${words.aliasesHow(escapeHtml(sample.registry))}</p>
${pre('docker pull ', authority(address, sample.host), '/<name>:<tag>')}`
}
<h2>${words.mirrorHead}</h2>
<p>${words.dockerNew}</p>
${pre(`[host."${address.scheme}://`, authority(address), `"]\n  capabilities = ["pull", "resolve", "referrers"]\n  dial_timeout = "${DIAL_TIMEOUT}"`)}
<p>${words.dockerOld}</p>
${pre(`{ "registry-mirrors": ["${address.scheme}://`, authority(address), '"] }')}
<p>${words.clientsHow} ${kinds}</p>
<h2>${words.registriesHead}</h2>
${aliases.length === 0 ? `<p class="note">${words.none}</p>` : tableOf(words, address, aliases)}`;
}

function tableOf(words: Words, address: PublicAddress, aliases: readonly AliasEntry[]): string {
  const rows = aliases
    .slice(0, LISTED)
    .map(
      ({ host, registry }) =>
        `<tr><td><code>${escapeHtml(registry)}</code></td><td><code>${escapeHtml(authority(address, host))}</code></td></tr>`,
    );
  const more = aliases.length > LISTED ? `<p class="note">${words.more(aliases.length - LISTED)}</p>` : '';
  return `<div class="card"><table>
<thead><tr><th scope="col">${words.registry}</th><th scope="col">${words.host}</th></tr></thead>
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
