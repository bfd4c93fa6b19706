import { type OwnProblem, shortType } from './issuer.ts';

/** What our own problems mean and what to do about them. */
const OWN: Readonly<Record<OwnProblem, string>> = {
  badAnswer: "the CA's server misbehaves, or acme.issuers[].directory is no ACME directory: check that URL",
  challengeUnavailable: 'allow another kind in acme.challenges, or use another CA',
  internal: 'this is a fault of the gateway: the log has more',
  network:
    'the CA cannot be reached: check the way out to the internet (proxy variables included), its status page, and acme.issuers[].caFile for a private CA',
  selfCheck:
    'the name does not lead to this gateway: correct the record named, or turn acme.selfCheck off where this machine cannot reach itself by its public address',
  timeout: 'the CA took too long: check the way out, and its status page',
  waiting: 'nothing to do: it goes on by itself when its turn comes',
};

/** The same of a CA's (RFC 8555 §6.7, RFC 9773 §7.4, draft-ietf-acme-profiles). */
const OF_CAS: Readonly<Record<string, string>> = {
  accountDoesNotExist: 'the CA has lost our account; it is registered again by itself',
  alreadyReplaced: 'another order has replaced the old certificate already; the next attempt orders without that claim',
  badCSR: 'the CA does not accept this name or key; its detail says why',
  badNonce: 'the CA kept refusing fresh nonces; a proxy in between may be caching its answers',
  badPublicKey: 'the CA accepts no P-256 keys; use another CA',
  caa: 'a CAA record of the domain forbids this CA: add one that allows it, or remove them',
  compound: 'several things are wrong; the detail names each',
  connection:
    'the CA could not connect to this gateway: open ports 80 and 443 to the internet, and check where the A and AAAA records point',
  dns: 'the CA found no usable address: create an A or AAAA record for the host that points to this gateway, and check DNSSEC',
  externalAccountRequired: "this CA wants credentials: set acme.issuers[].eab from the CA's console",
  incorrectResponse:
    'something other than this gateway answered the CA: check where the A and AAAA records point (both), and what else listens on port 80',
  invalidContact: 'the CA does not accept acme.email',
  invalidProfile: 'set acme.issuers[].profile to one that this CA offers, or remove it',
  orderNotReady: 'the CA was not ready for the next step; it is tried again',
  rateLimited:
    'a limit of the CA is reached: nothing to do but wait; another CA in acme.issuers[] would be asked meanwhile',
  rejectedIdentifier: 'the CA does not issue for this name: check its spelling, and that the domain is public',
  serverInternal: 'the CA has a fault of its own: it is tried again',
  tls: 'the CA met something other than this gateway on port 443: check where the A and AAAA records point, and that no proxy terminates TLS in between',
  unauthorized:
    'the CA met something other than this gateway, or rejects the account: check where the A and AAAA records point, and that no proxy or CDN answers in between',
  userActionRequired: 'the CA wants its new terms accepted: see its detail',
};

const ALL: ReadonlyMap<string, string> = new Map(Object.entries({ ...OWN, ...OF_CAS }));

const UNKNOWN = "the CA's own words are all that is known";

export function adviceFor(type: string): string {
  return ALL.get(shortType(type)) ?? UNKNOWN;
}
