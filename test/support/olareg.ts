import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { freePorts, type Program, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** A real registry (olareg) that has the referrers API, with nothing in it. */
export interface Olareg {
  readonly endpoint: string;
  stop(): Promise<void>;
  /** As `stop` left it: the same port and files. */
  start(): Promise<void>;
  close(): Promise<void>;
}

export async function startOlareg(): Promise<Olareg> {
  const folder = mkdtempSync(join(tmpdir(), 'olareg-'));
  const [port = 0] = await freePorts(1);
  const endpoint = `http://127.0.0.1:${port}`;
  let program: Program | undefined;
  const stop = async () => program?.end();
  const start = async () => {
    const args = ['serve', '--addr', '127.0.0.1', '--port', String(port), '--dir', folder];
    const started = startProgram({ command: programPath('olareg'), args });
    program = started;
    await eventually('olareg to answer', async () => {
      if (!started.running()) throw new Error(`olareg ended:\n${started.output()}`);
      return await fetch(`${endpoint}/v2/`).then(
        (response) => response.ok,
        () => false,
      );
    });
  };
  const close = async () => {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await start();
    return { endpoint, stop, start, close };
  } catch (error) {
    await close();
    throw error;
  }
}
