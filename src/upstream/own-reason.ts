import { redactUrl } from '../kit/http.ts';
import { isObject } from '../kit/json.ts';
import { printable } from '../kit/text.ts';

/** What a registry or a token endpoint itself says of a refusal, word by word: a stranger's text, to be quoted by {@link quotable} only. */
export interface OwnReason {
  /** `NAME_UNKNOWN`; undefined where it gives none. */
  readonly code: string | undefined;
  readonly message: string | undefined;
}

export const NO_REASON: OwnReason = { code: undefined, message: undefined };

/** One answer has one error, now and then two; what follows repeats them. */
const MAX_ERRORS = 3;

/** distribution-spec, *Error Codes*: upper-case letters, digits and underscores. */
const CODE = /^[A-Z0-9_]{1,64}$/;

/**
 * Reads the body of a refusal: `errors` of the distribution-spec (*Error Codes*); `error` and `error_description` of OAuth 2.0 (RFC 6749 §5.2);
 * `details`, `detail` or `message` alone, as token endpoints (auth.docker.io) and proxies write them.
 */
export function readOwnReason(body: Readonly<Record<string, unknown>>): OwnReason {
  const rows = (Array.isArray(body.errors) ? body.errors : [body.error, body]).filter(isObject).slice(0, MAX_ERRORS);
  const messages = [
    ...new Set(
      rows.flatMap(({ message, error_description, details, detail, error }) => {
        return [message, error_description, details, detail, error].find(isText) ?? [];
      }),
    ),
  ];
  return {
    code: rows.map(({ code }) => code).find((code) => isText(code) && CODE.test(code)) as string | undefined,
    message: messages.length === 0 ? undefined : messages.join('; '),
  };
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== '';
}

/** Characters of a registry's own words that are passed on: real ones are a sentence or two. */
const MAX_QUOTED = 300;
/** Shorter ones may be a part of any word. */
const MIN_HIDDEN = 4;
/** A JSON web token, or what follows the name of an authorisation scheme. */
const CREDENTIAL = /\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=\b(?:bearer|basic) )[\w+/=.~-]{16,}/gi;

/** A stranger's words as they may be repeated to anybody: on one line, bounded, without credentials or what is to be hidden; empty where there are none. */
export function quotable(text: string | undefined, hidden: readonly string[] = []): string {
  let words = printable(text ?? '', 4 * MAX_QUOTED);
  for (const secret of hidden) if (secret.length >= MIN_HIDDEN) words = words.replaceAll(secret, '***');
  words = words
    .replace(CREDENTIAL, '***')
    .replace(/https?:\/\/[^\s"'<>]+/gi, redactUrl)
    .replaceAll('"', "'");
  return printable(words, MAX_QUOTED);
}
