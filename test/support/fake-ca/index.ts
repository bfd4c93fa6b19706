import {
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  type X509Certificate,
} from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CertificationRequest } from '@peculiar/asn1-csr';
import { AsnConvert } from '@peculiar/asn1-schema';
import { certificateId } from '../../../src/acme/directory.ts';
import { signCertificate } from '../../../src/certs/x509.ts';
import { readBounded } from '../../../src/kit/http.ts';
import { readJws, thumbprint } from './jws.ts';
import { validate } from './validate.ts';

export type Resource =
  | 'directory'
  | 'newNonce'
  | 'newAccount'
  | 'account'
  | 'newOrder'
  | 'order'
  | 'authorization'
  | 'challenge'
  | 'finalize'
  | 'certificate'
  | 'renewalInfo';

/** How the CA misbehaves at one resource. */
export interface Fault {
  readonly at: Resource;
  /** For this many requests; for ever without it. */
  times?: number;
  /** Only for orders of this host (`newOrder`). */
  readonly host?: string;
  readonly how:
    | 'hang'
    | 'drop'
    /** It answers as it should, but not before that. */
    | { readonly until: Promise<void> }
    | { readonly status: number; readonly type?: string; readonly detail?: string; readonly retryAfter?: string };
}

export interface FakeCaOptions {
  readonly ports: { readonly http: number; readonly tls: number };
  /** ms */
  lifetime?: number;
  /** The CA's clock. */
  now?: () => number;
  /** Speaks ARI: the window of a certificate; undefined: it does not. */
  window?: (certificate: X509Certificate) => { start: number; end: number };
  renewalRetryAfter?: string;
  readonly profiles?: readonly string[];
  readonly eab?: boolean;
  readonly challenges?: readonly string[];
  /** Shifts the Date header, ms. */
  readonly dateOffset?: number;
  /** Waits for this before it looks at a challenge. */
  beforeLook?: () => Promise<void>;
  /** The order turns valid only after this many polls. */
  readonly slowPolls?: number;
}

interface Order {
  readonly id: number;
  readonly account: string;
  readonly host: string;
  readonly type: string;
  status: 'pending' | 'ready' | 'processing' | 'valid' | 'invalid';
  authorization: 'pending' | 'valid' | 'invalid';
  readonly token: string;
  error: object | null;
  chain: string | null;
  polls: number;
}

/** What was ordered, for tests to look at. */
export interface PlacedOrder {
  /** ms since 1970. */
  readonly at: number;
  readonly host: string;
  /** Of its identifier: `dns` or `ip`. */
  readonly type: string;
  readonly replaces: string | undefined;
  readonly profile: string | undefined;
}

const URN = 'urn:ietf:params:acme:error:';

/** An ACME CA that validates for real, speaks ARI, and fails when told to. */
export class FakeCa {
  readonly options: FakeCaOptions;
  readonly faults: Fault[] = [];
  readonly orders: PlacedOrder[] = [];
  readonly requests: Resource[] = [];
  /** Certificates issued, newest last. */
  readonly issued: X509Certificate[] = [];
  registrations = 0;
  /** What accounts said of whom to write to, in order; empty for nobody. */
  readonly contacts: string[] = [];
  externalAccounts: unknown[] = [];
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  readonly #nonces = new Set<string>();
  readonly #accounts = new Map<string, JsonWebKey>();
  /** URLs of accounts, and what has become of them. */
  readonly #closed = new Map<string, 'deactivated' | 'revoked'>();
  readonly #orders: Order[] = [];
  readonly #replaced = new Set<string>();
  readonly #ca;
  #base = '';

  constructor(options: FakeCaOptions) {
    this.options = options;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const commonName = `Fake CA ${randomBytes(3).toString('hex')}`;
    const signer = { key: privateKey, publicKey, commonName };
    const now = this.#now();
    const root = signCertificate(
      { commonName, names: [], publicKey, notBefore: now - 1e10, notAfter: now + 1e12, ca: true },
      signer,
    );
    this.#ca = { signer, pem: root.toString() };
  }

  async start(port = 0, host = '127.0.0.1'): Promise<this> {
    this.#server.listen(port, host);
    await once(this.#server, 'listening');
    this.#base = `http://${host}:${this.port}`;
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get directory(): string {
    return `${this.#base}/directory`;
  }

  get root(): string {
    return this.#ca.pem;
  }

  /** A certificate without any order, as an operator would bring it. */
  issue(name: string): { readonly certificate: string; readonly key: string } {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const leaf = this.#sign(name, publicKey);
    return {
      certificate: `${leaf.toString()}${this.#ca.pem}`,
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    };
  }

  /** As after a disaster at the CA: it knows no account any more. */
  forgetAccounts(): void {
    this.#accounts.clear();
  }

  /** Every account that there is now is refused from now on: at its holder's wish, or by the CA's own decision (RFC 8555 §7.1.2). */
  closeAccounts(status: 'deactivated' | 'revoked'): void {
    for (const url of this.#accounts.keys()) this.#closed.set(url, status);
  }

  /** Someone else has replaced this certificate. */
  markReplaced(chain: string): void {
    this.#replaced.add(certificateId(chain) ?? '');
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const [resource, id] = this.#route(request.url ?? '');
      this.requests.push(resource);
      const body = (await readBounded(request, 1024 * 1024)).toString();
      const jws = request.method === 'POST' ? readJws(body) : null;
      const fault = this.#fault(resource, jws?.payload ?? null);
      if (fault?.how === 'hang') return;
      if (fault?.how === 'drop') {
        request.socket.destroy();
        return;
      }
      const late = typeof fault?.how === 'object' && 'until' in fault.how ? fault.how.until : null;
      await late;
      response.setHeader('replay-nonce', this.#nonce());
      if (this.options.dateOffset !== undefined) {
        response.setHeader('date', new Date(Date.now() + this.options.dateOffset).toUTCString());
      }
      if (fault !== undefined && !('until' in fault.how)) {
        const { status, type, detail, retryAfter } = fault.how;
        if (retryAfter !== undefined) response.setHeader('retry-after', retryAfter);
        if (type === undefined) response.writeHead(status).end('<html>');
        else this.#problem(response, status, type, detail ?? 'as the test wants it');
        return;
      }
      await this.#answer(resource, id, jws, response);
    } catch (error) {
      if (!response.headersSent) this.#problem(response, 500, 'serverInternal', String(error));
    }
  }

  #route(url: string): [Resource, string] {
    const [, resource = '', id = ''] = url.split('/');
    return [resource as Resource, id];
  }

  #fault(resource: Resource, payload: Record<string, unknown> | null) {
    const index = this.faults.findIndex((fault) => {
      if (fault.at !== resource) return false;
      return fault.host === undefined || hostOf(payload) === fault.host;
    });
    const fault = this.faults[index];
    if (fault?.times !== undefined && --fault.times <= 0) this.faults.splice(index, 1);
    return fault;
  }

  async #answer(resource: Resource, id: string, jws: ReturnType<typeof readJws> | null, response: ServerResponse) {
    if (resource === 'directory') return this.#json(response, 200, this.#describe());
    if (resource === 'newNonce') return void response.writeHead(200).end();
    if (resource === 'renewalInfo') return this.#renewal(id, response);
    if (jws === null) return this.#problem(response, 405, 'malformed', 'POST expected');
    if (!this.#nonces.delete(jws.header.nonce ?? '')) return this.#problem(response, 400, 'badNonce', 'unknown nonce');
    if (resource === 'newAccount') return this.#register(jws, response);
    const account = jws.header.kid ?? '';
    const key = this.#accounts.get(account);
    if (key === undefined) return this.#problem(response, 400, 'accountDoesNotExist', `unknown account ${account}`);
    if (!jws.signedBy(key)) return this.#problem(response, 403, 'unauthorized', 'the signature is wrong');
    const closed = this.#closed.get(account);
    if (closed !== undefined) {
      return this.#problem(response, 403, 'unauthorized', `Account is not valid, has status "${closed}"`);
    }
    if (resource === 'account') {
      this.#noteContact(jws.payload);
      return this.#json(response, 200, { status: 'valid' });
    }
    if (resource === 'newOrder') return this.#place(account, jws.payload ?? {}, response);
    const order = this.#orders[Number(id)];
    if (order === undefined || order.account !== account)
      return this.#problem(response, 404, 'malformed', 'no such order');
    if (resource === 'authorization') return this.#json(response, 200, this.#authorization(order));
    if (resource === 'challenge') return this.#validate(order, jws.header.url ?? '', key, response);
    if (resource === 'finalize') return this.#finalize(order, jws.payload ?? {}, response);
    if (resource === 'certificate') return void response.writeHead(200).end(order.chain);
    if (order.status === 'processing' && ++order.polls >= (this.options.slowPolls ?? 0)) order.status = 'valid';
    return this.#json(response, 200, this.#order(order));
  }

  #register(jws: ReturnType<typeof readJws>, response: ServerResponse) {
    const { jwk } = jws.header;
    if (jwk === undefined || !jws.signedBy(jwk)) return this.#problem(response, 403, 'unauthorized', 'wrong signature');
    if (this.options.eab === true && jws.payload?.externalAccountBinding === undefined) {
      return this.#problem(response, 403, 'externalAccountRequired', 'no external account');
    }
    this.#noteContact(jws.payload);
    this.externalAccounts.push(jws.payload?.externalAccountBinding);
    const url = `${this.#base}/account/${thumbprint(jwk)}`;
    const closed = this.#closed.get(url);
    if (closed !== undefined) return this.#problem(response, 403, 'unauthorized', `this account is ${closed}`);
    const known = this.#accounts.has(url);
    if (!known) this.registrations++;
    this.#accounts.set(url, jwk);
    response.setHeader('location', url);
    this.#json(response, known ? 200 : 201, { status: 'valid' });
  }

  #noteContact(payload: Record<string, unknown> | null | undefined): void {
    if (Array.isArray(payload?.contact)) this.contacts.push(payload.contact.join());
  }

  #place(account: string, payload: Record<string, unknown>, response: ServerResponse) {
    const { value: host, type } = identifierOf(payload);
    const replaces = payload.replaces as string | undefined;
    this.orders.push({ at: Date.now(), host, type, replaces, profile: payload.profile as string | undefined });
    if (replaces !== undefined && this.#replaced.has(replaces)) {
      return this.#problem(response, 409, 'alreadyReplaced', 'the certificate has been replaced already');
    }
    if (replaces !== undefined) this.#replaced.add(replaces);
    const order: Order = {
      id: this.#orders.length,
      account,
      host,
      type,
      status: 'pending',
      authorization: 'pending',
      token: randomBytes(16).toString('base64url'),
      error: null,
      chain: null,
      polls: 0,
    };
    this.#orders.push(order);
    response.setHeader('location', `${this.#base}/order/${order.id}`);
    this.#json(response, 201, this.#order(order));
  }

  async #validate(order: Order, url: string, key: JsonWebKey, response: ServerResponse): Promise<void> {
    const type = url.split('/').at(-1) ?? '';
    await this.options.beforeLook?.();
    if (order.authorization === 'pending') {
      const problem = await validate(
        type,
        order.host,
        order.token,
        `${order.token}.${thumbprint(key)}`,
        this.options.ports,
      );
      order.authorization = problem === null ? 'valid' : 'invalid';
      order.status = problem === null ? 'ready' : 'invalid';
      order.error = problem === null ? null : { type: URN + problem.type, detail: problem.detail, status: 403 };
    }
    this.#json(response, 200, this.#challenge(order, type));
  }

  #finalize(order: Order, payload: Record<string, unknown>, response: ServerResponse) {
    if (order.status !== 'ready') return this.#problem(response, 403, 'orderNotReady', `it is ${order.status}`);
    const csr = AsnConvert.parse(Buffer.from(String(payload.csr), 'base64url'), CertificationRequest);
    const spki = AsnConvert.serialize(csr.certificationRequestInfo.subjectPKInfo);
    const publicKey = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
    const leaf = this.#sign(order.host, publicKey);
    this.issued.push(leaf);
    order.chain = `${leaf.toString()}${this.#ca.pem}`;
    order.status = (this.options.slowPolls ?? 0) > 0 ? 'processing' : 'valid';
    this.#json(response, 200, this.#order(order));
  }

  #sign(host: string, publicKey: KeyObject): X509Certificate {
    const notBefore = this.#now();
    const notAfter = notBefore + (this.options.lifetime ?? 90 * 24 * 3_600_000);
    return signCertificate(
      { commonName: host, names: [host], publicKey, notBefore, notAfter, ca: false },
      this.#ca.signer,
    );
  }

  #renewal(id: string, response: ServerResponse) {
    const certificate = this.issued.find((one) => certificateId(one.toString()) === id);
    if (certificate === undefined || this.options.window === undefined) {
      return this.#problem(response, 404, 'malformed', 'no such certificate');
    }
    const { start, end } = this.options.window(certificate);
    response.setHeader('retry-after', this.options.renewalRetryAfter ?? '21600');
    this.#json(response, 200, {
      suggestedWindow: { start: new Date(start).toISOString(), end: new Date(end).toISOString() },
      explanationURL: 'https://ca.example/why',
    });
  }

  #describe(): object {
    const url = (resource: Resource) => `${this.#base}/${resource}`;
    return {
      newNonce: url('newNonce'),
      newAccount: url('newAccount'),
      newOrder: url('newOrder'),
      ...(this.options.window === undefined ? {} : { renewalInfo: url('renewalInfo') }),
      meta: {
        externalAccountRequired: this.options.eab === true,
        ...(this.options.profiles === undefined
          ? {}
          : {
              profiles: Object.fromEntries(this.options.profiles.map((name) => [name, `https://ca.example/${name}`])),
            }),
      },
    };
  }

  #order(order: Order): object {
    return {
      status: order.status,
      identifiers: [{ type: order.type, value: order.host }],
      authorizations: [`${this.#base}/authorization/${order.id}`],
      finalize: `${this.#base}/finalize/${order.id}`,
      ...(order.error === null ? {} : { error: order.error }),
      ...(order.status === 'valid' ? { certificate: `${this.#base}/certificate/${order.id}` } : {}),
    };
  }

  #authorization(order: Order): object {
    const types = this.options.challenges ?? ['http-01', 'tls-alpn-01'];
    return {
      status: order.authorization,
      identifier: { type: order.type, value: order.host },
      challenges: types.map((type) => this.#challenge(order, type)),
    };
  }

  #challenge(order: Order, type: string): object {
    return {
      type,
      url: `${this.#base}/challenge/${order.id}/${type}`,
      token: order.token,
      status: order.authorization,
      ...(order.error === null ? {} : { error: order.error }),
    };
  }

  #json(response: ServerResponse, status: number, body: object): void {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  #problem(response: ServerResponse, status: number, type: string, detail: string): void {
    response
      .writeHead(status, { 'content-type': 'application/problem+json' })
      .end(JSON.stringify({ type: type.includes(':') ? type : URN + type, detail, status }));
  }

  #nonce(): string {
    const nonce = randomBytes(12).toString('base64url');
    this.#nonces.add(nonce);
    return nonce;
  }

  #now(): number {
    return (this.options.now ?? Date.now)();
  }
}

function hostOf(payload: Record<string, unknown> | null): string {
  return identifierOf(payload).value;
}

function identifierOf(payload: Record<string, unknown> | null): { type: string; value: string } {
  const [identifier] = (payload?.identifiers ?? []) as { type: string; value: string }[];
  return identifier ?? { type: '', value: '' };
}
