import { mkdirSync, rmSync } from 'node:fs';
import type { Agent } from 'node:http';
import { join } from 'node:path';
import { type Image, layOut } from '../content.ts';
import { connectionsTo, type Got } from '../get.ts';
import { type Link, startLink } from '../link.ts';
import { fetchOnce } from '../load.ts';
import { type Bench, gateway, Origin, type Peer } from '../peers.ts';
import { CLIENT_CORE } from '../process.ts';
import { imagePaths, MiB, url } from './stage.ts';

/** What cold scenarios fetch where one blob is all they are about. */
export const BLOB = 256 * MiB;

/**
 * The link to the upstream, ms and bytes a second: a registry in the same country, a fast leased line. Without one, the first byte would be
 * a race on loopback, and the last would tell who hashes and encrypts on which core, not what a pull waits for.
 */
export const LINK = { roundTrip: 20, rate: 100 * MiB, words: 'upstream 20 ms away at 100 MiB/s' } as const;

/** Layers of another image that is pulled first: the blob is cold, not the program, which in use has run for weeks. */
const BEFORE = Array.from({ length: 60 }, () => MiB);

/** An upstream with an image that nobody has pulled, and one to be pulled before. */
export interface ColdOrigin {
  readonly origin: Origin;
  readonly image: Image;
  readonly before: Image;
}

/** @param layers bytes of each layer of the image */
export async function withOrigin<T>(
  bench: Bench,
  layers: readonly number[],
  work: (cold: ColdOrigin) => Promise<T>,
): Promise<T> {
  mkdirSync(bench.dir, { recursive: true });
  const root = join(bench.dir, 'origin');
  const image = layOut(root, 'library/cold', 'v1', layers);
  const before = layOut(root, 'library/before', 'v1', BEFORE);
  const origin = await Origin.start(bench, root, CLIENT_CORE);
  try {
    return await work({ origin, image, before });
  } finally {
    await origin.server.stop();
    rmSync(root, { recursive: true });
  }
}

/** The same behind the link. */
export function withLink<T>(
  bench: Bench,
  layers: readonly number[],
  work: (cold: ColdOrigin & { readonly link: Link }) => Promise<T>,
): Promise<T> {
  return withOrigin(bench, layers, async (cold) => {
    const link = await startLink(cold.origin.port, LINK.roundTrip, LINK.rate);
    try {
      return await work({ ...cold, link });
    } finally {
      await link.stop();
    }
  });
}

/** A cold server: started on an empty directory, asked, stopped, wiped. */
export async function cold<T>(
  bench: Bench,
  start: () => Promise<Peer>,
  directories: readonly string[],
  measure: (peer: Peer) => Promise<T>,
): Promise<T> {
  const peer = await start();
  try {
    return await measure(peer);
  } finally {
    await peer.stop();
    for (const directory of directories) rmSync(join(bench.dir, directory), { recursive: true, force: true });
  }
}

/** Where a path relative to `/v2/` is fetched. */
export type At = (path: string) => string;

/** A cold gateway of one process over the link. */
export function coldGateway<T>(bench: Bench, { url: link }: Link, measure: (at: At) => Promise<T>): Promise<T> {
  const start = (): Promise<Peer> => gateway(bench, 'gateway', link);
  return cold(bench, start, ['gateway'], (peer) => measure((path) => url(peer, path)));
}

/** Past every cache, over the link alone: plain HTTP. */
export function straight({ url: link }: Link): At {
  return (path) => `${link}/v2/${path}`;
}

/** The manifest of an image and its configuration, as every pull begins. */
export function beginning(image: Image): string[] {
  const [manifest = ''] = imagePaths(image);
  return [manifest, `${image.repository}/blobs/${image.configDigest}`];
}

/** The paths one after the other, on one connection of the agent. Returns what the last took. */
export async function inOrder(at: At, paths: readonly string[], agent: Agent): Promise<Got> {
  let got: Got | undefined;
  for (const path of paths) got = await fetchOnce(at(path), agent);
  if (got === undefined) throw new Error('nothing was to be fetched');
  return got;
}

/** The same, on a connection of their own. */
export async function withOneConnection(at: At, paths: readonly string[]): Promise<Got> {
  const agent = connectionsTo(at(''), 1);
  try {
    return await inOrder(at, paths, agent);
  } finally {
    agent.destroy();
  }
}
