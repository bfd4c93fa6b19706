import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectionsTo, get } from '../get.ts';
import type { Origin } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { sequence } from '../sequence.ts';
import { type At, beginning, coldGateway, inOrder, LINK, straight, withLink } from './cold-stage.ts';
import { imagePaths, MiB } from './stage.ts';

const SIZE = 1024 * MiB;
/** Within which the upstream has seen that a connection has ended, ms. */
const SETTLED = 500;

/** Bytes `[from, to)` that a client wants. */
interface Part {
  readonly from: number;
  readonly to: number;
}

interface Storm {
  readonly client: string;
  readonly parts: readonly Part[];
  readonly atOnce: number;
  /** It asks for all that follows (`bytes=N-`), and leaves once it has its part. */
  readonly openEnded?: true;
  /** Bytes from upstream at most, as a multiple of what is asked for. */
  readonly bound: number;
}

/** As SOCI reads files out of layers that it has not pulled: all over the blob, no two in order. */
function smallOnes(count: number, size: number): Part[] {
  const next = sequence(1);
  return Array.from({ length: count }, () => {
    const from = Math.floor(next() * (SIZE - size));
    return { from, to: from + size };
  });
}

function pieces(size: number): Part[] {
  return Array.from({ length: SIZE / size }, (_, index) => ({ from: index * size, to: (index + 1) * size }));
}

const STORMS: readonly Storm[] = [
  {
    client: 'containerd, 8 MiB at a time by open-ended ranges, 20 at once',
    parts: pieces(8 * MiB),
    atOnce: 20,
    openEnded: true,
    bound: 1.05,
  },
  { client: 'ollama, 16 parts at once', parts: pieces(SIZE / 16), atOnce: 16, bound: 1.05 },
  { client: 'SOCI, 500 of 64 KiB, 10 at once', parts: smallOnes(500, 64 * 1024), atOnce: 10, bound: 2 },
];

/** 13: a cold blob of 1 GiB asked for in parts: what that costs the upstream, and how long it takes against the same straight. */
export const rangeStorms: Scenario = (bench, { runs }) =>
  withLink(bench, [SIZE], async ({ origin, image, before, link }) => {
    const [layer] = image.layers;
    if (layer === undefined) throw new Error('the image has no layer');
    const path = `${image.repository}/blobs/${layer.digest}`;
    const first = [...imagePaths(before), ...beginning(image)];
    const results: Result[] = [];
    for (const storm of STORMS) {
      const digests = storm.parts.map(({ from, to }) => sha256(layer.read(from, to)));
      const shares: number[] = [];
      const ours: number[] = [];
      const direct: number[] = [];
      for (let run = 0; run < runs; run++) {
        // Straight nothing is asked for beyond the parts: what a client leaves of an answer would keep the link busy.
        const { openEnded: _, ...exact } = storm;
        direct.push(await withConnections(straight(link), first, path, exact, digests));
        const sent = await settled(origin, layer.digest);
        ours.push(await coldGateway(bench, link, (at) => withConnections(at, first, path, storm, digests)));
        shares.push(((await settled(origin, layer.digest)) - sent) / bytesOf(storm.parts));
      }
      const scenario = `13  cold 1 GiB blob in parts, ${LINK.words}: ${storm.client}`;
      results.push(
        {
          scenario,
          figure: 'bytes from upstream',
          unit: '× what was asked for',
          better: 'less',
          ours: { peer: 'gateway', values: shares },
          peers: [],
          bound: storm.bound,
        },
        {
          scenario,
          figure: 'time until the client has all',
          unit: 's',
          better: 'less',
          ours: { peer: 'gateway', values: ours },
          peers: [{ series: { peer: 'straight over the link', values: direct }, goal: 1 / 1.1 }],
        },
      );
    }
    return results;
  });

function bytesOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { from, to }) => sum + to - from, 0);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What the upstream has sent of the blob, once it has noted all of it: it does when a connection has ended. */
async function settled(origin: Origin, digest: string): Promise<number> {
  for (let before = Number.NaN; ; ) {
    const sent = origin.bytes(digest);
    if (sent === before) return sent;
    before = sent;
    await sleep(SETTLED);
  }
}

/**
 * The time that a client takes for the parts, s. What comes before is not counted.
 * @param digests of the parts
 * @throws where a part is not answered with 206 and the blob's own bytes
 */
async function withConnections(
  at: At,
  before: readonly string[],
  path: string,
  { parts, atOnce, openEnded }: Omit<Storm, 'client' | 'bound'>,
  digests: readonly string[],
): Promise<number> {
  const agent = connectionsTo(at(''), atOnce);
  try {
    await inOrder(at, before, agent);
    const started = performance.now();
    const waiting = [...parts.entries()];
    const lane = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [index, { from, to }] = next;
        const range = `bytes=${from}-${openEnded ? '' : to - 1}`;
        const hash = createHash('sha256');
        const onChunk = (chunk: Buffer): void => void hash.update(chunk);
        // Whoever named the end keeps the connection; whoever did not can only leave.
        const take = openEnded ? { take: to - from } : {};
        const { status, bytes } = await get(at(path), { agent, headers: { range }, onChunk, ...take });
        if (status !== 206 || bytes !== to - from || hash.digest('hex') !== digests[index]) {
          throw new Error(`${range}: ${status} with ${bytes} bytes, or wrong ones`);
        }
      }
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
    return (performance.now() - started) / 1000;
  } finally {
    agent.destroy();
  }
}
