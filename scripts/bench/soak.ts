import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { Agent, type RequestOptions, request } from 'node:https';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as timeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { attended } from './attended.ts';
import { type Image, layOut } from './content.ts';
import { gateway, Origin, type Peer, prepare } from './peers.ts';
import { CLIENT_CORE, freePort, runOver, type Server } from './process.ts';
import { MiB, url } from './scenarios/stage.ts';
import { sequence } from './sequence.ts';
import { median } from './stats.ts';

/**
 * `npm run soak [-- --minutes 30] [--clients 8]`: mixed pulls by tag and digest, whole blobs, ranges, clients that leave, a cache
 * smaller than what is pulled, and an upstream that restarts, with as many processes as the gateway starts by itself. Prints a line each
 * look; exits 1 where memory or descriptors grow, a process ended, or an answer was wrong.
 */
const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, clients: { type: 'string', default: '8' } },
});
const minutes = Number(values.minutes);
const clients = Number(values.clients);
const LOOKS_A_MINUTE = minutes < 10 ? 4 : 1;
if (!(minutes >= 2)) throw new RangeError('two minutes at least: less tells nothing');
const IMAGES = 12;
const LAYERS = [4 * MiB, MiB, 256 * 1024, 4096];
/** A third of what is pulled: eviction and filling never end. */
const CACHE = '24MiB';
const RESTART_MS = 20_000;
/** Down for a moment, so that pulls meet a dead upstream. */
const DOWN_MS = 1_000;
/** The first third is a warm-up, which fills caches, compiled code and pools; the last third is held against the second. */
const MEMORY_GROWTH = 1.15;
const DESCRIPTOR_GROWTH = 1.25;
/** Of all requests: the upstream is away for a twentieth of the time, and what the cache holds is served all the same. */
const FAILED_SHARE = 0.1;

interface Tally {
  whole: number;
  part: number;
  left: number;
  /** While the upstream was away: an error that says so. */
  failed: number;
  wrong: string[];
}

const tally: Tally = { whole: 0, part: 0, left: 0, failed: 0, wrong: [] };
const dir = mkdtempSync(join(tmpdir(), 'gateway-soak-'));

/** One request, whole; `leave` drops the connection once that many body bytes came. */
function ask(at: string, options: RequestOptions, leave?: number): Promise<{ status: number; body: Buffer } | null> {
  return new Promise((resolve, reject) => {
    const asked = request(at, { ...options, rejectUnauthorized: false }, (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.length;
        if (leave === undefined || size < leave) return;
        response.destroy();
        resolve(null);
      });
      response.once('error', reject);
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
    });
    asked.once('error', reject);
    asked.end();
  });
}

function digestOf(body: Buffer): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

async function client(peer: Peer, images: readonly Image[], seed: number, until: number): Promise<void> {
  const next = sequence(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  while (Date.now() < until && !runOver.aborted) {
    const image = images[Math.floor(next() * images.length)];
    const layer = image?.layers[Math.floor(next() * image.layers.length)];
    if (image === undefined || layer === undefined) throw new Error('no image');
    const at = (path: string) => url(peer, `${image.repository}/${path}`);
    const turn = next();
    try {
      if (turn < 0.3) {
        const reference = next() < 0.5 ? image.tag : image.manifestDigest;
        judge(await ask(at(`manifests/${reference}`), { agent }), image.manifestDigest);
      } else if (turn < 0.7) judge(await ask(at(`blobs/${layer.digest}`), { agent }), layer.digest);
      else if (turn < 0.85) {
        const from = Math.floor(next() * (layer.size - 1));
        const to = from + Math.floor(next() * (layer.size - from));
        const answer = await ask(at(`blobs/${layer.digest}`), { agent, headers: { range: `bytes=${from}-${to}` } });
        if (answer !== null && answer.status >= 500) tally.failed += 1;
        else if (answer?.status === 206 && answer.body.length === to - from + 1) tally.part += 1;
        else tally.wrong.push(`${answer?.status} with ${answer?.body.length} bytes for bytes=${from}-${to}`);
      } else {
        await ask(at(`blobs/${layer.digest}`), { agent: false }, Math.max(1, Math.floor(next() * layer.size)));
        tally.left += 1;
      }
    } catch {
      // The upstream broke off in the middle: the body was short and the connection ended, as it must.
      tally.failed += 1;
    }
  }
  agent.destroy();
}

function judge(answer: { status: number; body: Buffer } | null, digest: string): void {
  if (answer === null) return;
  if (answer.status >= 500) tally.failed += 1;
  else if (answer.status === 200 && digestOf(answer.body) === digest) tally.whole += 1;
  else tally.wrong.push(`${answer.status} with ${answer.body.length} bytes for ${digest}`);
}

interface Look {
  readonly processes: readonly number[];
  /** Allocated by all processes together (anonymous memory), MiB. */
  readonly memory: number;
  readonly descriptors: number;
}

function look(server: Server): Look {
  const processes = server.pids();
  const descriptors = processes.map((pid) => readdirSync(`/proc/${pid}/fd`).length);
  return {
    processes,
    memory: server.allocated(),
    descriptors: descriptors.reduce((all, count) => all + count, 0),
  };
}

/** The last third against the second. */
function growth(looks: readonly Look[], of: (look: Look) => number): number {
  const third = Math.floor(looks.length / 3);
  const part = (from: number) => median(looks.slice(from, from + third).map(of));
  return part(looks.length - third) / part(third);
}

/** A pause that ends with the run. */
function sleep(ms: number): Promise<void> {
  return timeout(ms, undefined, { signal: runOver });
}

/** Restarts the upstream until the end. Returns how often. */
async function restarts(first: Origin, start: () => Promise<Origin>, until: number): Promise<number> {
  let [origin, count] = [first, 0];
  for (; Date.now() < until - RESTART_MS; count++) {
    await sleep(RESTART_MS);
    await origin.server.stop();
    await sleep(DOWN_MS);
    origin = await start();
  }
  return count;
}

/** Looks at the gateway until the end, and prints what it sees. */
async function looks(server: Server): Promise<Look[]> {
  const seen: Look[] = [];
  line(['minute', 'processes', 'MiB', 'descriptors', 'whole', 'parts', 'left', 'failed', 'wrong']);
  for (let at = 1; at <= minutes * LOOKS_A_MINUTE; at++) {
    await sleep(60_000 / LOOKS_A_MINUTE);
    const now = look(server);
    seen.push(now);
    const { whole, part, left, failed, wrong } = tally;
    const minute = (at / LOOKS_A_MINUTE).toFixed(2);
    const counts = [now.descriptors, whole, part, left, failed, wrong.length];
    line([minute, now.processes.length, now.memory.toFixed(1), ...counts]);
  }
  return seen;
}

function line(cells: readonly (string | number)[]): void {
  console.log(cells.map((cell) => String(cell).padStart(11)).join(' '));
}

/** Prints the verdict; false where a bound was broken. */
function verdict(seen: readonly Look[]): boolean {
  const { whole, part, left, failed, wrong } = tally;
  const share = failed / Math.max(1, whole + part + left + failed);
  const memory = growth(seen, (now) => now.memory);
  const descriptors = growth(seen, (now) => now.descriptors);
  const processes = new Set(seen.map((now) => now.processes.join(' '))).size;
  const bounds: readonly (readonly [good: boolean, what: string])[] = [
    [memory <= MEMORY_GROWTH, `memory: last third / second third = ${memory.toFixed(3)}, at most ${MEMORY_GROWTH}`],
    [
      descriptors <= DESCRIPTOR_GROWTH,
      `descriptors: last third / second third = ${descriptors.toFixed(3)}, at most ${DESCRIPTOR_GROWTH}`,
    ],
    [processes === 1, `processes: ${processes === 1 ? 'the same at every look' : 'one ended and was replaced'}`],
    [share <= FAILED_SHARE, `failed: ${(100 * share).toFixed(1)} % of the requests, at most ${100 * FAILED_SHARE} %`],
    [
      wrong.length === 0,
      `wrong answers: ${wrong.length}${wrong
        .slice(0, 10)
        .map((one) => `; ${one}`)
        .join('')}`,
    ],
    [whole > 0 && part > 0, `right answers: ${whole} whole, ${part} parts`],
  ];
  for (const [good, what] of bounds) console.log(`${good ? 'held  ' : 'BROKEN'}  ${what}`);
  return bounds.every(([good]) => good);
}

async function soak(): Promise<void> {
  const bench = prepare(dir);
  const root = join(dir, 'origin');
  mkdirSync(root, { recursive: true });
  const images = Array.from({ length: IMAGES }, (_, index) => layOut(root, `library/app${index}`, 'v1', LAYERS));
  const port = await freePort();
  const start = () => Origin.start(bench, root, CLIENT_CORE, port);
  const origin = await start();
  const env = {
    GATEWAY_CACHE_MAX_SIZE: CACHE,
    GATEWAY_CACHE_TAG_TTL: '5s',
    GATEWAY_LOG_LEVEL: 'warn',
    GATEWAY_LISTEN_WORKERS: 'auto',
  };
  // On every core: as many processes as there are cores are started.
  const cpus = `0-${availableParallelism() - 1}`;
  const peer = await gateway(bench, 'gateway', origin.url, { env, cpus });
  const [server] = peer.servers;
  if (server === undefined) throw new Error('no gateway');
  const until = Date.now() + minutes * 60_000;
  const [seen, restarted] = await Promise.all([
    looks(server),
    restarts(origin, start, until),
    ...Array.from({ length: clients }, (_, index) => client(peer, images, index + 1, until)),
  ]);
  console.log(`${restarted} restarts of the upstream`);
  process.exitCode = verdict(seen) ? 0 : 1;
}

await attended(soak, () => rmSync(dir, { recursive: true, force: true }));
