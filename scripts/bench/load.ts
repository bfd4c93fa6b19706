import { Agent as PlainAgent, request as plainRequest } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { cpus } from 'node:os';
import { command } from './process.ts';

/** What Docker and containerd accept, in short; docker-registry hides an OCI manifest from whoever does not name its type. */
const ACCEPT = 'application/vnd.oci.image.manifest.v1+json, */*';

/**
 * wrk's own count over `seconds`: requests and body-and-header bytes a second; `busy` is the share of one core that wrk itself used.
 * `cpus`: the cores that it may run on, the client's by default.
 * @throws where any answer was no 2xx, or a socket failed.
 */
export async function wrk(
  url: string,
  connections: number,
  seconds: number,
  options: { readonly cpus?: string } = {},
): Promise<{ requests: number; bytes: number; busy: number }> {
  // `times` prints what the shell, then what its children have used: user and system.
  const load = ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '60s', '-H', `Accept: ${ACCEPT}`, url];
  const output = await command('sh', ['-c', '"$@" && times', 'sh', ...load], options);
  if (/Non-2xx|Socket errors/.test(output)) throw new Error(`wrk met failures at ${url}:\n${output}`);
  const requests = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]);
  const [, amount, unit] = /Transfer\/sec:\s+([\d.]+)(\w+)/.exec(output) ?? [];
  const scale = { B: 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }[unit ?? ''];
  if (!Number.isFinite(requests) || scale === undefined) throw new Error(`wrk printed something new:\n${output}`);
  const used = [...(output.trim().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)];
  const busy = used.reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0) / seconds;
  return { requests, bytes: Number(amount) * scale, busy };
}

export interface Fetched {
  readonly bytes: number;
  /** Seconds from the request to the first body byte, and to the last. */
  readonly first: number;
  readonly last: number;
}

/** Connections of one client, kept alive between its requests. */
export function keepAlive(url: string): PlainAgent {
  return url.startsWith('https:') ? new TlsAgent({ keepAlive: true }) : new PlainAgent({ keepAlive: true });
}

/** One GET to its last byte. The body is counted and thrown away. @throws where the answer is no 200 or shorter than announced. */
export function fetchOnce(url: string, agent?: PlainAgent): Promise<Fetched> {
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  return new Promise((resolve, reject) => {
    const secure = url.startsWith('https:');
    const request = secure
      ? tlsRequest(url, {
          headers: { accept: ACCEPT },
          rejectUnauthorized: false,
          ...(agent === undefined ? {} : { agent }),
        })
      : plainRequest(url, { headers: { accept: ACCEPT }, ...(agent === undefined ? {} : { agent }) });
    request.once('error', reject);
    request.once('response', (response) => {
      let bytes = 0;
      let first = 0;
      response.on('data', (chunk: Buffer) => {
        if (bytes === 0) first = since();
        bytes += chunk.length;
      });
      response.once('error', reject);
      response.once('close', () => {
        if (response.statusCode !== 200 || !response.complete)
          reject(new Error(`${url}: ${response.statusCode}, ${bytes} bytes`));
        else resolve({ bytes, first, last: since() });
      });
    });
    request.end();
  });
}

/**
 * One client: curl, which spends half of what a program on Node spends on a byte, so that twenty of them on one core are not what is measured.
 * Fetches the URLs, `atOnce` at a time, each whole. @throws where one is no 200 or shorter than announced.
 */
async function curl(urls: readonly string[], atOnce: number): Promise<void> {
  const flags = ['-sS', '--fail', '--insecure', '--http1.1', '-H', `Accept: ${ACCEPT}`];
  const parallel = atOnce > 1 ? ['--parallel', '--parallel-max', String(atOnce)] : [];
  await command('curl', [...flags, ...parallel, ...urls.flatMap((url) => ['-o', '/dev/null', url])]);
}

/** Each of `clients` fetches the URL, all at once. Returns seconds until the last has all of it. */
export async function crowd(clients: number, url: string): Promise<number> {
  const started = performance.now();
  await Promise.all(Array.from({ length: clients }, () => curl([url], 1)));
  return (performance.now() - started) / 1000;
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
