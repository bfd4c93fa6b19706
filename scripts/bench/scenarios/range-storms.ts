import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FakeRegistry, generated } from '../../../test/support/fake-registry/index.ts';
import { connections, get } from '../get.ts';
import { gateway, type Peer } from '../peers.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { sequence } from '../sequence.ts';
import { MiB, url } from './stage.ts';

const SIZE = 256 * MiB;
const REPOSITORY = 'library/storm';

/** A part that a client asks for, and how much of it it reads before it leaves; all of it where nothing is said. */
interface Part {
  readonly from: number;
  /** Left out: to the end. */
  readonly to?: number;
  readonly take: number;
}

interface Storm {
  readonly client: string;
  readonly parts: readonly Part[];
  readonly atOnce: number;
  /** Bytes from upstream at most, as a multiple of what is asked for. */
  readonly bound: number;
}

function pieces(size: number): Part[] {
  return Array.from({ length: SIZE / size }, (_, index) => ({
    from: index * size,
    to: (index + 1) * size,
    take: size,
  }));
}

/** As SOCI reads files out of layers that it has not pulled: all over the blob, no two in order. */
function smallOnes(count: number, size: number): Part[] {
  const next = sequence(1);
  return Array.from({ length: count }, () => {
    const from = Math.floor(next() * (SIZE - size));
    return { from, to: from + size, take: size };
  });
}

const STORMS: readonly Storm[] = [
  {
    client: 'containerd, 8 MiB at a time by open-ended ranges, 20 at once',
    parts: pieces(8 * MiB).map(({ from, take }) => ({ from, take })),
    atOnce: 20,
    bound: 1.05,
  },
  { client: 'ollama, 16 parts at once', parts: pieces(SIZE / 16), atOnce: 16, bound: 1.05 },
  { client: 'SOCI, 500 of 64 KiB, 10 at once', parts: smallOnes(500, 64 * 1024), atOnce: 10, bound: 2 },
];

/** 13: a cold blob of 256 MiB asked for in parts: what that costs the upstream. */
export const rangeStorms: Scenario = async (bench, { runs }) => {
  mkdirSync(bench.dir, { recursive: true });
  const fake = await FakeRegistry.start();
  const content = fake.repository(REPOSITORY).addBlob(generated(SIZE, 'storm'));
  const results: Result[] = [];
  try {
    for (const storm of STORMS) {
      const shares: number[] = [];
      const times: number[] = [];
      for (let run = 0; run < runs; run++) {
        const peer = await gateway(bench, 'gateway', fake.url);
        try {
          fake.log.clear();
          const started = performance.now();
          await download(peer, content, storm);
          times.push((performance.now() - started) / 1000);
          shares.push(fake.log.bytes({ method: 'GET', kind: 'blob' }) / askedFor(storm.parts));
        } finally {
          await peer.stop();
          rmSync(join(bench.dir, 'gateway'), { recursive: true, force: true });
        }
      }
      const scenario = `13  cold 256 MiB blob in parts: ${storm.client}`;
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
          ours: { peer: 'gateway', values: times },
          peers: [],
        },
      );
    }
    return results;
  } finally {
    await fake.close();
  }
};

function askedFor(parts: readonly Part[]): number {
  return parts.reduce((sum, { take }) => sum + take, 0);
}

/** @throws where a part is not answered with 206 and the blob's own bytes */
async function download(peer: Peer, content: ReturnType<typeof generated>, { parts, atOnce }: Storm): Promise<void> {
  const agent = connections(atOnce);
  const at = url(peer, `${REPOSITORY}/blobs/${content.digest}`);
  const waiting = [...parts];
  const client = async (): Promise<void> => {
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) {
      const { from, to, take } = part;
      const range = `bytes=${from}-${to === undefined ? '' : to - 1}`;
      const hash = createHash('sha256');
      const { status, bytes } = await get(at, {
        agent,
        headers: { range },
        take,
        onChunk: (chunk) => void hash.update(chunk),
      });
      const right = createHash('sha256').update(content.read(from, from + take));
      if (status !== 206 || bytes !== take || hash.digest('hex') !== right.digest('hex')) {
        throw new Error(`${range}: ${status} with ${bytes} bytes, or wrong ones`);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: atOnce }, client));
  } finally {
    agent.destroy();
  }
}
