import { chmod, open } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';

/** Of the admin socket, in the data directory and in the well-known ones. */
export const SOCKET_NAME = 'admin.sock';

/** The longest path of a Unix socket, bytes: `sun_path` (unix(7)) less its final zero; 108 on Linux, 104 on macOS and the BSDs. */
const MAX_SOCKET_PATH = process.platform === 'linux' ? 107 : 103;

export interface SocketPath {
  /** May be given to `listen` and `connect` until `close`. */
  readonly path: string;
  close(): Promise<void>;
}

/**
 * The path of a socket in a directory for bind and connect. Where it is too long for the kernel, the directory is opened and
 * the socket is addressed through `/proc/self/fd`, so that it is still made in the directory itself.
 */
export async function openSocketPath(directory: string, name: string = SOCKET_NAME): Promise<SocketPath> {
  const direct = path.join(directory, name);
  if (Buffer.byteLength(direct) <= MAX_SOCKET_PATH) return { path: direct, close: async () => {} };
  if (process.platform !== 'linux') {
    throw new OperatorError(
      'DATA_DIR_TOO_LONG',
      `the path ${direct} is longer than the ${MAX_SOCKET_PATH} bytes a socket may have`,
      {
        next: 'choose a shorter data directory: dataDir or GATEWAY_DATA_DIR',
      },
    );
  }
  const opened = await open(directory, 'r');
  return { path: `/proc/self/fd/${opened.fd}/${name}`, close: () => opened.close() };
}

/** Listens on a path where nothing is yet; the socket has mode 0600 from its first moment. */
export async function listenPrivately(server: net.Server, socketPath: string): Promise<void> {
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', resolve);
  });
  // `listen` binds before it returns, so nothing else is created under this mask.
  const mask = process.umask(0o177);
  try {
    server.listen({ path: socketPath });
  } finally {
    process.umask(mask);
  }
  await listening;
  await chmod(socketPath, 0o600);
}

/** False where the process that made the socket has ended, or there is no socket. */
export function isAnswered(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect({ path: socketPath });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}
