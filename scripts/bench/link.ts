import { join } from 'node:path';
import { CLIENT_CORE, freePort, Server } from './process.ts';

/** A far upstream: what lies between it and this machine. */
export interface Link {
  /** Of the link's near end, `http://127.0.0.1:…`. */
  readonly url: string;
  readonly port: number;
  stop(): Promise<void>;
}

/** Puts a link in front of a server of this machine: `roundTrip` in ms, `rate` in bytes a second, for all its connections together. */
export async function startLink(target: number, roundTrip: number, rate: number): Promise<Link> {
  const port = await freePort();
  const server = await Server.start({
    cpus: CLIENT_CORE,
    command: process.execPath,
    args: [join(import.meta.dirname, 'link-relay.ts'), ...[port, target, roundTrip, rate].map(String)],
    port,
  });
  return { url: `http://127.0.0.1:${port}`, port, stop: () => server.stop() };
}
