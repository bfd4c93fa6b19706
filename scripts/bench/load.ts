import type { Agent } from 'node:http';
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Got, get } from './get.ts';
import { command } from './process.ts';
import { HeldClient, inSlices, type Loaded, type Slice, slice } from './slices.ts';
import { warmUp } from './warm-up.ts';

/** What Docker and containerd accept, in short; docker-registry hides an OCI manifest from whoever does not name its type. */
const ACCEPT = 'application/vnd.oci.image.manifest.v1+json, */*';

/** Of a server that keeps its client waiting until it has the whole of a large blob, ms. */
const SLOW = 120_000;

/** An hour: longer than any run. */
const ENDLESS = 3_600;

/**
 * ms: what another server has left in the caches is a small part of it, and a round of four is over before one that waits takes itself for
 * idle.
 */
const SLICE = 500;

function wrkOf(url: string, connections: number, seconds: number): string[] {
  return ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '60s', '-H', `Accept: ${ACCEPT}`, url];
}

interface Counted {
  readonly requests: number;
  /** Of all answers, headers too. */
  readonly bytes: number;
  /** Seconds that wrk ran. */
  readonly seconds: number;
}

/** @throws where any answer was no 2xx, or a socket failed. One that was held still for long counts timeouts. */
function readWrk(output: string, url: string): Counted {
  if (/Non-2xx|Socket errors: (?!connect 0, read 0, write 0)/.test(output))
    throw new Error(`wrk met failures at ${url}:\n${output}`);
  const [, requests, time, timeUnit, amount, unit] =
    /(\d+) requests in ([\d.]+)(ms|s|m|h), ([\d.]+)(\w+) read/.exec(output) ?? [];
  const scale = { B: 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }[unit ?? ''];
  const second = { ms: 0.001, s: 1, m: 60, h: 3_600 }[timeUnit ?? ''];
  if (scale === undefined || second === undefined) throw new Error(`wrk printed something new:\n${output}`);
  return { requests: Number(requests), bytes: Number(amount) * scale, seconds: Number(time) * second };
}

/**
 * wrk over `seconds`: body-and-header bytes a second; `busy` is the share of one core that wrk itself used.
 * @throws where any answer was no 2xx, or a socket failed.
 */
export async function wrk(url: string, connections: number, seconds: number): Promise<{ bytes: number; busy: number }> {
  const load = wrkOf(url, connections, seconds);
  const output = await command('sh', ['-c', '"$@" && times', 'sh', ...load]);
  const counted = readWrk(output, url);
  return { bytes: counted.bytes / counted.seconds, busy: cpuUsed(output) / counted.seconds };
}

/**
 * Small answers of several servers, each loaded by a wrk of its own in slices of a fraction of a second. wrk counts only at its end, so a
 * slice's units are the bytes that it read; `units`: how many of them are one request, for each server.
 */
export async function wrkInSlices(
  servers: readonly { readonly url: string; readonly cpu: () => number }[],
  connections: number,
  seconds: number,
): Promise<{ readonly slices: Slice[][]; readonly units: number[] }> {
  const loads: (Loaded & { readonly url: string })[] = [];
  for (const { url, cpu } of servers) {
    const client = new HeldClient(...wrkOf(url, connections, ENDLESS));
    // It connects.
    await sleep(500);
    client.hold();
    loads.push({ client, url, cpu, done: () => client.read });
  }
  await warmUp(loads, (load) => slice(load, 1_000));
  const slices = await inSlices(loads, seconds, SLICE);
  const units: number[] = [];
  for (const { client, url } of loads) {
    const { read } = client;
    units.push(read / readWrk(await client.end(), url).requests);
  }
  return { slices, units };
}

export interface Downloaded {
  /** From the start of the clients to the last byte, s. */
  readonly seconds: number;
  /** Body and header bytes a second, while they ran. */
  readonly rate: number;
  /** The share of one core that the clients used. */
  readonly busy: number;
}

/**
 * So many clients, a connection each, that fetch the URL so many times in all: h2load over HTTP/1.1. For large bodies, where wrk and curl
 * spend more on a byte than the fastest of the servers does, so that they were what was measured.
 * @throws where any answer was no 200, or a connection failed.
 */
export async function download(url: string, clients: number, times: number): Promise<Downloaded> {
  const load = ['h2load', '--h1', '-t1', `-c${clients}`, `-n${times}`, '-H', `Accept: ${ACCEPT}`, url];
  const started = performance.now();
  const output = await command('sh', ['-c', '"$@" && times', 'sh', ...load]);
  const seconds = (performance.now() - started) / 1000;
  if (!output.includes(`status codes: ${times} 2xx`) || !output.includes(` ${times} succeeded`))
    throw new Error(`h2load met failures at ${url}:\n${output}`);
  const [, took, unit] = /finished in ([\d.]+)(ms|s),/.exec(output) ?? [];
  const bytes = Number(/traffic: [^(]*\((\d+)\) total/.exec(output)?.[1]);
  const ran = Number(took) / (unit === 'ms' ? 1000 : 1);
  if (!(ran > 0) || !(bytes > 0)) throw new Error(`h2load printed something new:\n${output}`);
  return { seconds, rate: bytes / ran, busy: cpuUsed(output) / seconds };
}

/** CPU seconds of a shell's children, by the last line of what `times` prints: user and system. */
function cpuUsed(output: string): number {
  const used = [...(output.trim().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)];
  return used.reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0);
}

/** One GET to its last byte. The body is counted and thrown away. @throws where the answer is no 200 or shorter than announced. */
export async function fetchOnce(url: string, agent?: Agent): Promise<Got> {
  const got = await get(url, { headers: { accept: ACCEPT }, timeout: SLOW, ...(agent === undefined ? {} : { agent }) });
  if (got.status !== 200) throw new Error(`${url}: ${got.status}, ${got.bytes} bytes`);
  return got;
}

/**
 * One client: curl, which spends half of what a program on Node spends on a byte, so that less of what is measured is them.
 * Fetches the URLs, `atOnce` at a time, each whole. @throws where one is no 200 or shorter than announced.
 */
async function curl(urls: readonly string[], atOnce: number): Promise<void> {
  const flags = ['-sS', '--fail', '--insecure', '--http1.1', '-H', `Accept: ${ACCEPT}`];
  const parallel = atOnce > 1 ? ['--parallel', '--parallel-max', String(atOnce)] : [];
  await command('curl', [...flags, ...parallel, ...urls.flatMap((url) => ['-o', '/dev/null', url])]);
}

/** Each of `clients` pulls an image, all at once: the manifest, then its blobs, three at a time as Docker does. Returns seconds. */
export async function pullImage(clients: number, manifest: string, blobs: readonly string[]): Promise<number> {
  const started = performance.now();
  const pull = async (): Promise<void> => {
    await curl([manifest], 1);
    await curl(blobs, 3);
  };
  await Promise.all(Array.from({ length: clients }, pull));
  return (performance.now() - started) / 1000;
}

/** What the figures were measured on. */
export function machine(): string {
  return `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Node ${process.versions.node}`;
}
