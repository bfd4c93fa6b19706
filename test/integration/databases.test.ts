import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';

let gateway: TestGateway;
showLogOfFailures(() => gateway);
beforeEach(async () => {
  gateway = await prepareGateway();
});
afterEach(() => gateway.close());

/** Another program that tries to lock a database for as long as it lives; resolves to what it got. */
async function lock(file: string): Promise<{ readonly got: string; end(): Promise<void> }> {
  const program = `
    import Database from 'better-sqlite3';
    const database = new Database(${JSON.stringify(file)}, { timeout: 100 });
    try {
      database.exec('BEGIN IMMEDIATE');
      console.log('locked');
    } catch (error) {
      console.log(error.code);
    }
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  return {
    got: said.toString().trim(),
    async end() {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

describe.each(['cache.db', 'gateway.db'])('%s', (name) => {
  it('cannot be locked by another program while the gateway runs; the gateway says so where it was locked before', async () => {
    await gateway.start();
    const refused = await lock(join(gateway.dataDir, name));
    expect(refused.got).toBe('SQLITE_BUSY');
    expect((await fetch(`http://127.0.0.1:${gateway.httpPort}/healthz`)).status).toBe(200);
    await refused.end();
    await gateway.stop();

    const holder = await lock(join(gateway.dataDir, name));
    expect(holder.got).toBe('locked');
    const ran = await gateway.cli(['serve'], { ms: 30_000 });
    expect(ran.code).not.toBe(0);
    expect(ran.stderr + ran.stdout).toContain(`${name} is locked by`);
    await holder.end();
    await gateway.start();
  });
});
