import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { OperatorError } from '../kit/operator-error.ts';
import { createDashboard, type DashboardOptions } from './app.ts';

/** 192 bits: nobody guesses it while the command runs. */
const TOKEN_BYTES = 24;

export interface RunningDashboard {
  /** With the token: for the operator's eyes alone. */
  readonly url: string;
  close(): Promise<void>;
}

/** Serves the operator's view on loopback. @param port 0 picks a free one @throws {OperatorError} LISTEN_FAILED */
export async function serveDashboard(
  options: Pick<DashboardOptions, 'read' | 'every'> & { readonly port: number },
): Promise<RunningDashboard> {
  const token = randomBytes(TOKEN_BYTES).toString('base64url');
  const { port: wanted, ...rest } = options;
  const server = createServer();
  const port = () => (server.address() as AddressInfo | null)?.port ?? 0;
  const app = createDashboard({ ...rest, token, port });
  server.on('request', getRequestListener(app.fetch, { overrideGlobalObjects: false }));
  server.listen(wanted, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new OperatorError('LISTEN_FAILED', `cannot listen on 127.0.0.1:${wanted}: ${(cause as Error).message}`, {
      next: 'choose another port, or none: a free one is taken then',
      cause,
    });
  }
  return {
    url: `http://127.0.0.1:${port()}/?token=${token}`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
