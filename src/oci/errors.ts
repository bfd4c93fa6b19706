import { REGISTRY_HEADERS } from './response-headers.ts';

/**
 * The one catalogue of errors that clients get (distribution-spec, *Error Codes*). `message` says what happened,
 * `next` what to do about it; `{name}` is filled from the error's facts. test/unit/oci/errors.test.ts holds it to that.
 */
export const CATALOGUE = {
  nameInvalid: entry(
    400,
    'NAME_INVALID',
    'the repository name {name} is not valid',
    'use lower-case letters, digits and . _ - / as in library/alpine',
  ),
  registryInvalid: entry(
    400,
    'NAME_INVALID',
    '{registry} is no name of a registry',
    'write it as image names start: quay.io, or registry.corp.example:5000',
  ),
  digestInvalid: entry(
    400,
    'DIGEST_INVALID',
    'the digest {digest} is not valid',
    'use sha256:<64 hex digits> or sha512:<128 hex digits>',
  ),
  digestUnsupported: entry(
    400,
    'DIGEST_INVALID',
    'this gateway cannot verify digests of the algorithm {algorithm}',
    'use sha256:<64 hex digits> or sha512:<128 hex digits>',
  ),
  requestInvalid: entry(
    400,
    'UNSUPPORTED',
    'HTTP forbids this request: {fault}',
    'look at the URL that the client is set up with, and at proxies on the way',
  ),
  unauthorized: entry(
    401,
    'UNAUTHORIZED',
    'this gateway wants credentials',
    'log in with a user that its operator made: docker login {host}',
  ),
  credentialsWrong: entry(
    401,
    'UNAUTHORIZED',
    'this gateway has no user with these credentials',
    'log in again: docker login {host}; its operator makes a new token: gateway user rotate <name>',
  ),
  tokenExpired: entry(
    401,
    'UNAUTHORIZED',
    'the token of {user} expired at {time}',
    'ask the operator of this gateway for a new one: gateway user rotate {user}',
  ),
  upstreamUnauthorized: entry(
    401,
    'UNAUTHORIZED',
    '{registry} wants credentials for {repository} that this gateway does not have',
    'check the name; if it is private, its operator sets credentials: gateway registry set {registry} --username …',
  ),
  privateContent: entry(
    403,
    'DENIED',
    "{registry}/{repository} was fetched with the operator's credentials and is served to logged-in clients only",
    'log in to the gateway, or ask its operator for: gateway registry set {registry} --public',
  ),
  registryUnknown: entry(
    403,
    'DENIED',
    "the registry {registry} is not in this gateway's table",
    'ask its operator to add it: gateway alias add <name> {registry}',
  ),
  clientDenied: entry(
    403,
    'DENIED',
    'clients from {address} may not use this gateway',
    'ask its operator to change access.allow or access.deny',
  ),
  upstreamDenied: entry(
    403,
    'DENIED',
    '{registry} does not give {repository} to this gateway',
    'check the name; if it is private, its operator sets credentials: gateway registry set {registry} --username …',
  ),
  imageRefused: entry(
    403,
    'DENIED',
    'this gateway does not let {image} through',
    'ask its operator, whose policy.images says what may pass; gateway config show has it',
  ),
  imageTooYoung: entry(
    403,
    'DENIED',
    '{image} is too young for this gateway: it may pass from {time} on',
    'wait, or ask its operator to except it: policy.cooldownImages',
  ),
  hostUnknown: entry(
    404,
    'NAME_UNKNOWN',
    'no alias has the host name {host}',
    'check the name; the operator lists them with: gateway alias ls',
  ),
  pathUnknown: entry(
    404,
    'NAME_UNKNOWN',
    'nothing is at {path}',
    'pull as <host>/<registry>/<name>, or as <alias host>/<name>',
  ),
  nameUnknown: entry(
    404,
    'NAME_UNKNOWN',
    '{registry} knows no repository {repository}',
    'check the spelling of the image name',
  ),
  manifestUnknown: entry(
    404,
    'MANIFEST_UNKNOWN',
    '{registry}/{repository} has no manifest {reference}',
    'check the tag or digest',
  ),
  blobUnknown: entry(
    404,
    'BLOB_UNKNOWN',
    '{registry}/{repository} has no blob {digest}',
    'pull the image anew: its manifest may have changed',
  ),
  methodNotAllowed: entry(
    405,
    'UNSUPPORTED',
    '{method} is not supported: this gateway only serves pulls',
    'push to the registry itself',
  ),
  requestTimeout: entry(
    408,
    'UNSUPPORTED',
    'the request did not come whole in time',
    'send it again on a new connection; if it stays, look at proxies on the way',
  ),
  rangeNotSatisfiable: entry(
    416,
    'RANGE_INVALID',
    'the range {range} lies outside the {size} bytes of the blob',
    'ask for a range within it',
  ),
  headerTooLarge: entry(
    431,
    'UNSUPPORTED',
    'the header of this request is larger than the 48 KiB that this gateway reads',
    'ask for fewer ranges at a time, and send shorter headers',
  ),
  tooManyRequests: entry(429, 'TOOMANYREQUESTS', '{what}', 'try again after the time in Retry-After'),
  upstreamRateLimited: entry(
    429,
    'TOOMANYREQUESTS',
    "{registry} limits this gateway's requests",
    'try again after the time in Retry-After; credentials raise the limit: gateway registry set {registry} --username …',
  ),
  upstreamBudgetSpent: entry(
    429,
    'TOOMANYREQUESTS',
    '{registry} limits pulls: {reason}',
    'try again after the time in Retry-After; credentials raise the limit: gateway registry set {registry} --username …',
  ),
  internal: entry(
    500,
    'UNKNOWN',
    'the gateway failed on this request',
    'try again; the operator finds request {requestId} in the log',
  ),
  upstreamFailed: entry(
    502,
    'UNAVAILABLE',
    '{registry} failed: {reason}',
    'try again; the operator sees more with: gateway registry show {registry}',
  ),
  upstreamWrong: entry(
    502,
    'UNAVAILABLE',
    '{registry} sent something other than what was asked for: {reason}',
    'try again; if it stays, tell the operator of that registry',
  ),
  credentialsWithheld: entry(
    502,
    'UNAVAILABLE',
    '{registry} wants its credentials sent to {realm}, which is outside its own domain: none were sent',
    'its operator allows it, if that host is trusted: gateway registry set {registry} --realm {realm}',
  ),
  unavailable: entry(503, 'UNAVAILABLE', 'the gateway cannot serve this now: {reason}', 'try again shortly'),
  gatewayBusy: entry(503, 'UNAVAILABLE', 'the gateway is busy with {what}', 'try again in {seconds} s'),
  upstreamTimeout: entry(
    504,
    'UNAVAILABLE',
    '{registry} did not answer in time: {reason}',
    'try again; the operator checks the link with: gateway doctor',
  ),
  loop: entry(
    508,
    'UNAVAILABLE',
    'this request has come back to the gateway that sent it',
    'its operator gives that registry another endpoint: gateway registry set HOST --endpoint URL',
  ),
  upstreamLoop: entry(
    508,
    'UNAVAILABLE',
    '{registry} leads back to this gateway',
    'its operator gives it another endpoint: gateway registry set {registry} --endpoint URL',
  ),
  ownName: entry(
    508,
    'UNAVAILABLE',
    '{host} is this gateway itself, and no registry',
    'leave it out: pull as <host>/<registry>/<name>, or as <alias host>/<name>',
  ),
} as const satisfies Record<string, CatalogueEntry>;

export interface CatalogueEntry {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

export type ErrorName = keyof typeof CATALOGUE;

function entry(status: number, code: string, message: string, next: string): CatalogueEntry {
  return { status, code, message, next };
}

/** What a registry says itself of a refusal: cleaned, bounded, and no secret. */
export interface QuotedReason {
  /** Who says it, in words. */
  readonly by: string;
  readonly message: string;
  /** Its own error code; empty where it gives none. */
  readonly code: string;
}

export interface RegistryErrorOptions {
  /** Fills the `{name}`s of message and next. */
  readonly facts?: Readonly<Record<string, string | number>>;
  /** What to do, where more is known of the case at hand than the catalogue has. */
  readonly next?: string;
  /** The whole of a failure for the log, where clients must not be told all of it; never a secret. */
  readonly operatorReason?: string;
  /** As whom the client counts that was refused; for the operator alone. */
  readonly client?: string;
  /** Goes into `detail` of the body, beside the facts; never a secret. */
  readonly detail?: Readonly<Record<string, unknown>>;
  /** The registry's own reason, quoted behind this gateway's. */
  readonly says?: QuotedReason;
  /** Seconds, sent as `Retry-After`; a 503 has one in any case. */
  readonly retryAfter?: number;
  /** More response headers, lower-case (`www-authenticate`, `content-range`, `allow`). */
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
  /**
   * A denial that counts: every endpoint that was asked answered a GET with 401 or 403, or its realm refused a token for it. What a HEAD, a
   * redirect's target or only some of the endpoints answered is none.
   */
  readonly denied?: boolean;
}

/** A failure whose reason the client gets to see; every other error becomes `internal`. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError';
  readonly kind: ErrorName;
  readonly next: string;
  readonly options: RegistryErrorOptions;

  constructor(kind: ErrorName, options: RegistryErrorOptions = {}) {
    const { message, next } = CATALOGUE[kind];
    super(fill(message, options.facts), options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.next = options.next ?? fill(next, options.facts);
    this.options = options;
  }

  /** The same error with more response headers, lower-case. */
  withHeaders(headers: Readonly<Record<string, string>>): RegistryError {
    const error = new RegistryError(this.kind, { ...this.options, headers: { ...this.options.headers, ...headers } });
    return Object.assign(error, { stack: this.stack });
  }

  /** What happened, for the log. */
  get logged(): string {
    return this.options.operatorReason ?? this.message;
  }

  get status(): number {
    return CATALOGUE[this.kind].status;
  }

  get code(): string {
    return CATALOGUE[this.kind].code;
  }
}

/**
 * When a client that was refused with 503 is to come back, seconds: within this time every holder of a permit has had its turn, pulls have given
 * descriptors back, and a gateway or one of its processes has started again.
 */
const SHORTLY_S = 5;

/** @param what what the gateway is busy with, in words */
export function busyError(what: string): RegistryError {
  return new RegistryError('gatewayBusy', { facts: { what, seconds: SHORTLY_S }, retryAfter: SHORTLY_S });
}

function fill(template: string, facts: RegistryErrorOptions['facts'] = {}): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => String(facts[name] ?? whole));
}

/** For programs: the facts that the message names, and the registry's own code for it. */
function detailOf({ kind, options }: RegistryError): Record<string, unknown> {
  const { facts = {}, detail, says } = options;
  const named = [...CATALOGUE[kind].message.matchAll(/\{(\w+)\}/g)].flatMap(([, name = '']) =>
    facts[name] === undefined ? [] : [[name, facts[name]] as const],
  );
  const upstream = says === undefined || says.code === '' ? {} : { upstream: says.code };
  return { ...Object.fromEntries(named), ...detail, ...upstream };
}

/** Status, headers and body of an error, as the specification writes them. */
export function renderError(error: RegistryError): { status: number; headers: Record<string, string>; body: string } {
  const { headers, says, retryAfter = error.status === 503 ? SHORTLY_S : undefined } = error.options;
  const quoted = says === undefined ? '' : `; ${says.by} says: "${says.message}"`;
  const row: Record<string, unknown> = { code: error.code, message: `${error.message}; ${error.next}${quoted}` };
  const detail = detailOf(error);
  if (Object.keys(detail).length > 0) row.detail = detail;
  return {
    status: error.status,
    headers: {
      'content-type': 'application/json',
      ...REGISTRY_HEADERS,
      ...(retryAfter === undefined ? {} : { 'retry-after': String(Math.max(1, Math.ceil(retryAfter))) }),
      ...headers,
    },
    body: JSON.stringify({ errors: [row] }),
  };
}
