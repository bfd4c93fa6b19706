import type { Socket } from 'node:net';
import { extname } from 'node:path';
import type { Access } from '../access/access.ts';
import type { Users } from '../access/users.ts';
import { materialOf } from '../certs/contexts.ts';
import type { Config } from '../config/config.ts';
import type { VersionedCore } from '../proxy/reply.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Pool } from '../workers/pool.ts';
import type { MaterialMessage, StateMessage } from '../workers/wire.ts';
import type { State } from './state.ts';

/** How often what changes in the background is looked for (renewed certificates, a repository that its registry has closed), ms; what a person does is passed on at once. */
const WATCH = 1_000;

export interface CrewOptions {
  /** With the ports as they were bound. */
  readonly config: Config;
  readonly version: string;
  readonly ticketKeys: Uint8Array;
  readonly state: Pick<State, 'table' | 'certificates'>;
  readonly users: Users;
  readonly access: Access;
  readonly core: VersionedCore;
  readonly ready: () => true | string;
  /** Serves a connection in this process. */
  readonly serve: (socket: Socket) => void;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/**
 * The workers of this gateway (`listen.workers` less the owner itself), and what they must know: sent whole whenever the table, a user,
 * a certificate, the readiness or the core's generation has changed.
 */
export class Crew {
  readonly #options: CrewOptions;
  readonly #pool: Pool;
  readonly #timer: NodeJS.Timeout;
  #sent: readonly unknown[] = [];
  #certificates: { readonly snapshot: unknown; readonly version: number } = { snapshot: null, version: 0 };
  #updating: Promise<void> = Promise.resolve();

  constructor(options: CrewOptions) {
    const { config, version, ticketKeys, core, access, serve, metrics, log } = options;
    this.#options = options;
    this.#pool = new Pool({
      size: config.listen.workers - 1,
      program: new URL(`./worker${extname(import.meta.filename)}`, import.meta.url),
      config,
      version,
      ticketKeys,
      core,
      state: () => this.#message(),
      certificate: (host) => this.#material(host),
      access,
      serve,
      log,
    });
    metrics.include(() => this.#pool.metrics());
    this.#timer = setInterval(() => void this.settled().catch(() => {}), WATCH).unref();
  }

  /** This process and the workers that take connections. */
  get processes(): number {
    return 1 + this.#pool.ready;
  }

  /** Resolves once every worker takes connections; until then this process serves alone. @throws where one does not start */
  start(): Promise<void> {
    return this.#pool.start();
  }

  /** While a CA may be about to validate by TLS-ALPN-01, every connection stays in the process that has the answer. */
  handOver(socket: Socket, own: number): boolean {
    return this.#options.state.certificates?.alpnPending() !== true && this.#pool.dispatch(socket, own);
  }

  /** Resolves once all processes work with everything as it is now. */
  settled(): Promise<void> {
    const updated = this.#updating.then(() => this.#update());
    this.#updating = updated.catch((error: unknown) => {
      this.#options.log.error({ err: error }, 'the workers could not be told of a change; it is tried again');
    });
    return updated;
  }

  async #update(): Promise<void> {
    const { state, users, core, ready } = this.#options;
    const now = [state.table.snapshot(), state.certificates?.contexts(), users.rows(), ready(), core.generation];
    if (now.every((part, index) => part === this.#sent[index])) return;
    await this.#pool.update();
    this.#sent = now;
  }

  close(options: { readonly graceMs: number }): Promise<void> {
    clearInterval(this.#timer);
    return this.#pool.close(options);
  }

  #message(): StateMessage {
    const { state, users, ready } = this.#options;
    const { registries, aliases } = state.table.snapshot();
    const contexts = state.certificates?.contexts() ?? null;
    if (contexts !== this.#certificates.snapshot) {
      this.#certificates = { snapshot: contexts, version: this.#certificates.version + 1 };
    }
    return {
      aliases: [...aliases.values()],
      registries: [...registries.keys()],
      users: [...users.rows().values()],
      ready: ready(),
      certificates:
        contexts === null ? null : { hosts: [...contexts.byHost.keys()], version: this.#certificates.version },
    };
  }

  #material(host: string | null): MaterialMessage | null {
    const contexts = this.#options.state.certificates?.contexts();
    const context = host === null ? contexts?.fallback : contexts?.byHost.get(host);
    if (context === undefined || context === null) return null;
    const material = materialOf(context);
    return material === null ? null : { chain: material.chain, key: material.key };
  }
}
