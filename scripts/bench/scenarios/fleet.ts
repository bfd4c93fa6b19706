import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { Node } from '../../../src/cluster/nodes.ts';
import { ownerOf } from '../../../src/cluster/rendezvous.ts';
import { parseDigest } from '../../../src/oci/names.ts';
import { Keys } from '../../../src/s3/keys.ts';
import { type FleetStage, fleetStage, lackingForFleet, type Store } from '../fleet-stage.ts';
import { connections, connectionsTo } from '../get.ts';
import { startLink } from '../link.ts';
import { fetchOnce } from '../load.ts';
import { gateway, type Peer } from '../peers.ts';
import { runOver } from '../process.ts';
import type { Result, Series } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { median } from '../stats.ts';
import { beginning, type ColdOrigin, inOrder, LINK, withLink } from './cold-stage.ts';
import { imagePaths, MiB, url } from './stage.ts';

const NODES = ['node-1', 'node-2', 'node-3'] as const;
const CLIENTS = 30;
/** Of the image that they all pull: 80 MiB, which the clients take together 30 times. */
const LAYERS = [32, 24, 12, 8, 4].map((size) => size * MiB);
const SIZE = LAYERS.reduce((sum, layer) => sum + layer, 0);
/** How long an idle fleet is watched for what it costs the database, ms. */
const IDLE = 20_000;
/** Until what was pulled is in the store, ms. */
const STORED_WITHIN = 30_000;

/** fleet: three nodes against one, over one link to the upstream; and a node with an empty disk against the store. */
export const fleet: Scenario = async (bench, { runs }) => {
  const lacking = lackingForFleet();
  if (lacking.length > 0) {
    console.error(`scenario fleet is skipped: this machine lacks ${lacking.join(', ')}`);
    return [];
  }
  return withLink(bench, LAYERS, async (cold) => {
    const found = new Findings();
    for (let run = 0; run < runs; run++) {
      const one = await gateway(bench, `single-${run}`, cold.link.url);
      found.addAlone(await crowd([one], cold));
      await one.stop();
      const stage = await fleetStage({ ...bench, dir: `${bench.dir}/fleet-${run}` }, cold.link.url);
      try {
        const nodes: Peer[] = [];
        for (const name of NODES) nodes.push(await stage.node(name));
        const known = await stage.known(nodes);
        const before = await used(stage);
        const together = await crowd(nodes, cold);
        await untilStored(stage.store, cold);
        const after = await used(stage);
        found.addTogether(together, leadersOf(cold, known));
        if (run === 0) found.addCosts(before, after, await atRest(stage));
        await stage.remove(nodes);
        found.addWarm('loopback', await fromStore(stage, cold, stage.store.port));
        const link = await startLink(stage.store.port, LINK.roundTrip, LINK.rate);
        try {
          found.addWarm('link', await fromStore(stage, cold, link.port));
        } finally {
          await link.stop();
        }
      } finally {
        await stage.stop();
      }
    }
    return found.results();
  });
};

interface Crowd {
  readonly seconds: number;
  /** Of the layers, from the upstream. */
  readonly bytes: number;
  /** Seconds to the first byte: of each layer, of each node, of each of its clients. */
  readonly firsts: readonly (readonly (readonly number[])[])[];
}

/**
 * All clients evenly over the peers, and for each layer all of them at once. Another image was pulled before, and every client has its connection, as in a
 * gateway that has run for weeks.
 */
async function crowd(peers: readonly Peer[], { origin, image, before }: ColdOrigin): Promise<Crowd> {
  const clients = Array.from({ length: CLIENTS }, (_none, number) => ({
    place: number % peers.length,
    agent: connections(1),
  }));
  try {
    for (const [place, peer] of peers.entries()) {
      const agent = clients[place]?.agent;
      if (agent !== undefined) await inOrder((path) => url(peer, path), imagePaths(before), agent);
    }
    const ask = async (path: string): Promise<number[][]> => {
      const firsts = peers.map((): number[] => []);
      const one = async ({ place, agent }: (typeof clients)[number]): Promise<void> => {
        const peer = peers[place];
        if (peer !== undefined) firsts[place]?.push((await fetchOnce(url(peer, path), agent)).first);
      };
      await Promise.all(clients.map(one));
      return firsts;
    };
    for (const path of beginning(image)) await ask(path);
    const digests = image.layers.map(({ digest }) => digest);
    const bytesNow = (): number => digests.reduce((sum, digest) => sum + origin.bytes(digest), 0);
    const had = bytesNow();
    const started = performance.now();
    const firsts: number[][][] = [];
    for (const path of imagePaths(image).slice(1)) firsts.push(await ask(path));
    const seconds = (performance.now() - started) / 1000;
    // The upstream writes its log when it has sent all.
    await sleep(500, undefined, { signal: runOver });
    return { seconds, bytes: bytesNow() - had, firsts };
  } finally {
    for (const { agent } of clients) agent.destroy();
  }
}

/** Of each layer: the place of the node whose it is, by its digest. */
function leadersOf({ image }: ColdOrigin, known: readonly Node[]): number[] {
  return image.layers.map((layer) => {
    const owner = ownerOf(known, digestOf(layer.digest));
    return owner === null ? -1 : known.indexOf(owner);
  });
}

function digestOf(text: string) {
  const digest = parseDigest(text);
  if (digest === null) throw new Error(`${text} is no digest`);
  return digest;
}

async function untilStored(store: Store, { image }: ColdOrigin): Promise<void> {
  const deadline = Date.now() + STORED_WITHIN;
  const lacks = (): string[] =>
    image.layers
      .filter(({ digest }, index) => !store.has(new Keys(null).of(digestOf(digest)), LAYERS[index] ?? 0))
      .map(({ digest }) => digest);
  while (lacks().length > 0) {
    if (Date.now() > deadline) throw new Error(`the store did not get ${lacks().join(', ')}`);
    await sleep(50, undefined, { signal: runOver });
  }
}

/** Seconds for all layers, one after the other on one connection: by a node that has nothing, and straight from the store by the same way. */
interface Warm {
  readonly node: number;
  readonly store: number;
}

async function fromStore(stage: FleetStage, { image, before }: ColdOrigin, port: number): Promise<Warm> {
  const node = await stage.node('empty', port);
  const agent = connections(1);
  const straight = connectionsTo('http:', 1);
  const { bucket, keys } = stage.store;
  const client = new S3Client({
    ...{ endpoint: `http://127.0.0.1:${port}`, region: 'us-east-1', forcePathStyle: true },
    credentials: { accessKeyId: keys.AWS_ACCESS_KEY_ID, secretAccessKey: keys.AWS_SECRET_ACCESS_KEY },
  });
  try {
    // As many as warm a program up.
    await inOrder((at) => url(node, at), [...imagePaths(before).slice(0, 20), ...beginning(image)], agent);
    const signed: string[] = [];
    for (const { digest } of [...before.layers.slice(0, 20), ...image.layers]) {
      const asked = new GetObjectCommand({ Bucket: bucket, Key: new Keys(null).of(digestOf(digest)) });
      signed.push(await getSignedUrl(client, asked, { expiresIn: 600 }));
    }
    for (const other of signed.splice(0, 20)) await fetchOnce(other, straight);
    const seconds = { node: 0, store: 0 };
    for (const [index, path] of imagePaths(image).slice(1).entries()) {
      seconds.node += (await fetchOnce(url(node, path), agent)).last;
      seconds.store += (await fetchOnce(signed[index] ?? '', straight)).last;
    }
    return seconds;
  } finally {
    client.destroy();
    for (const one of [agent, straight]) one.destroy();
    await stage.remove([node]);
  }
}

/** What was asked of those that the nodes share, since their start. */
interface Used {
  readonly at: number;
  readonly transactions: number;
  readonly requests: number;
}

async function used({ postgres, database, store }: FleetStage): Promise<Used> {
  const name = new URL(database).pathname.slice(1);
  const [transactions] = await postgres.query(
    `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '${name}'`,
  );
  const log = existsSync(store.accessLog) ? readFileSync(store.accessLog, 'utf8') : '';
  return { at: Date.now(), transactions: Number(transactions), requests: log.split('\n').length - 1 };
}

/** Of nodes that do nothing. */
interface Rest {
  /** A second, of all. */
  readonly transactions: number;
  /** A second, of all. */
  readonly requests: number;
  /** Of all. */
  readonly connections: number;
}

async function atRest(stage: FleetStage): Promise<Rest> {
  const before = await used(stage);
  await sleep(IDLE, undefined, { signal: runOver });
  const after = await used(stage);
  const seconds = (after.at - before.at) / 1000;
  const name = new URL(stage.database).pathname.slice(1);
  const [held] = await stage.postgres.query(`SELECT numbackends FROM pg_stat_database WHERE datname = '${name}'`);
  return {
    transactions: (after.transactions - before.transactions) / seconds,
    requests: (after.requests - before.requests) / seconds,
    connections: Number(held),
  };
}

/** What the runs have shown, a value a run. */
class Findings {
  readonly #seconds = { one: [] as number[], three: [] as number[] };
  readonly #bytes = { one: [] as number[], three: [] as number[] };
  readonly #firsts = { one: [] as number[], leader: [] as number[], followers: [] as number[] };
  readonly #warm = { loopback: [] as Warm[], link: [] as Warm[] };
  readonly #costs: Result[] = [];

  addAlone({ seconds, bytes, firsts }: Crowd): void {
    this.#seconds.one.push(seconds);
    this.#bytes.one.push(bytes / SIZE);
    this.#firsts.one.push(mean(firsts.map((nodes) => median(nodes.flat()))));
  }

  addTogether({ seconds, bytes, firsts }: Crowd, leaders: readonly number[]): void {
    this.#seconds.three.push(seconds);
    this.#bytes.three.push(bytes / SIZE);
    const of = (leads: boolean): number =>
      mean(
        firsts.map((nodes, layer) =>
          median(nodes.filter((_firsts, place) => (place === leaders[layer]) === leads).flat()),
        ),
      );
    this.#firsts.leader.push(of(true));
    this.#firsts.followers.push(of(false));
  }

  addWarm(way: 'loopback' | 'link', warm: Warm): void {
    this.#warm[way].push(warm);
  }

  addCosts(before: Used, after: Used, rest: Rest): void {
    const seconds = (after.at - before.at) / 1000;
    const figure = (scenario: string, figure: string, value: number): Result => ({
      ...{ scenario, figure, unit: 'once', better: 'less', peers: [] },
      ours: { peer: 'three nodes', values: [value] },
    });
    const resting = `fleet  three nodes at rest, over ${IDLE / 1000} s`;
    const pulled = `fleet  two cold images, ${LAYERS.length} and 60 layers, pulled through each of three nodes`;
    this.#costs.push(
      figure(resting, 'transactions a second and node', rest.transactions / NODES.length),
      figure(resting, 'connections to the database a node', rest.connections / NODES.length),
      figure(resting, 'requests to the store', rest.requests * (IDLE / 1000)),
      figure(pulled, 'transactions', after.transactions - before.transactions - rest.transactions * seconds),
      figure(pulled, 'requests to the store', after.requests - before.requests - rest.requests * seconds),
    );
  }

  results(): Result[] {
    const scenario = `fleet  cold image of ${SIZE / MiB} MiB by ${CLIENTS} clients over three nodes, ${LINK.words}`;
    const alone = (values: readonly number[]): Series => ({ peer: 'one gateway', values });
    const warm = (way: 'loopback' | 'link', words: string): Result => ({
      scenario: `fleet  ${SIZE / MiB} MiB that only the store has, by a node with an empty disk, ${words}`,
      ...{ figure: 'time', unit: 's', better: 'less' },
      ours: { peer: 'node', values: this.#warm[way].map(({ node }) => node) },
      peers: [
        {
          series: { peer: 'straight from the store', values: this.#warm[way].map(({ store }) => store) },
          goal: 1 / 1.2,
        },
      ],
    });
    return [
      {
        ...{ scenario, figure: 'upstream bytes over bytes of the image', unit: '×', better: 'less', bound: 1.001 },
        ours: { peer: 'three nodes', values: this.#bytes.three },
        peers: [{ series: alone(this.#bytes.one) }],
      },
      {
        ...{ scenario, figure: "a layer's first byte, median of clients", unit: 's', better: 'less' },
        ours: { peer: 'at its followers', values: this.#firsts.followers },
        peers: [
          { series: { peer: 'at its leader', values: this.#firsts.leader }, goal: 1 / 1.3 },
          { series: alone(this.#firsts.one) },
        ],
      },
      {
        ...{ scenario, figure: 'time until all clients have all of it', unit: 's', better: 'less' },
        ours: { peer: 'three nodes', values: this.#seconds.three },
        peers: [{ series: alone(this.#seconds.one) }],
        note: 'the nodes share one core with each other; the database, the store, the upstream and the clients the other',
      },
      warm('link', `the store ${LINK.words.replace('upstream ', '')}`),
      warm('loopback', 'both on loopback'),
      ...this.#costs,
    ];
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
