import { readFileSync } from 'node:fs';
import type { ReloadReport } from '../admin/contract.ts';
import type { Config } from '../config/config.ts';
import type { LoadedConfig } from '../config/load.ts';
import { type ConfigChange, compareConfigs } from '../config/reload.ts';
import { Mutex } from '../kit/async.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';

/**
 * A part of a running gateway that takes another configuration without losing a request. Its values are checked before, all of them, so
 * that there is nothing to refuse; what is under way may go on as it began.
 */
export interface Reconfigurable {
  reconfigure(config: Config): void | Promise<void>;
}

export interface ReloaderOptions {
  /** Reads the configuration again, as at the start. @throws {OperatorError} with all of its problems */
  readonly read: () => Promise<LoadedConfig>;
  /** As it was at the start. */
  readonly config: Config;
  readonly log: Logger;
}

/**
 * Reads the configuration again, on SIGHUP or `gateway reload`, and has the parts take what they can of it. Which keys those are says
 * `src/config/reload.ts`. A configuration with a problem changes nothing.
 */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #parts: Reconfigurable[] = [];
  /** One at a time, in order: the last to be written is the one in use. */
  readonly #mutex = new Mutex();
  #config: Config;
  #authorities: string | null;

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#config = options.config;
    this.#authorities = authoritiesOf(options.config);
  }

  /** The configuration in use. */
  get config(): Config {
    return this.#config;
  }

  /** Parts are told in the order in which they were added. */
  add(...parts: readonly Reconfigurable[]): void {
    this.#parts.push(...parts);
  }

  /** @throws {OperatorError} where the configuration has problems; nothing has changed then */
  reload(): Promise<ReloadReport> {
    return this.#mutex.run(async () => {
      const { log } = this.#options;
      const { config: written, warnings } = await this.#read();
      const { config, changed: keys, restart } = compareConfigs(this.#config, written);
      const authorities = authoritiesOf(config);
      const changed = [...keys, ...changedFile(this.#config, config, authorities !== this.#authorities)];
      // Even where no key has changed: a file that one of them names may have.
      for (const part of this.#parts) await part.reconfigure(config);
      this.#config = config;
      this.#authorities = authorities;
      for (const warning of warnings) log.warn(warning);
      for (const { key, from, to } of changed) log.info({ key, from, to }, `${key}: ${from} → ${to}`);
      for (const { key, from, to } of restart) {
        log.warn({ key, from, to }, `${key}: ${from} → ${to} needs a restart; the gateway goes on with ${from}`);
      }
      log.info({ changed: changed.length, restart: restart.length }, 'the configuration was read again');
      return { changed, restart, warnings };
    });
  }

  async #read(): Promise<LoadedConfig> {
    try {
      return await this.#options.read();
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      const { code, message } = error;
      const next = 'the gateway goes on with the configuration that it has; correct it, then: gateway reload';
      throw new OperatorError(code, message, { next, cause: error });
    }
  }
}

/** What is in the file of authorities; it was checked with the configuration. Null where none is named, or it is gone again. */
function authoritiesOf({ upstream: { caFile } }: Config): string | null {
  try {
    return caFile === null ? null : readFileSync(caFile, 'utf8');
  } catch {
    return null;
  }
}

/** A file that is named as before, with other content. */
function changedFile(before: Config, after: Config, isOther: boolean): ConfigChange[] {
  const file = after.upstream.caFile;
  if (!isOther || file === null || file !== before.upstream.caFile) return [];
  return [{ key: 'upstream.caFile', from: file, to: `${file}, with other certificates` }];
}
