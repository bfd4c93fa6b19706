import type { Server } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { UserSnapshot } from '../access/user-snapshot.ts';
import type { TableSnapshot } from '../aliases/table.ts';
import { materialOf } from '../certs/contexts.ts';
import type { ContextSnapshot } from '../certs/service.ts';
import { isWildcard, wildcardDomain } from '../certs/wildcard.ts';
import type { Config } from '../config/config.ts';
import { Mutex } from '../kit/async.ts';
import type { Freshness } from '../kit/freshness.ts';
import { steadyClock, steadyNow } from '../kit/time.ts';
import type { RegistryOutline } from '../proxy/outline.ts';
import type { VersionedCore } from '../proxy/reply.ts';
import type { Activity, ActivityDelta } from '../telemetry/activity.ts';
import type { Logger } from '../telemetry/log.ts';
import { addUp, type Metrics, type MetricValues } from '../telemetry/metrics.ts';
import { AccessHost, type SharedAccess } from './access-host.ts';
import type { ClientConnections, ConnectionTotals } from './connection-totals.ts';
import { CoreHost } from './core-host.ts';
import type { CertificateMessage, FreshMessage, StartMessage, StateMessage } from './protocol.ts';
import { WorkerProcess } from './worker-process.ts';

/** How long a worker may take until it accepts connections, ms. */
const START_TIMEOUT = 20_000;
/** Waits before a worker that ended is replaced, ms: at once, then slower where they keep ending. */
const REPLACE_AFTER = [0, 500, 2_000, 10_000, 30_000];
/** A worker that has lived this long, ms, did not end because it cannot start. */
const STABLE_AFTER = 60_000;
/** A worker that serves asks so often, ms, until when it may go on: one small question. */
const WORKER_ASKS_AFTER = 2_000;
/** How long a worker may take to acknowledge the newest state, ms; one that hangs is replaced. */
const UPDATE_TIMEOUT = 10_000;
/**
 * How often changes in the background are looked for, ms (a renewed certificate, new ticket keys, damaged manifests): what a person does, and what
 * registries deny, is passed on at once.
 */
const WATCH_EVERY = 1_000;
/** How often a worker is asked for its metrics, ms, which also shows that it is alive. */
const PROBE_EVERY = 5_000;
/** A worker that has not answered so many probes is replaced: a busy machine delays one, not four. */
const HUNG_AFTER = 4;
/** How long a reading of the metrics waits for one worker, ms; then it shows what that worker said the last time. */
const METRICS_TIMEOUT = 1_000;
/** Beyond the grace that running pulls have, ms, before a worker is made to end. */
const END_TIMEOUT = 2_000;

/** What workers hold copies of. Each function returns an immutable snapshot: another object (or value) after each change. */
export interface WorkerState {
  /** With the ports as they were bound. */
  config(): Config;
  table(): TableSnapshot;
  users(): UserSnapshot;
  /** Null with `tls.mode: off`. */
  certificates(): ContextSnapshot | null;
  /** TLS-ALPN-01 challenges by host. */
  challenges(): ReadonlyMap<string, SecureContext> | null;
  /** True, or why the gateway is not ready. */
  ready(): true | string;
  /** What is to be said of it all the same. */
  remark(): string | null;
  /** Of a node that others do the work of: it is ending. */
  draining(): boolean;
  /** 48 bytes that encrypt session tickets. */
  ticketKeys(): Uint8Array;
}

export interface SupervisorOptions {
  /** Workers besides the owner itself. */
  readonly size: number;
  /** The program of a worker. */
  readonly program: URL;
  readonly version: string;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  readonly core: VersionedCore;
  readonly state: WorkerState;
  /** Users, rules and limits, decided here where they must hold for all processes together. */
  readonly access: SharedAccess;
  /** Until when what workers hold copies of may be served by; null, or left out: for good. */
  readonly freshness?: Freshness | null;
  /** The registries of the table as people who pull may know them. */
  readonly outlines: () => readonly RegistryOutline[];
  /** Takes what workers saw of clients and troubles. */
  readonly activity: Pick<Activity, 'add'>;
  /** Of clients, with this process and its workers. */
  readonly connections: ConnectionTotals;
  /** The owner's listening socket, which every worker accepts from as well: the kernel gives each connection to one that is idle. */
  readonly server: Server;
  /** Of the owner. */
  readonly metrics: Metrics;
  readonly log: Logger;
  /** For tests that must not wait for long. */
  readonly probeEvery?: number;
}

/**
 * The other processes that serve clients: started, replaced when they end or hang, and informed of everything that they must know. The
 * state is sent whole whenever the configuration, the table, a user, a certificate, a challenge, the ticket keys, the readiness or the core's generation has changed.
 */
export class WorkerSupervisor {
  readonly #options: SupervisorOptions;
  readonly #workers = new Set<WorkerProcess>();
  readonly #restarts = new Set<NodeJS.Timeout>();
  readonly #timers: readonly NodeJS.Timeout[];
  readonly #updates = new Mutex();
  readonly #restarted: { inc(): void };
  /** What workers that have ended had counted when they were last asked. */
  #past: Promise<MetricValues> = Promise.resolve([]);
  /** The snapshots that were sent last. */
  #sent: readonly unknown[] = [];
  /** Grows with each change of the state. */
  #version = 0;
  #certificates: { readonly snapshot: unknown; readonly version: number } = { snapshot: null, version: 0 };
  #closing = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#restarted = options.metrics.counter(
      'worker_restarts_total',
      'Workers that ended by themselves and were replaced.',
    );
    this.#timers = [
      setInterval(() => this.#probe(), options.probeEvery ?? PROBE_EVERY).unref(),
      setInterval(() => void this.settled().catch(() => {}), WATCH_EVERY).unref(),
    ];
  }

  /** Workers that accept connections. */
  get ready(): number {
    return [...this.#workers].filter(({ accepts }) => accepts).length;
  }

  /** Resolves once every worker accepts connections; until then the owner serves alone. @throws where one does not start; it is tried again all the same */
  async start(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.size }, () => this.#spawn(0)));
  }

  /** Resolves once all processes work with everything as it is now. */
  settled(): Promise<void> {
    const updated = this.#updates.run(() => this.#update());
    updated.catch((error: unknown) => {
      this.#options.log.error({ err: error }, 'the workers could not be told of a change; it is tried again');
    });
    return updated;
  }

  /** What the workers have counted, those that have ended included. */
  async metrics(): Promise<MetricValues[]> {
    const values = [...this.#workers].map((worker) => worker.metrics(METRICS_TIMEOUT));
    return Promise.all([this.#past, ...values]);
  }

  /** Lets running pulls end within `graceMs`, then ends the processes. */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#closing = true;
    for (const timer of this.#timers) clearInterval(timer);
    for (const timer of this.#restarts) clearTimeout(timer);
    await Promise.all([...this.#workers].map((worker) => worker.drain(graceMs, END_TIMEOUT)));
  }

  async #update(): Promise<void> {
    const { state, core } = this.#options;
    const now = [
      state.config(),
      state.table(),
      state.certificates(),
      state.users(),
      state.challenges(),
      state.ready(),
      state.remark(),
      state.draining(),
      state.ticketKeys(),
      core.generation,
    ];
    if (now.every((part, index) => part === this.#sent[index])) return;
    this.#version++;
    const message = this.#message();
    const informed = [...this.#workers].filter((worker) => worker.informed);
    // A worker that fails here is replaced by one that starts with the newest state.
    await Promise.all(informed.map((worker) => worker.callOrEnd('state', message, UPDATE_TIMEOUT).catch(() => {})));
    this.#sent = now;
  }

  async #spawn(failures: number): Promise<void> {
    const { program, version, pseudonym, server, log } = this.#options;
    const startedAt = performance.now();
    const worker = new WorkerProcess(program, (how) => {
      this.#workers.delete(worker);
      if (worker.lastMetrics.length > 0) {
        this.#past = this.#past.then((past) => addUp([past, worker.lastMetrics])).catch(() => []);
      }
      if (this.#closing) return;
      const again = performance.now() - startedAt > STABLE_AFTER ? 0 : failures;
      const wait = REPLACE_AFTER[Math.min(again, REPLACE_AFTER.length - 1)] ?? 0;
      this.#restarted.inc();
      log.error(
        { worker: worker.pid, ...how, wait },
        'a worker ended; its connections are lost, another takes its place',
      );
      this.#restart(wait, again + 1);
    });
    this.#workers.add(worker);
    this.#serve(worker);
    const start: StartMessage = { version, pseudonym, clock: steadyClock(), state: this.#message() };
    let known = this.#version;
    await worker.callOrEnd('start', start, START_TIMEOUT);
    // What changed while it started: it accepts its first connection with the newest state.
    while (known !== this.#version) {
      known = this.#version;
      await worker.callOrEnd('state', this.#message(), UPDATE_TIMEOUT);
    }
    // The listening socket is closed by now; the worker is being drained.
    if (this.#closing) return;
    // From here on every update waits for it, so that it never accepts a connection with an older state.
    worker.informed = true;
    await worker.callOrEnd('listen', null, UPDATE_TIMEOUT, server);
    worker.accepts = true;
    log.debug({ worker: worker.pid }, 'a worker takes connections');
  }

  #serve({ channel }: WorkerProcess): void {
    const { core, access, activity, connections } = this.#options;
    channel.on('activity', (seen: ActivityDelta) => activity.add(seen));
    connections.join(channel, (others) => channel.tell('connections', others));
    channel.on('connections', (own: ClientConnections) => connections.report(channel, own));
    channel.onClose(() => connections.leave(channel));
    new CoreHost(core, channel);
    new AccessHost(access, channel);
    channel.handle('outlines', () => this.#options.outlines());
    channel.handle('fresh', () => this.#fresh());
    channel.handle('certificate', ({ host }: { host: string | null }) => this.#certificate(host));
  }

  /** Until when the state that was sent may be served by. */
  async #fresh(): Promise<FreshMessage> {
    const { freshness } = this.#options;
    if (freshness === undefined || freshness === null) {
      return { steady: Number.POSITIVE_INFINITY, date: Number.POSITIVE_INFINITY };
    }
    if (freshness.isOver(performance.now())) await freshness.renewed();
    // A worker asks again soon: what the owner has learned meanwhile may shorten it.
    const { steady, date } = freshness.until;
    const [now, today] = [performance.now(), Date.now()];
    return {
      steady: Math.min(steady - now, WORKER_ASKS_AFTER) + steadyNow(),
      date: Math.min(date, today + WORKER_ASKS_AFTER),
    };
  }

  #message(): StateMessage {
    const { state, core } = this.#options;
    const { registries, hosts } = state.table();
    const users = state.users();
    const certificates = state.certificates();
    if (certificates !== this.#certificates.snapshot) {
      this.#certificates = { snapshot: certificates, version: this.#certificates.version + 1 };
    }
    return {
      config: state.config(),
      aliases: [...hosts.values()],
      registries: [...registries.keys()],
      users: { users: [...users.rows.values()], everAdded: users.everAdded },
      generation: core.generation,
      ready: state.ready(),
      remark: state.remark(),
      draining: state.draining(),
      ticketKeys: state.ticketKeys(),
      certificates:
        certificates === null
          ? null
          : {
              hosts: [...certificates.byHost.keys()],
              waiting: [...(certificates.waiting ?? [])],
              wildcards: [...(certificates.wildcards ?? [])],
              version: this.#certificates.version,
            },
      challenges: [...(state.challenges() ?? [])].flatMap(([host, context]) => {
        const material = certificateOf(context);
        return material === null ? [] : [{ host, ...material }];
      }),
    };
  }

  /** A host's certificate for the worker that is first asked for it, once it is ordered where that is on demand; null as host for clients that name none. */
  async #certificate(host: string | null): Promise<CertificateMessage | null> {
    const certificates = this.#options.state.certificates();
    const isWide = host !== null && isWildcard(host);
    const known = host === null ? certificates?.fallback : certificates?.byHost.get(host);
    // A worker may ask for what was swapped meanwhile: for a host that a wildcard covers by now.
    const wide = host === null ? null : certificates?.wildcard?.(wildcardDomain(host));
    const ready = isWide ? wide : (known ?? wide);
    const context = ready ?? (host === null || isWide ? null : await certificates?.find?.(host));
    return context === undefined || context === null ? null : certificateOf(context);
  }

  #probe(): void {
    for (const worker of this.#workers) {
      if (!worker.accepts) continue;
      if (worker.unanswered >= HUNG_AFTER) {
        this.#options.log.error({ worker: worker.pid }, 'a worker does not answer any more; it is made to end');
        worker.kill();
      } else worker.probe();
    }
  }

  #restart(wait: number, failures: number): void {
    const timer = setTimeout(() => {
      this.#restarts.delete(timer);
      // Its end is logged, and followed by the next attempt.
      void this.#spawn(failures).catch(() => {});
    }, wait);
    this.#restarts.add(timer);
  }
}

/** Chain and key alone: a certificate has fields that no worker needs. */
function certificateOf(context: SecureContext): CertificateMessage | null {
  const material = materialOf(context);
  return material === null ? null : { chain: material.chain, key: material.key };
}
