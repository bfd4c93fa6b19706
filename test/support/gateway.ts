import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';
import { eventually } from './eventually.ts';
import {
  freePorts,
  openDescriptors,
  type Program,
  type Ran,
  residentBytes,
  runProgram,
  type Surroundings,
  startProgram,
} from './processes.ts';

import { withoutTrial } from './without-trial.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
/** As people start it: with the flags and variables that keep its memory small. */
const STARTER = fileURLToPath(new URL('../../scripts/gateway', import.meta.url));

/** What a log shows of a failed test, characters from its end. */
const SHOWN_LOG = 4_000;

export interface GatewayOptions {
  /** Of the configuration file; listeners get free ports of loopback unless it says otherwise. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly env?: NodeJS.ProcessEnv;
  readonly within?: Surroundings;
  /** An existing data directory; it is then left in place at the end. */
  readonly dataDir?: string;
}

/** The real program, `gateway serve`, as a process of its own. */
export interface TestGateway {
  readonly dataDir: string;
  readonly configFile: string;
  readonly httpsPort: number;
  readonly httpPort: number;
  readonly metricsPort: number;
  /** Sets keys of the configuration file, for the next start: what is known once the ports are. */
  configure(more: Readonly<Record<string, unknown>>): void;
  pid(): number;
  running(): boolean;
  /** Of all its starts. */
  log(): string;
  /** Lines of its JSON log. */
  logLines(): Record<string, unknown>[];
  /** Runs any other command of the CLI on the same configuration; `tries`: registries that it puts into the table are tried. */
  cli(
    args: readonly string[],
    options?: { readonly input?: string; readonly ms?: number; readonly tries?: boolean },
  ): Promise<Ran>;
  /** The same, beside the test: for those who look at it while it runs. */
  begin(...args: string[]): Program;
  /** The same, of a command that has to succeed; its standard output. */
  ok(...args: string[]): Promise<string>;
  /** SIGTERM, and its end. */
  stop(): Promise<void>;
  /** SIGKILL, and its end. */
  kill(): Promise<void>;
  /** On the same data directory and ports; resolves when it is ready. */
  start(): Promise<void>;
  /** The same without waiting until it is ready: for those who kill it at any moment. */
  launch(): void;
  ready(): Promise<void>;
  /** Bytes resident, and open descriptors, of the gateway and its workers. */
  resident(): number;
  descriptors(): number;
  /** Ends it and removes its data. */
  close(): Promise<void>;
}

/** Prepares a gateway with free ports; `start` (or startGateway) runs it. */
export async function prepareGateway(options: GatewayOptions = {}): Promise<TestGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-'));
  const dataDir = options.dataDir ?? join(folder, 'data');
  const configFile = join(folder, 'gateway.yaml');
  const [https = 0, http = 0, metrics = 0] = await freePorts(3);
  const { listen, metrics: metricsConfig, ...config } = options.config ?? {};
  const listening = { https: `127.0.0.1:${https}`, http: `127.0.0.1:${http}`, ...(listen as object | undefined) };
  const measured = { listen: `127.0.0.1:${metrics}`, ...(metricsConfig as object | undefined) };
  const configure = (more: Readonly<Record<string, unknown>>) => {
    // JSON is YAML.
    const whole = { dataDir, listen: listening, metrics: measured, ...config, ...more };
    writeFileSync(configFile, JSON.stringify(whole, null, 2));
  };
  configure({});
  // Commands of other tests are not to find it, nor is it to stand where a gateway of this machine would.
  const own = { RUNTIME_DIRECTORY: join(folder, 'run') };
  const env = { ...withoutGateway(process.env), ...own, ...options.env };
  const port = (address: string) => Number(address.slice(address.lastIndexOf(':') + 1));

  let program: Program | undefined;
  let earlier = '';
  const log = () => earlier + (program?.output() ?? '');
  const command = (args: readonly string[], tries = false) => ({
    command: process.execPath,
    args: [MAIN, '--config', configFile, ...(tries ? args : withoutTrial(args))],
    env,
    cwd: folder,
    within: options.within,
  });

  const gateway: TestGateway = {
    dataDir,
    configFile,
    httpsPort: port(listening.https),
    httpPort: port(listening.http),
    metricsPort: port(measured.listen),
    configure,
    pid() {
      if (program === undefined) throw new Error('the gateway does not run');
      return program.pid;
    },
    running: () => program?.running() ?? false,
    log,
    logLines: () =>
      log()
        .split('\n')
        .filter((line) => line.startsWith('{') && line.endsWith('}'))
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    cli: (args, { input, ms, tries = false } = {}) =>
      runProgram({
        ...command(args, tries),
        ...(input === undefined ? {} : { input }),
        ...(ms === undefined ? {} : { ms }),
      }),
    begin: (...args) => startProgram(command(args)),
    async ok(...args) {
      const ran = await gateway.cli(args);
      if (ran.code !== 0)
        throw new Error(`gateway ${args.join(' ')} ended with ${ran.code}\n${ran.stdout}\n${ran.stderr}`);
      return ran.stdout;
    },
    launch() {
      if (program !== undefined) earlier += program.output();
      program = startProgram({ ...command([]), command: STARTER, args: ['--config', configFile, 'serve'] });
    },
    async ready() {
      if (program === undefined) throw new Error('the gateway was not launched');
      await program.waitFor(/"listening on /);
      // In a network namespace the listener is out of this process's reach; the line is said once it is ready.
      if (options.within === undefined && listening.http !== 'off') {
        await eventually(
          '/readyz to answer 200',
          async () => (await fetch(`http://127.0.0.1:${gateway.httpPort}/readyz`)).ok,
        );
      }
    },
    async start() {
      gateway.launch();
      await gateway.ready();
    },
    stop: async () => program?.end(90_000),
    kill: async () => program?.kill(),
    resident: () => residentBytes(gateway.pid()),
    descriptors: () => openDescriptors(gateway.pid()),
    async close() {
      await program?.end(90_000);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return gateway;
}

export async function startGateway(options: GatewayOptions = {}): Promise<TestGateway> {
  const gateway = await prepareGateway(options);
  try {
    await gateway.start();
    return gateway;
  } catch (error) {
    await gateway.close();
    throw error;
  }
}

/** Within a `describe`: prints the gateway's last complaints, and the end of its log, beneath each test that fails. */
export function showLogOfFailures(gateway: () => TestGateway | undefined): void {
  afterEach(({ task }) => {
    if (task.result?.state !== 'fail') return;
    const log = gateway()?.log() ?? '(none)';
    const complaints = log
      .split('\n')
      .filter((line) => /"level":"(warn|error|fatal)"/.test(line) || !line.startsWith('{'));
    console.error(`--- the gateway's complaints ---\n${complaints.join('\n').slice(-SHOWN_LOG)}`);
    console.error(`--- the gateway's log, at its end ---\n${log.slice(-SHOWN_LOG)}`);
  });
}

/** The machine's settings are no part of a test, nor are its proxies. */
function withoutGateway(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !name.startsWith('GATEWAY_') && !/^(https?|all|no)_proxy$/i.test(name)),
  );
}
