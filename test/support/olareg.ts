import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { freePorts, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** A real registry that has the referrers API and pages lists (olareg), with nothing in it. */
export async function startOlareg(): Promise<{ readonly endpoint: string; close(): Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'olareg-'));
  const [port = 0] = await freePorts(1);
  const program = startProgram({
    command: programPath('olareg'),
    args: ['serve', '--addr', '127.0.0.1', '--port', String(port), '--dir', folder],
  });
  const endpoint = `http://127.0.0.1:${port}`;
  const close = async () => {
    await program.end();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually('olareg to answer', async () => {
      if (!program.running()) throw new Error(`olareg ended:\n${program.output()}`);
      return await fetch(`${endpoint}/v2/`).then(
        (response) => response.ok,
        () => false,
      );
    });
    return { endpoint, close };
  } catch (error) {
    await close();
    throw error;
  }
}
