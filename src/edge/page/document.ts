import { createHash } from 'node:crypto';
import { html, raw } from 'hono/html';
import { LANGUAGE_TAGS, type Language } from '../../kit/language.ts';
import type { SmallAnswer } from '../response-writer.ts';
import { SCRIPT, STYLE } from './style.ts';
import type { Html } from './texts.ts';

const hashOf = (text: string) => createHash('sha256').update(text).digest('base64');

/** Names the script's content, so that browsers keep it for good and get a new one after an update. */
const SCRIPT_VERSION = hashOf(SCRIPT).replace(/\W/g, '').slice(0, 12);
export const SCRIPT_PATH = '/page.js';

/** A layer on a layer, in the page itself: browsers ask for an icon in any case. */
const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%230a5cb0' d='M8 1 1 5l7 4 7-4zM1 8l7 4 7-4v3l-7 4-7-4z'/%3E%3C/svg%3E";

/** Nothing but the page's own style, by its hash, its own script, its icon and its own form. */
const POLICY = `default-src 'none'; style-src 'sha256-${hashOf(STYLE)}'; script-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'`;

const SAFETY = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

export function scriptAnswer(): SmallAnswer {
  return {
    status: 200,
    headers: {
      ...SAFETY,
      'content-type': 'text/javascript; charset=utf-8',
      'cache-control': 'public, max-age=31536000, immutable',
    },
    body: SCRIPT,
  };
}

/**
 * A whole page, or 304 where the browser has it already. It depends on who asks, on their language, and on how the registries are now: it is kept by the
 * one browser alone, which asks each time whether it still holds.
 */
export async function documentAnswer(
  { language, title, body }: { readonly language: Language; readonly title: string; readonly body: Html },
  known: string | undefined,
): Promise<SmallAnswer> {
  const text = String(
    await html`<!doctype html>
<html lang="${LANGUAGE_TAGS[language]}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<link rel="icon" href="${ICON}">
<style>${raw(STYLE)}</style>
<script src="${`${SCRIPT_PATH}?${SCRIPT_VERSION}`}" defer></script>
</head>
<body>
${body}
</body>
</html>
`,
  );
  const etag = `"${hashOf(text).slice(0, 32)}"`;
  const headers = {
    ...SAFETY,
    'content-type': 'text/html; charset=utf-8',
    'content-language': LANGUAGE_TAGS[language],
    'cache-control': 'private, no-cache',
    vary: 'Accept-Language, Authorization',
    etag,
  };
  // RFC 9110 §13.1.2: compared weakly, as proxies that compress make of it.
  const same = known?.split(',').some((one) => one.trim().replace(/^W\//, '') === etag) === true;
  return same ? { status: 304, headers, body: '' } : { status: 200, headers, body: text };
}
