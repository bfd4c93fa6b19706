import { domainToASCII, domainToUnicode } from 'node:url';

/** A host name in its one stored form, or, in words that follow `"x" …`, why it is none. */
export type HostNameResult = { readonly host: string } | { readonly problem: string };

/** RFC 1035 §2.3.4: octets of a whole name, without the final dot, and of a label. */
const MAX_NAME = 253;
const MAX_LABEL = 63;

/**
 * Normalises a DNS host name (RFC 1123 §2.1): lower case, IDN to punycode (UTS #46), no final dot. IP addresses are refused.
 * Characters are checked before the conversion, which would otherwise decode `%41` and read `1.2.3` as an address.
 */
export function normaliseHostName(text: string): HostNameResult {
  if (text === '') return { problem: 'is empty' };
  if (text.includes('://')) return { problem: 'is a URL; write the host name alone' };
  const odd = /[^a-z0-9.\-\u0080-\u{10ffff}]/iu.exec(text)?.[0];
  if (odd !== undefined) return { problem: `contains ${nameOf(odd)}, which no host name may have` };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the range is what ASCII is
  const ascii = /^[\x00-\x7f]*$/.test(text) ? text.toLowerCase() : domainToASCII(text);
  if (ascii === '') return { problem: 'has characters that cannot be written as a host name' };
  const host = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  if (host.length > MAX_NAME)
    return { problem: `is ${host.length} characters long; a host name has at most ${MAX_NAME}` };
  const labels = host.split('.');
  for (const label of labels) {
    const problem = labelProblem(label);
    if (problem !== null) return { problem };
  }
  // The URL standard's rule, which every HTTP client follows: a last part that is a number makes it an IPv4 address.
  if (labels.length > 1 && /^(?:\d+|0x[\da-f]*)$/.test(labels.at(-1) ?? ''))
    return { problem: 'reads as an IP address' };
  // One by one: older versions of Node answer nothing at all for a name with one such part.
  const undecodable = labels.find((label) => label.startsWith('xn--') && !isPunycode(label));
  if (undecodable !== undefined)
    return { problem: `has a part that starts with xn-- and is no valid punycode ("${undecodable}")` };
  return { host };
}

function isPunycode(label: string): boolean {
  const decoded = domainToUnicode(label);
  return decoded !== '' && decoded !== label;
}

function labelProblem(label: string): string | null {
  if (label === '') return 'has an empty part between dots';
  if (label.length > MAX_LABEL) return `has a part of ${label.length} characters; each part has at most ${MAX_LABEL}`;
  if (label.startsWith('-')) return `has a part that starts with a hyphen ("${label}")`;
  if (label.endsWith('-')) return `has a part that ends with a hyphen ("${label}")`;
  return null;
}

function nameOf(character: string): string {
  const known: Record<string, string> = {
    _: 'an underscore',
    ' ': 'a space',
    ':': 'a colon',
    '/': 'a slash',
    '*': 'a star',
    '@': 'an @',
    '%': 'a percent sign',
    '[': 'a bracket',
  };
  return known[character] ?? JSON.stringify(character);
}
