import { html } from 'hono/html';
import { baseUrl, CLIENT_KINDS, type ClientFacts } from '../../clients/facts.ts';
import { placeOf } from '../../clients/rewrite.ts';
import type { RegistryOutline } from '../../proxy/outline.ts';
import { codeLine, type Html, nothing, type Texts } from './texts.ts';

/** Registries listed before the rest is only counted. */
const LISTED = 200;

/**
 * Every registry with what to write in its place, and how it is now.
 * @param first the registry of the alias host that was asked, which people who came by it look for
 */
export function registriesSection(
  texts: Texts,
  facts: ClientFacts,
  outlines: readonly RegistryOutline[],
  first: string | null,
): Html {
  const wellbeing = new Map(outlines.map((outline) => [outline.host, outline.wellbeing]));
  const hasAlias = (host: string) => facts.aliases.some((alias) => alias.registry === host);
  const rank = (host: string) => (host === first ? 0 : hasAlias(host) ? 1 : 2);
  const hosts = [...facts.registries].sort((one, other) => rank(one) - rank(other));
  const rows = [
    ...hosts.map((host) => ({ host, note: '' })),
    ...facts.patterns.map((host) => ({ host, note: texts.pattern })),
  ];
  const body = rows.slice(0, LISTED).map(({ host, note }) => {
    const state = wellbeing.get(host) ?? 'unknown';
    const place =
      note === '' ? (placeOf(host, facts)?.prefix ?? '—') : `${baseUrl(facts).replace(/^https?:\/\//, '')}/…`;
    return html`<tr><th scope="row"><code>${host}</code>${note === '' ? nothing : html` <span class="note">${note}</span>`}</th><td class="wide"><code>${place}</code></td><td class="${`state ${state}`}">${texts[state]}</td></tr>`;
  });
  return html`<section aria-labelledby="registries"><h2 id="registries">${texts.registriesHead}</h2>
${
  rows.length === 0
    ? html`<p class="note">${texts.none}</p>`
    : html`<table class="table" aria-labelledby="registries">
<thead><tr><th scope="col">${texts.registry}</th><th scope="col">${texts.writeInstead}</th><th scope="col">${texts.now}</th></tr></thead>
<tbody>
${body}
</tbody>
</table>
<p class="note">${rows.length > LISTED ? html`${texts.more(rows.length - LISTED)} ` : nothing}${texts.wellbeingNote}</p>`
}
</section>`;
}

/** How clients are called by those who use them. */
const NAMES: Record<(typeof CLIENT_KINDS)[number], string> = {
  docker: 'Docker',
  containerd: 'containerd · nerdctl · Kubernetes',
  podman: 'Podman · Buildah · Skopeo',
  k3s: 'k3s · RKE2',
  'cri-o': 'CRI-O',
  buildkit: 'BuildKit',
  kind: 'kind',
  minikube: 'minikube',
};

/** The configuration of each client, as text and as a script. */
export function mirrorSection(texts: Texts, facts: ClientFacts): Html {
  const trusted = facts.ca === null ? '' : ' --cacert ca.crt';
  const user = facts.credentials ? ' -u USER:TOKEN' : '';
  const command = `curl -fsSL${trusted}${user} ${baseUrl(facts)}/client/containerd.sh | sudo sh -s -- --yes`;
  return html`<section aria-labelledby="mirror"><h2 id="mirror">${texts.mirrorHead}</h2>
<p>${texts.mirrorLead}</p>
<table class="table" aria-labelledby="mirror">
<thead><tr><th scope="col">${texts.client}</th><th scope="col">${texts.configuration}</th><th scope="col">${texts.script}</th></tr></thead>
<tbody>
${CLIENT_KINDS.map(
  (kind) => html`<tr><th class="wide" scope="row">${NAMES[kind]}</th>
<td><a href="${`/client/${kind}`}"><code>${kind}</code></a></td>
<td><a href="${`/client/${kind}.sh`}"><code>${kind}.sh</code></a></td></tr>`,
)}
</tbody>
</table>
<p class="note">${texts.scriptNote}</p>
${codeLine(command, texts, texts.script)}
</section>`;
}
