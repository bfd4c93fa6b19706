import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LineWriter } from '../../../src/telemetry/line-writer.ts';

let directory: string;
const open: number[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'line-writer-'));
});
afterEach(() => {
  for (const fd of open.splice(0)) closeSync(fd);
  rmSync(directory, { recursive: true });
});

function opened(path: string, flags: string | number): number {
  const fd = openSync(path, flags);
  open.push(fd);
  return fd;
}

async function until(done: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !done(); await sleep(5))
    if (Date.now() > deadline) throw new Error('it did not come to that within 20 s');
}

/** A pipe whose reader reads when it is asked to; `flags` for the end that is written. */
function pipe(flags: number): { writer: number; read: () => string; drop: () => void } {
  const path = join(directory, 'pipe');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = opened(path, flags);
  const buffer = Buffer.alloc(1024 * 1024);
  const read = (): string => {
    try {
      return buffer.toString('latin1', 0, readSync(reader, buffer));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return '';
      throw error;
    }
  };
  return { writer, read, drop: () => closeSync(reader) };
}

test('every line is written, whole and in order: of more bytes than letters, and longer than a piece', async () => {
  const path = join(directory, 'log');
  const writer = new LineWriter(opened(path, 'a'), () => {});
  let all = '';
  for (let n = 0; n < 3_000; n++) {
    const line = `${n} ${n % 7 === 0 ? 'é😀'.repeat(n % 50) : 'x'.repeat(n % 300)}${n % 1_000 === 0 ? 'ß'.repeat(90_000) : ''}\n`;
    writer.write(line);
    all += line;
    if (n % 40 === 0) await turn();
  }
  await until(() => statSync(path).size >= Buffer.byteLength(all));
  expect(readFileSync(path, 'utf8')).toBe(all);
});

test('a file keeps up with whoever logs many lines in every turn', async () => {
  const path = join(directory, 'log');
  const writer = new LineWriter(opened(path, 'a'), () => {});
  const line = `${'x'.repeat(449)}\n`;
  const turns = 1_000;
  for (let n = 0; n < turns; n++) {
    // What a process at its limit does: 32 answers in a turn, and no time for anything else.
    for (const busy = performance.now() + 1; performance.now() < busy; );
    for (let of = 0; of < 32; of++) writer.write(line);
    await turn();
  }
  // Of 14 MB; what is behind does not grow with them.
  expect(turns * 32 * line.length - statSync(path).size).toBeLessThan(2 * 1024 * 1024);
});

describe.each([
  { kind: 'waits for its reader', flags: constants.O_WRONLY },
  { kind: 'does not wait for its reader', flags: constants.O_WRONLY | constants.O_NONBLOCK },
])('a pipe that $kind', ({ flags }) => {
  test('takes lines of several writers without mixing them', async () => {
    const { writer: fd, read, drop } = pipe(flags);
    const writers = ['a', 'b'].map((name) => ({ name, writer: new LineWriter(fd, () => {}) }));
    let seen = '';
    const count = 2_000;
    for (let n = 0; n < count; n++) {
      for (const { name, writer } of writers) writer.write(`${name} ${n} ${name.repeat(n % 200)}.\n`);
      if (n % 50 === 0) {
        await turn();
        seen += read();
      }
    }
    await until(() => {
      seen += read();
      return seen.split('\n').length === 2 * count + 1;
    });
    drop();
    for (const name of ['a', 'b']) {
      const lines = seen.split('\n').filter((line) => line.startsWith(name));
      expect(lines).toEqual(Array.from({ length: count }, (_, n) => `${name} ${n} ${name.repeat(n % 200)}.`));
    }
  });

  test('whose reader stops costs lines, and tells how many once it reads on', async () => {
    const { writer: fd, read, drop } = pipe(flags);
    const told: number[] = [];
    const writer = new LineWriter(fd, (lines, error) => {
      expect(error).toBeNull();
      told.push(lines);
    });
    const count = 30_000;
    for (let n = 0; n < count; n++) {
      writer.write(`${n} ${'x'.repeat(493)}\n`);
      if (n % 1_000 === 0) await turn();
    }
    let seen = '';
    await until(() => {
      for (let part = read(); part !== ''; part = read()) seen += part;
      return seen.split('\n').length - 1 + (told[0] ?? 0) === count;
    });
    drop();
    const lines = seen.split('\n').slice(0, -1);
    // 8 MiB and what the pipe itself holds.
    expect(Buffer.byteLength(seen)).toBeLessThan(9 * 1024 * 1024);
    const numbers = lines.map((line) => Number(/^(\d+) x{493}$/.exec(line)?.[1] ?? Number.NaN));
    expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
  });
});

test('an output without a reader gets no more, and ends nothing', async () => {
  const { writer: fd, drop } = pipe(constants.O_WRONLY);
  const writer = new LineWriter(fd, () => expect.unreachable());
  drop();
  for (let n = 0; n < 10; n++) {
    writer.write('nobody reads this\n');
    await sleep(5);
  }
  writer.end();
});

describe('the log of a program', () => {
  const log = new URL('../../../src/telemetry/log.ts', import.meta.url).href;
  const program = (end: string) => `
    const { createLog } = await import(${JSON.stringify(log)});
    const { log } = createLog({ level: 'info', format: 'json' });
    for (let n = 0; n < 100; n++) log.info({ n, text: 'x'.repeat(200) }, 'words');
    ${end}`;
  const run = (text: string, output: 'pipe' | number) =>
    spawnSync(process.execPath, ['--input-type=module', '-e', text], {
      encoding: 'utf8',
      stdio: ['ignore', output, 'pipe'],
      timeout: 20_000,
    });

  test.each([
    '',
    'process.exit(0);',
    'await new Promise(setImmediate); log.info({ n: 100 }, "more"); process.exit(0);',
  ])('has its last words, whichever way it ends: %s', (end) => {
    const numbers = run(program(end), 'pipe')
      .stdout.trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { n: number }).n);
    // Another thread may still write the first of them while the process writes the last.
    const count = end.includes('more') ? 101 : 100;
    expect(numbers.sort((one, other) => one - other)).toEqual(Array.from({ length: count }, (_, n) => n));
  });

  const again = `
      const { setTimeout: sleep } = await import('node:timers/promises');
      for (let n = 0; n < 5; n++) { log.info('again'); await sleep(20); }`;
  const served = "process.stderr.write('served on');";

  test.runIf(process.platform === 'linux').each([
    { after: 'errors were seen', end: `${again} ${served}` },
    { after: 'errors were seen, by process.exit', end: `${again} ${served} process.exit(0);` },
    { after: 'the first write is under way', end: served },
    { after: 'the first write is under way, by process.exit', end: `${served} process.exit(0);` },
  ])('that cannot be written to (a full disk) does not end it, nor hold it up: its end after $after', ({ end }) => {
    const { status, stderr } = run(program(end), opened('/dev/full', 'w'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: 'served on' });
  });

  test.each(['', 'process.exit(0);'])('whose reader is gone does not hold it up at its end: %s', (exit) => {
    const { writer, drop } = pipe(constants.O_WRONLY);
    drop();
    const { status, stderr } = run(program(`${served} ${exit}`), writer);
    expect({ status, stderr }).toEqual({ status: 0, stderr: 'served on' });
  });
});
