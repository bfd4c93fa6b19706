import { html } from 'hono/html';
import { authority, baseUrl, type ClientFacts } from '../../clients/facts.ts';
import { LANGUAGE_TAGS, type Language } from '../../kit/language.ts';
import type { RegistryError } from '../../oci/errors.ts';
import type { RegistryOutline } from '../../proxy/outline.ts';
import type { HostRole } from '../registry-name.ts';
import type { SmallAnswer } from '../response-writer.ts';
import { documentAnswer } from './document.ts';
import { imagesSection } from './images.ts';
import { mirrorSection, registriesSection } from './registries.ts';
import { symptomsSection } from './symptoms.ts';
import { codeLine, type Html, nothing, type Texts, textsIn } from './texts.ts';
import { trustSection } from './trust.ts';

export interface PageFacts {
  readonly language: Language;
  /** Of the gateway and its table, as far as this client may know them. */
  readonly facts: ClientFacts;
  readonly outlines: readonly RegistryOutline[];
  readonly role: HostRole;
  readonly version: string;
  /** What was pasted into the form; undefined where nothing was. */
  readonly image: string | undefined;
  /** The client's own user; null for none. */
  readonly user: string | null;
  /** Why this client may not pull; null where it may. */
  readonly refusal: RegistryError | null;
}

/**
 * The page at `/` for people: how to pull through this gateway. Only clients that may pull see names and registries; others see why they may not,
 * and what helps them to get in.
 * @param known the ETag that the browser has
 */
export function renderPage(page: PageFacts, known?: string): Promise<SmallAnswer> {
  const { facts, role, language } = page;
  const texts = textsIn(language);
  const alias = role.kind === 'alias' ? (facts.aliases.find(({ host }) => host === role.alias.host) ?? null) : null;
  const title = role.kind === 'alias' ? authority(facts, role.alias.host) : authority(facts);
  const body = html`<a class="skip" href="#main">${texts.skip}</a>
<header><h1>${title}</h1><nav>${languageSwitch(page)}</nav></header>
<main id="main">
${page.refusal === null ? open(texts, page, alias) : refused(texts, page, page.refusal)}
</main>
<p id="said" class="said" role="status"></p>
<footer>${texts.title} ${page.version} · ${texts.footer}</footer>`;
  return documentAnswer({ language, title: `${title} · ${texts.title}`, body }, known);
}

/** The same page in the other language, with what was asked. */
function languageSwitch({ language, image }: PageFacts): Html {
  const other = language === 'en' ? 'zh' : 'en';
  const query = new URLSearchParams({ lang: other, ...(image === undefined ? {} : { image }) });
  const name = other === 'zh' ? '中文' : 'English';
  return html`<a href="${`/?${query}`}" hreflang="${LANGUAGE_TAGS[other]}" lang="${LANGUAGE_TAGS[other]}">${name}</a>`;
}

function open(texts: Texts, page: PageFacts, alias: ClientFacts['aliases'][number] | null): Html {
  const { facts, outlines, language, image, user } = page;
  return html`<p class="lead">${alias === null ? texts.lead : texts.aliasLead(alias.registry)}</p>
${user === null ? nothing : html`<p class="note">${texts.loggedIn(user)}</p>`}
${alias === null ? nothing : html`<p class="note">${texts.aliasMore} <a href="${`${baseUrl(facts)}/`}">${authority(facts)}</a></p>`}
${imagesSection(texts, facts, image, exampleFor(facts, alias?.registry ?? null))}
${registriesSection(texts, facts, outlines, alias?.registry ?? null)}
${mirrorSection(texts, facts)}
${user === null ? nothing : loginSection(texts, facts, false)}
${rootOf(page, texts)}
${symptomsSection(language, placesOf(facts))}`;
}

function refused(texts: Texts, page: PageFacts, { kind, message, next, status }: RegistryError): Html {
  const { facts, language } = page;
  const wantsLogin = status === 401;
  return html`<p class="lead">${texts.refusedLead}</p>
<p class="problem">${texts.refusals[kind] ?? html`<span lang="en">${message}; ${next}.</span>`}</p>
${wantsLogin ? html`${loginSection(texts, facts, true)}${rootOf(page, texts)}${symptomsSection(language, placesOf(facts))}` : nothing}`;
}

/** @param here whether the page itself is still to be logged in on */
function loginSection(texts: Texts, facts: ClientFacts, here: boolean): Html {
  const [alias] = facts.aliases;
  return html`<section aria-labelledby="login"><h2 id="login">${texts.loginHead}</h2>
<p>${texts.loginLead}</p>
${codeLine(`docker login ${authority(facts)}`, texts, texts.loginHead)}
${here || alias === undefined ? nothing : html`<p>${texts.loginAlias}</p>${codeLine(`docker login ${authority(facts, alias.host)}`, texts, texts.loginAlias)}`}
${here ? html`<p><a class="button" href="/login">${texts.loginPage}</a></p>` : nothing}
</section>`;
}

function rootOf({ facts, language }: PageFacts, texts: Texts): Html {
  const pem = facts.ca?.pem ?? null;
  if (pem === null) return nothing;
  return trustSection(language, texts, { pem, url: `${baseUrl(facts)}/ca.crt`, authority: authority(facts) });
}

function placesOf(facts: ClientFacts): { name: string; hostAndPort: string; url: string } {
  const { hostname } = new URL(baseUrl(facts));
  const port = facts.port ?? (facts.scheme === 'https' ? 443 : 80);
  return { name: authority(facts), hostAndPort: `${hostname}:${port}`, url: baseUrl(facts) };
}

/** Something that the table has, for those who have nothing to paste. */
function exampleFor({ registries }: ClientFacts, first: string | null): string | null {
  const known: Readonly<Record<string, string>> = {
    'docker.io': 'docker pull alpine:3.22',
    'quay.io': 'quay.io/prometheus/busybox:latest',
    'registry.k8s.io': 'registry.k8s.io/pause:3.10',
    'k8s.gcr.io': 'k8s.gcr.io/pause:3.9',
    'ghcr.io': 'ghcr.io/fluxcd/source-controller:v1.6.2',
    'mcr.microsoft.com': 'mcr.microsoft.com/dotnet/runtime:9.0',
  };
  const wanted =
    first !== null && registries.includes(first) ? first : Object.keys(known).find((host) => registries.includes(host));
  return wanted === undefined ? null : (known[wanted] ?? null);
}
