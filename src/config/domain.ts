import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { normaliseHostName } from '../kit/host-name.ts';
import { BadValue } from './values.ts';

/** Names under these never lead to a public host (RFC 2606, RFC 6761, RFC 6762, RFC 8375, ICANN on .internal). */
const PRIVATE_SUFFIXES = ['localhost', 'test', 'internal', 'local', 'home.arpa'];

/** The gateway's domain in its stored form; an IP address is allowed and written without brackets. */
export function parseDomain(raw: unknown): string {
  if (typeof raw !== 'string') throw new BadValue('is not text; write a host name such as cr.example.com');
  const bare = raw.startsWith('[') && raw.endsWith(']') ? raw.slice(1, -1) : raw;
  if (isIP(bare) !== 0) return ipaddr.parse(bare).toString();
  if (/^[^:/]+:\d+$/.test(raw))
    throw new BadValue(`"${raw}" has a port; ports are set with listen.https and listen.http`);
  const result = normaliseHostName(raw);
  if ('problem' in result) throw new BadValue(`"${raw}" ${result.problem}`);
  if (new URL(`http://${result.host}`).hostname !== result.host) throw new BadValue(`"${raw}" reads as an IP address`);
  return result.host;
}

/** Whether a public CA could know it: not localhost, no IP address, no name of a private zone. */
export function isPublicDomain(domain: string): boolean {
  if (isIP(domain) !== 0) return false;
  return !PRIVATE_SUFFIXES.some((suffix) => domain === suffix || domain.endsWith(`.${suffix}`));
}
