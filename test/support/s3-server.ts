import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { S3Config } from '../../src/s3/client.ts';
import { freePorts, type Program, startProgram } from './processes.ts';
import { programPath } from './programs.ts';
import { Relay } from './relay.ts';

const ACCESS = 'gateway-tests';
const SECRET = 'of these tests only';

/** A real S3 server (versitygw on a folder), reached through a relay that can be cut. */
export class S3Server {
  static readonly bucket = 'shared';
  readonly relay: Relay;
  readonly #folder: string;
  readonly #program: Program;

  private constructor(folder: string, program: Program, relay: Relay) {
    this.#folder = folder;
    this.#program = program;
    this.relay = relay;
  }

  static async start(): Promise<S3Server> {
    const folder = mkdtempSync(join(tmpdir(), 's3-server-'));
    mkdirSync(join(folder, S3Server.bucket));
    const [port = 0] = await freePorts(1);
    const program = startProgram({
      command: programPath('versitygw'),
      args: ['--port', `127.0.0.1:${port}`, '--keep-alive', 'posix', folder],
      env: { ...process.env, ROOT_ACCESS_KEY: ACCESS, ROOT_SECRET_KEY: SECRET },
    });
    await program.waitFor(/service listening on/);
    return new S3Server(folder, program, await Relay.start(port));
  }

  /** What the SDK's chain finds its credentials by. */
  get env(): NodeJS.ProcessEnv {
    return { AWS_ACCESS_KEY_ID: ACCESS, AWS_SECRET_ACCESS_KEY: SECRET };
  }

  config(prefix: string): S3Config {
    return {
      bucket: S3Server.bucket,
      prefix,
      region: null,
      endpoint: `http://127.0.0.1:${this.relay.port}`,
      pathStyle: true,
      maxSize: null,
      redirect: false,
    };
  }

  /** Where an object lies on its disk. */
  file(prefix: string, digest: string): string {
    const [algorithm = '', hex = ''] = digest.split(':');
    return join(this.#folder, S3Server.bucket, prefix, 'blobs', algorithm, hex.slice(0, 2), hex);
  }

  /** Objects that are visible. */
  objects(prefix: string): string[] {
    const root = join(this.#folder, S3Server.bucket, prefix, 'blobs');
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => name);
  }

  async stop(): Promise<void> {
    await this.relay.stop();
    await this.#program.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
