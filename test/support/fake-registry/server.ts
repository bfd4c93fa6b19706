import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { type Content, contentOf } from '../content.ts';
import { FakeAuth } from './auth.ts';
import { closed, sendBody, wait } from './body.ts';
import { MEDIA, RepositoryContent } from './content.ts';
import { referrersPage, tagsPage } from './lists.ts';
import { type LoggedRequest, RequestLog } from './log.ts';
import type { FakeRegistryOptions, Fault, FaultPlan } from './options.ts';
import { type ParsedPath, parsePath, parseRange } from './paths.ts';
import { PULL_LIMIT_MESSAGE, PullLimits } from './pull-limit.ts';
import { reset, secureServer } from './sockets.ts';

/**
 * A registry for tests: a real HTTP(S) server on a free port, and a second one, the CDN, that blobs may redirect to
 * and that answers 400 if it sees an Authorization header.
 *
 *     const fake = await FakeRegistry.start({ ...QUIRKS.docker });
 *     const image = fake.repository('library/app').addImage('latest', [generated(1 << 20)]);
 *     fake.faults = (request) => (request.kind === 'cdn' && request.nth === 0 ? { resetAfter: 1000 } : undefined);
 *     fake.log.count({ kind: 'blob' }); fake.log.bytes({ kind: 'cdn' });
 *     await fake.close();
 */
export class FakeRegistry {
  readonly log = new RequestLog();
  readonly auth: FakeAuth;
  readonly pulls: PullLimits;
  /** The SNI of each connection over TLS, false where there was none. */
  readonly serverNames: (string | false)[] = [];
  /** May be replaced at any time. */
  faults: FaultPlan;
  readonly #options: FakeRegistryOptions;
  readonly #repositories = new Map<string, RepositoryContent>();
  readonly #seen = new Map<string, number>();
  readonly #connections = new WeakMap<Socket, number>();
  readonly #open = new Set<Socket>();
  readonly #signatures = new Map<string, { digest: string; method: string; expires: number }>();
  #connected = 0;
  #recent: number[] = [];
  #origin = '';
  #cdnOrigin = '';
  #servers: Server[] = [];

  private constructor(options: FakeRegistryOptions) {
    this.#options = options;
    this.faults = options.faults ?? (() => undefined);
    this.auth = new FakeAuth(options);
    this.pulls = new PullLimits(options.pullLimit);
  }

  static async start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
    const fake = new FakeRegistry(options);
    fake.#origin = await fake.#listen((request, response) => fake.#serve(request, response), options.port ?? 0);
    fake.#cdnOrigin = await fake.#listen((request, response) => fake.#serveCdn(request, response), 0);
    return fake;
  }

  /** `http://127.0.0.1:<port>`, the endpoint. */
  get url(): string {
    return this.#origin;
  }

  /** `127.0.0.1:<port>`. */
  get host(): string {
    return new URL(this.#origin).host;
  }

  get port(): number {
    return Number(new URL(this.#origin).port);
  }

  get cdnUrl(): string {
    return this.#cdnOrigin;
  }

  /** TCP connections that are open now. */
  get connections(): number {
    return this.#open.size;
  }

  /** TCP connections ever accepted. */
  get accepted(): number {
    return this.#connected;
  }

  repository(name: string): RepositoryContent {
    let found = this.#repositories.get(name);
    if (found === undefined) {
      found = new RepositoryContent();
      this.#repositories.set(name, found);
    }
    return found;
  }

  removeRepository(name: string): void {
    this.#repositories.delete(name);
  }

  /** Resets every open connection. */
  cut(): void {
    for (const socket of this.#open) reset(socket);
  }

  async close(): Promise<void> {
    const ended = this.#servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const socket of this.#open) socket.destroy();
    await Promise.all(ended);
  }

  async #listen(
    handler: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
    port: number,
  ): Promise<string> {
    const { tls, host = '127.0.0.1' } = this.#options;
    const server = tls === undefined ? createServer() : secureServer(tls);
    server.on('request', (request, response) => {
      handler(request, response).catch((error) => {
        console.error('fake registry:', error);
        response.destroy();
      });
    });
    server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) => {
      if (tls !== undefined) this.serverNames.push((socket as TLSSocket).servername ?? false);
      this.#connections.set(socket, this.#connected++);
      this.#open.add(socket);
      socket.on('close', () => this.#open.delete(socket));
      socket.on('error', () => {});
    });
    server.keepAliveTimeout = 30_000;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    this.#servers.push(server);
    return `${tls === undefined ? 'http' : 'https'}://${host}:${(server.address() as AddressInfo).port}`;
  }

  #record(request: IncomingMessage, url: URL, parsed: ParsedPath): LoggedRequest {
    const key = `${parsed.kind} ${parsed.reference ?? url.pathname}`;
    const nth = this.#seen.get(key) ?? 0;
    this.#seen.set(key, nth + 1);
    const record: LoggedRequest = {
      method: request.method ?? '',
      path: url.pathname,
      query: url.search,
      ...parsed,
      headers: request.headers,
      connection: this.#connections.get(request.socket) ?? -1,
      nth,
      at: performance.now(),
      range: parseRange(request.headers.range),
      status: 0,
      sent: 0,
      done: false,
    };
    this.log.all.push(record);
    return record;
  }

  /** Applies what happens before an answer; true where the answer is already given. */
  async #before(record: LoggedRequest, fault: Fault, response: ServerResponse): Promise<boolean> {
    const delay = (this.#options.latency ?? 0) + (fault.delay ?? 0);
    if (delay > 0) await wait(delay, response);
    if (response.destroyed) return true;
    if (fault.refuse === true) {
      reset(response.socket);
      return true;
    }
    if (fault.hang === true) {
      await closed(response);
      return true;
    }
    if (fault.drip !== undefined) {
      record.status = fault.status ?? 200;
      response.writeHead(record.status, { 'content-type': MEDIA.manifest, ...fault.headers });
      const timer = setInterval(() => response.write(' '), fault.drip);
      await closed(response);
      clearInterval(timer);
      return true;
    }
    if (fault.status !== undefined) {
      record.status = fault.status;
      response.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
      response.end(record.method === 'HEAD' ? undefined : (fault.body ?? errorBody('FAULT', `status ${fault.status}`)));
      return true;
    }
    const { requestsPerSecond } = this.#options;
    if (requestsPerSecond !== undefined && record.kind !== 'token') {
      const now = performance.now();
      this.#recent = this.#recent.filter((at) => at > now - 1000);
      if (this.#recent.length >= requestsPerSecond) {
        this.#answer(record, response, 429, { 'retry-after': '1' }, errorBody('TOOMANYREQUESTS', 'slow down'));
        return true;
      }
      this.#recent.push(now);
    }
    return false;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.#origin);
    const parsed = parsePath(url.pathname);
    const record = this.#record(request, url, parsed);
    response.on('close', () => {
      record.done = true;
    });
    const fault = this.faults(record) ?? {};
    if (await this.#before(record, fault, response)) return;
    if (parsed.kind === 'token') {
      record.status = this.auth.issue(request, url.searchParams, response);
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return this.#answer(record, response, 405, {}, errorBody('UNSUPPORTED', 'the operation is unsupported'));
    }
    if (parsed.kind === 'cdn') return await this.#download(request, record, response, fault);
    const ecrHead = request.method === 'HEAD' && parsed.kind === 'blob' ? this.#options.refuseHead?.blob : undefined;
    const manifestHead =
      request.method === 'HEAD' && parsed.kind === 'manifest' ? this.#options.refuseHead?.manifest : undefined;
    const refused = this.auth.check(request, parsed.repository, this.#origin);
    if (refused !== null) {
      return this.#answer(
        record,
        response,
        refused.status,
        refused.headers,
        errorBody('UNAUTHORIZED', 'authentication required'),
      );
    }
    if (ecrHead !== undefined || manifestHead !== undefined) {
      return this.#answer(record, response, ecrHead ?? manifestHead ?? 405, {}, errorBody('UNSUPPORTED', 'HEAD'));
    }
    switch (parsed.kind) {
      case 'ping':
        return this.#answer(record, response, 200, { 'content-type': 'application/json' }, '{}');
      case 'manifest':
        return this.#manifest(request, record, response, fault);
      case 'blob':
        return await this.#blob(request, record, response, fault);
      case 'tags':
        return this.#tags(record, response, url);
      case 'referrers':
        return this.#referrers(record, response, url);
      default:
        return this.#answer(record, response, 404, {}, errorBody('NAME_UNKNOWN', url.pathname));
    }
  }

  async #manifest(
    request: IncomingMessage,
    record: LoggedRequest,
    response: ServerResponse,
    fault: Fault,
  ): Promise<void> {
    const { repository = '', reference = '' } = record;
    const held = this.#repositories.get(repository);
    if (held === undefined) {
      return this.#answer(
        record,
        response,
        404,
        {},
        errorBody('NAME_UNKNOWN', 'repository name not known to registry'),
      );
    }
    const manifest = held.manifest(reference);
    const accept = request.headers.accept ?? '';
    const isIndex = manifest?.mediaType === MEDIA.index;
    if (manifest === undefined || (this.#options.strictAccept === true && isIndex && !accept.includes(MEDIA.index))) {
      return this.#answer(record, response, 404, {}, errorBody('MANIFEST_UNKNOWN', 'manifest unknown'));
    }
    const redirect = this.#options.redirect;
    if (redirect?.manifests === true) {
      const location = `${this.#cdnOrigin}${record.path}`;
      return this.#answer(record, response, redirect.status ?? 307, { location }, '');
    }
    const account = this.auth.accountOf(request) ?? request.socket.remoteAddress ?? '';
    const { headers: limits, refused } = this.pulls.answer(record.method, account);
    if (refused) {
      return this.#answer(record, response, 429, limits, errorBody('TOOMANYREQUESTS', PULL_LIMIT_MESSAGE));
    }
    const body =
      fault.wrongByteAt === undefined
        ? manifest.body
        : Buffer.from(manifest.body.toString('latin1').replace(/.$/, ' '), 'latin1');
    this.#answer(
      record,
      response,
      200,
      {
        'content-type': manifest.mediaType,
        ...(this.#options.noDigestHeader === true ? {} : { 'docker-content-digest': manifest.digest }),
        etag: `"${manifest.digest}"`,
        'docker-distribution-api-version': 'registry/2.0',
        ...limits,
      },
      body,
    );
  }

  async #blob(request: IncomingMessage, record: LoggedRequest, response: ServerResponse, fault: Fault): Promise<void> {
    const { repository = '', reference = '' } = record;
    const blob = this.#repositories.get(repository)?.blobs.get(reference);
    if (blob === undefined) {
      return this.#answer(record, response, 404, {}, errorBody('BLOB_UNKNOWN', 'blob unknown to registry'));
    }
    const redirect = this.#options.redirect;
    if (redirect !== undefined) {
      const location = this.#location(blob.digest, record.method as 'GET' | 'HEAD');
      return this.#answer(record, response, redirect.status ?? 307, { location }, '');
    }
    await this.#content(request, record, response, blob, fault);
  }

  #location(digest: string, method: 'GET' | 'HEAD'): string {
    const redirect = this.#options.redirect;
    const to = redirect?.to;
    if (typeof to === 'function') return to(digest, method);
    if (to === 'relative') return `/artifacts-downloads/${digest}`;
    if (to !== 'signed') return `${this.#cdnOrigin}/data/${digest}`;
    const signature = randomBytes(12).toString('hex');
    const expires = Date.now() + (redirect?.lifetime ?? 60_000);
    this.#signatures.set(signature, { digest, method, expires });
    return `${this.#cdnOrigin}/data/${digest}?X-Amz-Signature=${signature}`;
  }

  async #serveCdn(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.#cdnOrigin);
    const digest = url.pathname.split('/').at(-1) ?? '';
    const record = this.#record(request, url, { kind: 'cdn', repository: undefined, reference: digest });
    response.on('close', () => {
      record.done = true;
    });
    const fault = this.faults(record) ?? {};
    if (await this.#before(record, fault, response)) return;
    if (request.headers.authorization !== undefined) {
      return this.#answer(record, response, 400, {}, '<Error><Code>InvalidArgument</Code></Error>');
    }
    if (this.#options.redirect?.to === 'signed') {
      const signed = this.#signatures.get(url.searchParams.get('X-Amz-Signature') ?? '');
      if (signed?.digest !== digest || signed.expires < Date.now() || signed.method !== request.method) {
        return this.#answer(record, response, 403, {}, '<Error><Code>AccessDenied</Code></Error>');
      }
    }
    await this.#download(request, record, response, fault);
  }

  /** What a redirect leads to, on the CDN's origin or on our own: found by digest alone. */
  async #download(
    request: IncomingMessage,
    record: LoggedRequest,
    response: ServerResponse,
    fault: Fault,
  ): Promise<void> {
    const digest = record.reference ?? '';
    for (const repository of this.#repositories.values()) {
      const manifest = record.path.includes('/manifests/') ? repository.manifest(digest) : undefined;
      if (manifest !== undefined) {
        const headers = { 'content-type': manifest.mediaType, 'docker-content-digest': manifest.digest };
        return this.#answer(record, response, 200, headers, manifest.body);
      }
      const blob = repository.blobs.get(digest);
      if (blob !== undefined) return await this.#content(request, record, response, blob, fault);
    }
    this.#answer(record, response, 404, {}, '<Error><Code>NoSuchKey</Code></Error>');
  }

  async #content(
    request: IncomingMessage,
    record: LoggedRequest,
    response: ServerResponse,
    blob: Content,
    fault: Fault,
  ): Promise<void> {
    const { refuseRange, gzip, bytesPerSecond } = this.#options;
    const etag = fault.etag ?? `"${blob.digest}"`;
    const headers: Record<string, string> = {
      'content-type': 'application/octet-stream',
      'docker-content-digest': blob.digest,
      etag,
      'accept-ranges': refuseRange === undefined ? 'bytes' : 'none',
    };
    if (gzip === true && !/\bidentity\b/.test(String(request.headers['accept-encoding'] ?? ''))) {
      const packed = contentOf(gzipSync(blob.read(0, blob.size)));
      response.writeHead(200, { ...headers, 'content-encoding': 'gzip', 'content-length': packed.size });
      return await sendBody(response, packed, 0, packed.size, fault, record);
    }
    if (fault.contentEncoding !== undefined) headers['content-encoding'] = fault.contentEncoding;
    const size = blob.size + (fault.sizeOff ?? 0);
    let { range } = record;
    if (refuseRange === 'ignore' || fault.ignoreRange === true) range = undefined;
    const ifRange = request.headers['if-range'];
    if (ifRange !== undefined && ifRange !== etag) range = undefined;
    if (range !== undefined && typeof refuseRange === 'number') {
      return this.#answer(record, response, refuseRange, {}, errorBody('UNSUPPORTED', 'range'));
    }
    if (range !== undefined && range.from >= blob.size) {
      return this.#answer(record, response, 416, { 'content-range': `bytes */${size}` }, '');
    }
    const from = range?.from ?? 0;
    const to = Math.min(range?.to ?? blob.size, blob.size);
    if (range !== undefined) headers['content-range'] = `bytes ${from}-${to - 1}/${size}`;
    if (fault.chunked !== true) headers['content-length'] = String(to - from + (fault.sizeOff ?? 0));
    record.status = range === undefined ? 200 : 206;
    response.writeHead(record.status, headers);
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.flushHeaders();
    const paced = bytesPerSecond === undefined ? fault : { bytesPerSecond, ...fault };
    await sendBody(response, blob, from, to, paced, record);
    if (fault.sizeOff !== undefined) response.socket?.end();
  }

  async #tags(record: LoggedRequest, response: ServerResponse, url: URL): Promise<void> {
    const held = this.#repositories.get(record.repository ?? '');
    if (held === undefined)
      return this.#answer(record, response, 404, {}, errorBody('NAME_UNKNOWN', 'repository name not known'));
    const { headers, body } = tagsPage(held, record.repository ?? '', url.searchParams, this.#options);
    this.#answer(record, response, 200, headers, body);
  }

  async #referrers(record: LoggedRequest, response: ServerResponse, url: URL): Promise<void> {
    const held = this.#repositories.get(record.repository ?? '');
    if (this.#options.referrers === false || held === undefined) {
      return this.#answer(record, response, 404, { 'content-type': 'text/plain' }, '404 page not found\n');
    }
    const { headers, body } = referrersPage(held, record.reference ?? '', url, this.#options);
    this.#answer(record, response, 200, headers, body);
  }

  #answer(
    record: LoggedRequest,
    response: ServerResponse,
    status: number,
    headers: Record<string, string>,
    body: Uint8Array | string,
  ): void {
    record.status = status;
    response.writeHead(status, {
      ...(status >= 400 ? { 'content-type': 'application/json' } : {}),
      ...headers,
      'content-length': Buffer.byteLength(body),
    });
    if (record.method === 'HEAD') {
      response.end();
      return;
    }
    record.sent += Buffer.byteLength(body);
    response.end(body);
  }
}

function errorBody(code: string, message: string): string {
  return JSON.stringify({ errors: [{ code, message, detail: null }] });
}
