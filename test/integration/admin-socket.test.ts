import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Operation, OperationContext } from '../../src/admin/contract.ts';
import { type AdminServer, callAdmin, NotRunningError, startAdminServer } from '../../src/admin/socket.ts';
import { OPERATOR_ERRORS, OperatorError } from '../../src/kit/operator-error.ts';
import { silentLog } from '../../src/telemetry/log.ts';

let dataDir: string;
let server: AdminServer | undefined;

beforeEach(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), 'gateway-admin-'));
});

afterEach(async () => {
  await server?.close();
  server = undefined;
  await rm(dataDir, { recursive: true, force: true });
});

async function start(operations: Record<string, Operation>, directory = dataDir): Promise<void> {
  server = await startAdminServer({
    dataDir: directory,
    operations: new Map(Object.entries(operations)),
    log: silentLog(),
  });
}

function context(signal = new AbortController().signal): OperationContext & { steps: unknown[] } {
  const steps: unknown[] = [];
  return { steps, signal, step: (step, message, data) => steps.push([step, message, data]) };
}

describe('admin socket', () => {
  test('passes input in, steps as they happen and the result out', async () => {
    const gate = Promise.withResolvers<void>();
    await start({
      'alias.add': async (input, { step }) => {
        step('order', 'sent', { done: 1, total: 2 });
        await gate.promise;
        step('in use', 'done');
        return { got: input };
      },
    });
    const first = Promise.withResolvers<void>();
    const seen: string[] = [];
    const call = callAdmin(
      dataDir,
      'alias.add',
      { name: 'k8s' },
      {
        signal: new AbortController().signal,
        step: (step, _message, data) => {
          seen.push(`${step} ${JSON.stringify(data)}`);
          first.resolve();
        },
      },
    );
    // The first step arrives while the operation still runs.
    await first.promise;
    expect(seen).toEqual(['order {"done":1,"total":2}']);
    gate.resolve();
    expect(await call).toEqual({ got: { name: 'k8s' } });
    expect(seen).toHaveLength(2);
  });

  test('an error comes out as it was thrown, its exit code included', async () => {
    await start({
      refuse: async () => {
        throw new OperatorError('ALIAS_TAKEN', 'taken', { next: 'choose another' });
      },
      usage: async () => {
        throw new OperatorError('NAME_INVALID', 'bad');
      },
      fault: async () => {
        throw new TypeError('x is undefined');
      },
    });
    await expect(callAdmin(dataDir, 'refuse', {}, context())).rejects.toMatchObject({
      code: 'ALIAS_TAKEN',
      message: 'taken',
      next: 'choose another',
      usage: false,
    });
    await expect(callAdmin(dataDir, 'usage', {}, context())).rejects.toMatchObject({
      usage: true,
      next: OPERATOR_ERRORS.NAME_INVALID.next,
    });
    await expect(callAdmin(dataDir, 'fault', {}, context())).rejects.toMatchObject({ code: 'INTERNAL', usage: false });
    await expect(callAdmin(dataDir, 'none', {}, context())).rejects.toMatchObject({ code: 'OPERATION_UNKNOWN' });
  });

  test('the socket is for its owner alone', async () => {
    await start({});
    const { mode } = await stat(path.join(dataDir, 'admin.sock'));
    expect(mode & 0o777).toBe(0o600);
    expect(process.umask()).not.toBe(0o177);
  });

  test('whoever leaves aborts what it asked for', async () => {
    const started = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<unknown>();
    await start({
      wait: async (_input, { signal }) => {
        signal.addEventListener('abort', () => aborted.resolve(signal.reason), { once: true });
        started.resolve();
        await aborted.promise;
      },
    });
    const controller = new AbortController();
    const call = callAdmin(dataDir, 'wait', {}, context(controller.signal));
    await started.promise;
    controller.abort(new Error('Ctrl-C'));
    await expect(call).rejects.toThrow('Ctrl-C');
    expect(await aborted.promise).toBeInstanceOf(OperatorError);
  });

  test('a gateway that ends tells whoever waits, and takes its socket along', async () => {
    const started = Promise.withResolvers<void>();
    await start({
      wait: async (_input, { signal }) => {
        started.resolve();
        await once(signal, 'abort');
        signal.throwIfAborted();
      },
    });
    const call = callAdmin(dataDir, 'wait', {}, context());
    const failed = expect(call).rejects.toMatchObject({ code: 'GATEWAY_ENDING' });
    await started.promise;
    await server?.close();
    server = undefined;
    await failed;
    expect(await readdir(dataDir)).toEqual([]);
  });

  test('a gateway that is killed while it works is no silence', async () => {
    // A bare server that cuts the answer in the middle, as a kill does.
    const cut = net.createServer((socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        socket.write(`2e\r\n${JSON.stringify({ type: 'step', step: 'order', message: 'sent' })}\n\r\n`);
        socket.end();
      });
    });
    cut.listen(path.join(dataDir, 'admin.sock'));
    await once(cut, 'listening');
    try {
      await expect(callAdmin(dataDir, 'alias.add', {}, context())).rejects.toMatchObject({ code: 'GATEWAY_GONE' });
    } finally {
      cut.close();
    }
  });

  test('nothing there, or a socket of a dead process: not running, and a new gateway takes its place', async () => {
    await expect(callAdmin(dataDir, 'x', {}, context())).rejects.toBeInstanceOf(NotRunningError);
    await expect(callAdmin(path.join(dataDir, 'none'), 'x', {}, context())).rejects.toBeInstanceOf(NotRunningError);

    const child = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path.join(dataDir, 'admin.sock'))}, () => console.log('up'))`,
    ]);
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await readdir(dataDir)).toEqual(['admin.sock']);
    await expect(callAdmin(dataDir, 'x', {}, context())).rejects.toBeInstanceOf(NotRunningError);

    await start({ x: async () => 'here' });
    expect(await callAdmin(dataDir, 'x', {}, context())).toBe('here');
  });

  test('a second one is refused while the first answers', async () => {
    await start({ x: async () => 'first' });
    await expect(startAdminServer({ dataDir, operations: new Map(), log: silentLog() })).rejects.toMatchObject({
      code: 'DATA_DIR_HELD',
    });
    expect(await callAdmin(dataDir, 'x', {}, context())).toBe('first');
  });

  test('a file in its place is never removed', async () => {
    await writeFile(path.join(dataDir, 'admin.sock'), 'mine');
    await expect(start({})).rejects.toMatchObject({ code: 'ADMIN_SOCKET' });
    expect((await stat(path.join(dataDir, 'admin.sock'))).size).toBe(4);
  });

  test.skipIf(process.platform !== 'linux')('a data directory with a path longer than a socket may have', async () => {
    const deep = path.join(dataDir, 'd'.repeat(60), 'e'.repeat(60));
    await mkdir(deep, { recursive: true });
    expect(Buffer.byteLength(path.join(deep, 'admin.sock'))).toBeGreaterThan(107);
    await start({ x: async () => 'deep' }, deep);
    expect(await readdir(deep)).toEqual(['admin.sock']);
    expect(await callAdmin(deep, 'x', {}, context())).toBe('deep');
    await server?.close();
    server = undefined;
    expect(await readdir(deep)).toEqual([]);
  });

  test('input that is no JSON, or endless, is refused and runs nothing', async () => {
    let ran = false;
    await start({
      x: async () => {
        ran = true;
      },
    });
    const socket = net.connect(path.join(dataDir, 'admin.sock'));
    socket.write('POST /v1/x HTTP/1.1\r\nhost: admin\r\ncontent-length: 3\r\nconnection: close\r\n\r\n{{{');
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    expect(answer).toContain('HTTP/1.1 400');
    expect(answer).toContain('"usage":true');
    expect(ran).toBe(false);
  });

  test('lines longer than a chunk come out whole', async () => {
    const large = 'x'.repeat(1_000_000);
    await start({ x: async () => ({ large }) });
    expect(await callAdmin(dataDir, 'x', {}, context())).toEqual({ large });
  });
});
