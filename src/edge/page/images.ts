import { html } from 'hono/html';
import type { ClientFacts } from '../../clients/facts.ts';
import { pastedReferences } from '../../clients/pasted.ts';
import { type Rewriting, rewriteReference } from '../../clients/rewrite.ts';
import { codeLine, type Html, nothing, type Texts } from './texts.ts';

/**
 * Characters of what was pasted that are read: a Dockerfile's or a manifest's worth, and well within what a URL may have. Browsers cut off what is
 * longer without a word, so that one more is let through: it tells that there was more.
 */
const MAX_INPUT = 4_000;
/** Lines of it that are seen at once. */
const MAX_ROWS = 10;
/** Images of one paste that are shown. */
const MAX_IMAGES = 8;

/**
 * What a line to be copied may have. A link to this page may hold any text, and a tag with `$(…)` in it would be a command in the shell of whoever
 * copies it.
 */
const HARMLESS = /^[A-Za-z0-9][A-Za-z0-9._:/@+[\]-]*$/;

/** The form, filled with what was asked, and its answer. */
export function imagesSection(
  texts: Texts,
  facts: ClientFacts,
  asked: string | undefined,
  example: string | null,
): Html {
  const input = (asked ?? '').slice(0, MAX_INPUT);
  const rows = Math.min(MAX_ROWS, Math.max(2, input.split('\n').length));
  return html`<section aria-labelledby="ask"><h2 id="ask">${texts.askHead}</h2>
<form action="/" method="get">
<label for="image">${texts.askLabel}</label>
<textarea id="image" name="image" rows="${String(rows)}" maxlength="${String(MAX_INPUT + 1)}" spellcheck="false" autocapitalize="off" autocomplete="off" required>${input}</textarea>
<button type="submit">${texts.askButton}</button>
</form>
${input.trim() === '' ? exampleOf(texts, example) : answer(texts, facts, input, (asked ?? '').length > MAX_INPUT)}
</section>`;
}

/** What somebody who has nothing to paste yet can try. */
function exampleOf(texts: Texts, example: string | null): Html {
  if (example === null) return nothing;
  return html`<p class="note">${texts.example} <a href="${`/?image=${encodeURIComponent(example)}`}"><code>${example}</code></a></p>`;
}

function answer(texts: Texts, facts: ClientFacts, input: string, cut: boolean): Html {
  const { references, push } = pastedReferences(input, facts);
  const shown = references.slice(0, MAX_IMAGES);
  return html`<div>
${cut ? problem(texts.tooLong) : nothing}
${push === null ? nothing : problem(texts.push(short(push)))}
${references.length === 0 && push === null ? problem(texts.nothingFound) : nothing}
${shown.map((reference) => one(texts, rewriteReference(reference, facts)))}
${references.length > MAX_IMAGES ? html`<p class="note">${texts.tooMany}</p>` : nothing}
</div>`;
}

function one(texts: Texts, rewriting: Rewriting): Html {
  if (rewriting.kind === 'kept') return explained(texts, rewriting);
  const [, transport = '', name = ''] = /^([a-z-]+:\/\/)?(.*)$/s.exec(rewriting.to) ?? [];
  if (!HARMLESS.test(name)) return problem(texts.variable(short(rewriting.from)));
  return html`<article class="answer"><h3><code>${rewriting.from}</code></h3>
<dl>${linesFor(name, transport === 'oci://').map(
    ({ client, line }) => html`<dt>${client}</dt><dd>${codeLine(line, texts, client)}</dd>`,
  )}</dl>
<p class="note"><a href="#mirror">${texts.unchanged}</a></p>
</article>`;
}

/** What each client takes, by the one name that the image has through this gateway. */
function linesFor(name: string, isChart: boolean): { client: string; line: string }[] {
  const digest = name.indexOf('@');
  const tagged = digest < 0 ? name : name.slice(0, digest);
  const colon = tagged.lastIndexOf(':');
  const hasTag = colon > tagged.lastIndexOf('/');
  const [repository, tag] = hasTag ? [tagged.slice(0, colon), tagged.slice(colon + 1)] : [tagged, null];
  // ctr takes whole names alone; a chart's version is its tag, in which + is written _.
  const whole = hasTag || digest >= 0 ? name : `${name}:latest`;
  const version = tag === null ? '' : ` --version ${tag.replaceAll('_', '+')}`;
  const helm = { client: 'Helm', line: `helm pull oci://${repository}${version}` };
  if (isChart) return [helm, { client: 'oras', line: `oras pull ${name}` }];
  return [
    { client: 'Docker', line: `docker pull ${name}` },
    { client: 'Kubernetes · Compose', line: `image: ${name}` },
    { client: 'Dockerfile · BuildKit', line: `FROM ${name}` },
    { client: 'containerd: nerdctl', line: `nerdctl pull ${name}` },
    { client: 'containerd: ctr', line: `ctr images pull ${whole}` },
    { client: 'containerd · CRI-O: crictl', line: `crictl pull ${name}` },
    { client: 'Podman · Buildah', line: `podman pull ${name}` },
    { client: 'k3s', line: `k3s crictl pull ${name}` },
    helm,
  ];
}

/** Why a reference has no lines, and what to do about it. */
function explained(texts: Texts, kept: Rewriting & { kind: 'kept' }): Html {
  const name = short(kept.from);
  const registry = short(kept.registry ?? kept.from);
  switch (kept.why) {
    case 'unknown-registry':
      return problem(
        html`${texts.unknownRegistry(registry)}${operatorLine(texts, `gateway alias add NAME ${registry}`)}${nearest(texts, kept)}`,
      );
    case 'needs-alias':
      return problem(html`${texts.needsAlias(registry)}${operatorLine(texts, `gateway alias add NAME ${registry}`)}`);
    case 'own':
      return html`${problem(texts.own(name))}${HARMLESS.test(kept.from) ? ownLines(texts, kept.from) : nothing}`;
    case 'variable':
      return problem(texts.variable(name));
    case 'scratch':
      return problem(texts.scratch(name));
    case 'image-id':
      return problem(texts.imageId(name));
    case 'malformed':
      return problem(texts.malformed(name));
  }
}

/** A name through the gateway needs no rewriting, and is still wanted as a line. */
function ownLines(texts: Texts, name: string): Html {
  return html`<div class="answer">${codeLine(`docker pull ${name}`, texts, 'Docker')}</div>`;
}

function operatorLine(texts: Texts, line: string): Html {
  return HARMLESS.test(line.split(' ').at(-1) ?? '') ? codeLine(line, texts, 'gateway alias add') : nothing;
}

function nearest(texts: Texts, { from, registry, near }: Rewriting & { kind: 'kept' }): Html {
  if (near === undefined || registry === undefined) return nothing;
  const meant = from.replace(registry, near);
  return html`<p>${texts.didYouMean} <a href="${`/?image=${encodeURIComponent(meant)}`}"><code>${short(meant)}</code></a>?</p>`;
}

function problem(what: Html | string): Html {
  return html`<div class="problem">${what}</div>`;
}

/** Longest text that an explanation repeats. */
const SHOWN = 120;

function short(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
