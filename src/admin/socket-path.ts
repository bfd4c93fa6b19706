import { open } from 'node:fs/promises';
import path from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';

export const SOCKET_NAME = 'admin.sock';

/** Bytes of `sun_path` without its end (unix(7): 108 on Linux, 104 on macOS and the BSDs); longer ones cannot be bound. */
const LIMIT = process.platform === 'linux' ? 107 : 103;

export interface SocketPath {
  /** Fit for `listen` and `connect` until `close`. */
  readonly path: string;
  close(): Promise<void>;
}

/**
 * The path of `<dataDir>/admin.sock` for bind and connect. Where it is too long for the kernel, the directory is opened and
 * the socket is named through `/proc/self/fd`, so that it still lies where it should.
 */
export async function openSocketPath(dataDir: string): Promise<SocketPath> {
  const direct = path.join(dataDir, SOCKET_NAME);
  if (Buffer.byteLength(direct) <= LIMIT) return { path: direct, close: async () => {} };
  if (process.platform !== 'linux') {
    throw new OperatorError(
      'DATA_DIR_TOO_LONG',
      `the path ${direct} is longer than the ${LIMIT} bytes a socket may have`,
      {
        next: 'choose a shorter data directory: dataDir or GATEWAY_DATA_DIR',
      },
    );
  }
  const directory = await open(dataDir, 'r');
  return { path: `/proc/self/fd/${directory.fd}/${SOCKET_NAME}`, close: () => directory.close() };
}
