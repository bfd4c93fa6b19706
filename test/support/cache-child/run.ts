import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));

export interface ChildLine {
  readonly ready?: boolean;
  /** Chunks that this process has put into its fills so far, all together. */
  readonly written?: number;
  readonly done?: boolean;
  readonly wrong?: string;
  readonly dropped?: readonly unknown[];
  readonly removed?: number;
  readonly whole?: number;
  readonly takenUp?: number;
  readonly accepts?: boolean;
  readonly kept?: number;
  readonly metrics?: string;
}

/** Starts the child; `onLine` may kill it. Resolves to what it said once it has ended. */
export function runCacheChild(
  order: object,
  options: { wrap?: readonly string[]; onLine?: (line: ChildLine, kill: () => void) => void } = {},
): Promise<{ lines: ChildLine[]; errors: string; code: number | null; signal: string | null }> {
  const [program = process.execPath, ...rest] = [
    ...(options.wrap ?? []),
    process.execPath,
    MAIN,
    JSON.stringify(order),
  ];
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: ChildLine[] = [];
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as ChildLine;
    lines.push(line);
    options.onLine?.(line, () => child.kill('SIGKILL'));
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ lines, errors, code, signal }));
  });
}
