import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { type TestImage, writeLayout } from './oci-image.ts';
import { freePorts, type Program, runOk, type Surroundings, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** A real registry (Debian's docker-registry) with images of the test's own. */
export interface DockerRegistry {
  readonly port: number;
  /** Where it keeps its files; blobs are `docker/registry/v2/blobs/sha256/ab/abcd…/data` below. */
  readonly root: string;
  readonly endpoint: string;
  /** Its configuration. */
  readonly configFile: string;
  /** Adds an image under `name:tag`. */
  push(image: TestImage, name: string, tag: string): Promise<void>;
  /** Its access log: a line a request, `"GET /v2/… HTTP/1.1" 200`. */
  requests(): string[];
  stop(): Promise<void>;
  /** As `stop` left it: the same port and files. */
  start(): Promise<void>;
  close(): Promise<void>;
}

export interface DockerRegistryOptions {
  readonly within?: Surroundings;
  /** The program, where it is not Debian's (distribution 2.8). */
  readonly program?: string;
  /** `auth` section of its configuration (only while it serves, not while it is filled). */
  readonly auth?: object;
  /** It is a pull-through cache of this registry. */
  readonly proxy?: { readonly remoteurl: string; readonly username?: string; readonly password?: string };
  /** Blobs are redirected to this origin. */
  readonly redirectTo?: string;
}

export async function startDockerRegistry(options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  const folder = mkdtempSync(join(tmpdir(), 'docker-registry-'));
  const root = join(folder, 'data');
  const [port = 0] = await freePorts(1);
  let program: Program | undefined;
  let log = '';

  const configure = (plain: boolean) => {
    const config = {
      version: 0.1,
      log: { level: 'info', accesslog: { disabled: false } },
      http: { addr: `127.0.0.1:${port}`, secret: 'of this test only' },
      storage: { filesystem: { rootdirectory: root }, maintenance: { uploadpurging: { enabled: false } } },
      ...(plain || options.auth === undefined ? {} : { auth: options.auth }),
      ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
      ...(plain || options.redirectTo === undefined
        ? {}
        : { middleware: { storage: [{ name: 'redirect', options: { baseurl: options.redirectTo } }] } }),
    };
    writeFileSync(join(folder, 'config.yml'), JSON.stringify(config));
  };
  const start = async (plain = false) => {
    configure(plain);
    program = startProgram({
      command: options.program ?? programPath('docker-registry'),
      args: ['serve', join(folder, 'config.yml')],
      within: options.within,
    });
    await program.waitFor(/listening on/);
  };
  const stop = async () => {
    if (program === undefined) return;
    await program.end();
    log += program.output();
    program = undefined;
  };
  const special = options.auth !== undefined || options.redirectTo !== undefined;
  try {
    await start();
  } catch (error) {
    await stop();
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  return {
    port,
    root,
    endpoint: `http://127.0.0.1:${port}`,
    configFile: join(folder, 'config.yml'),
    async push(image, name, tag) {
      const layout = mkdtempSync(join(folder, 'layout-'));
      writeLayout(image, layout, tag);
      // A registry that demands tokens is filled before it does.
      if (special) {
        await stop();
        await start(true);
      }
      await runOk({
        command: programPath('skopeo'),
        args: [
          '--insecure-policy',
          'copy',
          '--all',
          '--preserve-digests',
          '--dest-tls-verify=false',
          `oci:${layout}:${tag}`,
          `docker://127.0.0.1:${port}/${name}:${tag}`,
        ],
        within: options.within,
      });
      if (special) {
        await stop();
        await start();
      }
      rmSync(layout, { recursive: true, force: true });
    },
    requests: () =>
      (log + (program?.output() ?? '')).split('\n').filter((line) => /"(GET|HEAD|POST|PUT|PATCH|DELETE) /.test(line)),
    stop,
    start: () => start(),
    async close() {
      await stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Resolves when it has logged a request that matches: it logs after it has answered. */
export async function requestSeen(registry: DockerRegistry, pattern: RegExp): Promise<void> {
  await eventually(`a request ${pattern}`, () => registry.requests().some((line) => pattern.test(line)));
}
