import { createHash } from 'node:crypto';
import { get, type RequestOptions } from 'node:https';

export interface PulledBlob {
  readonly status: number;
  readonly bytes: number;
  /** Of what arrived. */
  readonly digest: string;
  /** Milliseconds from the request to the first and to the last byte of the body. */
  readonly firstByte: number;
  readonly total: number;
}

/** Fetches over HTTPS and hashes what comes, without keeping it. Rejects where the body is broken off. */
export function pullBlob(
  options: RequestOptions & { readonly port: number; readonly path: string; readonly ca?: string },
): Promise<PulledBlob> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', servername: 'localhost', ...options }, (response) => {
      const hash = createHash('sha256');
      let bytes = 0;
      let firstByte = 0;
      response.on('data', (chunk: Buffer) => {
        if (bytes === 0) firstByte = performance.now() - started;
        bytes += chunk.length;
        hash.update(chunk);
      });
      response.on('error', reject);
      response.on('aborted', () => reject(new Error(`broken off after ${bytes} bytes`)));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          bytes,
          digest: `sha256:${hash.digest('hex')}`,
          firstByte,
          total: performance.now() - started,
        }),
      );
    });
    request.on('error', reject);
  });
}
