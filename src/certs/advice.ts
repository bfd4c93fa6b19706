import { type OwnProblem, shortType } from './issuer.ts';
import type { Finding, HostRecord } from './store.ts';

// What an operator can do about a problem: first what this gateway saw itself, then what the CA's problem type means.

/** What to do about our own problems. */
const OWN_REMEDIES: Readonly<Record<OwnProblem, string>> = {
  badAnswer: "the CA's server misbehaves, or acme.issuers[].directory is no ACME directory: check that URL",
  challengeUnavailable: 'allow another kind in acme.challenges, or use another CA',
  dnsZone:
    'check the CNAME of the _acme-challenge name if it has one, and that the DNS servers asked (acme.resolvers, else those of this machine) know the zone',
  dnsProvider:
    'check what acme.dns says: the credentials, and whether they may change TXT records of this zone; gateway doctor tries them',
  dnsPropagation:
    'bring the name server that lacks the record up to date (is it notified, may it transfer the zone?), or raise acme.dns.propagationTimeout',
  internal: 'this is a fault of the gateway: the log has more',
  network:
    'the CA cannot be reached: check the way out to the internet (proxy variables included), its status page, and acme.issuers[].caFile for a private CA',
  selfCheck:
    'the name does not lead to this gateway: correct the record named, or turn acme.selfCheck off where this machine cannot reach itself by its public address',
  timeout: 'the CA took too long: check the way out, and its status page',
  waiting: 'nothing to do: it goes on by itself when its turn comes',
};

/** What to do about a CA's (RFC 8555 §6.7, RFC 9773 §7.4, draft-ietf-acme-profiles), where nothing else is known. */
const CA_REMEDIES: Readonly<Record<string, string>> = {
  accountDoesNotExist: 'the CA has lost our account; it is registered again by itself',
  alreadyReplaced: 'another order has replaced the old certificate already; the next attempt orders without that claim',
  badCSR: 'the CA does not accept this name or key; its detail says why',
  badNonce: 'the CA kept refusing fresh nonces; a proxy in between may be caching its answers',
  badPublicKey: 'the CA accepts no P-256 keys; use another CA',
  badSignatureAlgorithm: 'the CA accepts no ES256 signatures of accounts; use another CA',
  caa: 'a CAA record of the domain forbids this CA: add one that allows it, or remove them',
  compound: 'several things are wrong; the detail names each',
  connection:
    'the CA could not connect to this gateway: open ports 80 and 443 to the internet, and check where the A and AAAA records point',
  dns: 'the CA found no usable address: create an A or AAAA record for the host that points to this gateway, and check DNSSEC',
  externalAccountRequired: "this CA wants credentials: set acme.issuers[].eab from the CA's console",
  incorrectResponse:
    'something other than this gateway answered the CA: check where the A and AAAA records point (both), and what else listens on port 80',
  invalidContact: 'the CA does not accept acme.email: write an address that exists, or leave it out',
  invalidProfile: 'set acme.issuers[].profile to one that this CA offers, or remove it',
  malformed:
    'the CA could not read the request: where the order is gone at the CA it is made anew by itself; else a proxy in between changes requests, or acme.issuers[].directory is of another protocol',
  orderNotReady: 'the CA was not ready for the next step; it is tried again',
  rateLimited:
    'a limit of the CA is reached: nothing to do but wait; another CA in acme.issuers[] would be asked meanwhile',
  rejectedIdentifier:
    'the CA does not issue for this name: check its spelling, and that it is public; some names are barred by policy, for which another CA in acme.issuers[] may issue',
  serverInternal: 'the CA has a fault of its own: it is tried again; its status page may say more',
  tls: 'the CA met something other than this gateway on port 443: check where the A and AAAA records point, and that no proxy terminates TLS in between',
  unauthorized:
    'the CA met something other than this gateway, or rejects the account: check where the A and AAAA records point, and that no proxy or CDN answers in between',
  unsupportedContact: 'the CA writes to no such address: set acme.email to a plain one, or leave it out',
  unsupportedIdentifier:
    'the CA certifies no such identifier: for an IP address use a CA that does (Let\'s Encrypt in its profile "shortlived"), or a domain',
  userActionRequired: 'the CA wants its new terms accepted: see its detail',
};

const REMEDIES: ReadonlyMap<string, string> = new Map(Object.entries({ ...OWN_REMEDIES, ...CA_REMEDIES }));

const UNKNOWN = "the CA's own words are all that is known";

/** What a problem type alone says that an operator can do, a CA's or ours. */
export function remediation(type: string): string {
  return REMEDIES.get(shortType(type)) ?? UNKNOWN;
}

/** Problems of the way to this gateway, where what the gateway saw of it says more than the type, and what to think where it saw nothing wrong. */
const OF_THE_WAY: Readonly<Record<string, string>> = {
  connection:
    'something in front of it lets this machine in and the CA not (a firewall, a security group, port forwarding without hairpin): open ports 80 and 443 to the whole internet, by IPv4 and IPv6',
  dns: "the CA's resolvers see another zone than this machine's: wait until a change has spread, and check the zone's own servers and DNSSEC",
  incorrectResponse:
    'the CA met something else there: a proxy or CDN in front, or DNS that answers by place; CAs look from several countries',
  tls: 'the CA met something else on port 443 there: no proxy may terminate TLS in between',
  unauthorized:
    'the CA met something else there: a proxy or CDN in front, or DNS that answers by place; CAs look from several countries',
};

/** A CA's problem and what was found before it was asked. */
type Problem = Pick<NonNullable<HostRecord['lastError']>, 'type' | 'detail'> & { readonly found?: Finding | null };

/** What can be done about a host's problem, the surest first; never empty. */
export function adviceOn({ type, detail, found = null }: Problem, host: string): [string, ...string[]] {
  const short = shortType(type);
  const ofTheWay = OF_THE_WAY[short];
  const special = specialCase(short, detail, host);
  if (special !== null) return [special];
  if (found === null || (found.leadsHere && ofTheWay === undefined)) return [remediation(type)];
  if (found.leadsHere) return [`this gateway found that the name leads here (${found.what}): ${ofTheWay}`];
  const seen = `this gateway found: ${found.what}: ${found.next}`;
  return ofTheWay !== undefined || short === 'selfCheck' ? [seen] : [seen, remediation(type)];
}

/** What a detail tells that its type does not; null where it is nothing. */
function specialCase(type: string, detail: string, host: string): string | null {
  if (type === 'rateLimited' || type === 'unauthorized') {
    const link = unpauseLink(detail);
    if (link !== null)
      return `the CA has paused this name after many failures, and waits for a person: mend what failed, open ${link}, then: gateway cert renew ${host}`;
  }
  if (type === 'unauthorized' && /account.*deactivated/i.test(detail))
    return 'our account at the CA was deactivated, and so was the one that this gateway made in its place within a day: somebody with access to the data directory or a backup may be doing that, or the CA wants no account of ours; what is in use is served until it runs out; another CA in acme.issuers[] is asked meanwhile';
  if (type === 'unauthorized' && /account.*(revoked|not valid|not active)/i.test(detail))
    return 'the CA has closed our account, and this gateway does not go round that with a new one: ask the CA why, or name another CA in acme.issuers[]; what is in use is served until it runs out';
  if (type === 'network' && /expired|not yet valid/i.test(detail))
    return "the CA's certificate looks out of date from here: set this machine's clock by NTP; where that is right, the CA (or a proxy that opens TLS) has let its own run out";
  return null;
}

/** The page on which a person lets a paused name go on: any link of a CA's detail that is not to its documentation. */
function unpauseLink(detail: string): string | null {
  if (!/paus|temporarily prevented/i.test(detail)) return null;
  const links = detail.match(/https:\/\/[^\s"'<>]+[^\s"'<>.,;)]/g) ?? [];
  return links.find((link) => !/\/docs\//.test(link)) ?? null;
}
