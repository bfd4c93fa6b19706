import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { troubleOf } from '../../src/s3/errors.ts';
import { S3Tier } from '../../src/s3/tier.ts';
import { digestOf } from '../support/registry-bed.ts';

const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: 'AKIATHEKEYSNAME',
  AWS_SECRET_ACCESS_KEY: 'the-secret-itself',
  AWS_SESSION_TOKEN: 'the-token-of-the-session',
};
const before = { ...process.env };
const closers: (() => void)[] = [];
beforeEach(() => {
  Object.assign(process.env, CREDENTIALS);
});
afterEach(() => {
  for (const close of closers.splice(0)) close();
  process.env = { ...before };
});

async function tierOf(answer: RequestListener): Promise<S3Tier> {
  const server = createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  const limits = { maxSize: null, redirect: false } as const;
  const tier = new S3Tier({ bucket: 'b', prefix: null, region: 'r', endpoint, pathStyle: true, ...limits });
  closers.push(() => {
    tier.close();
    server.closeAllConnections();
    server.close();
  });
  return tier;
}

/** As a log has it at any level, and as somebody sees it who prints it. */
async function failureOf(tier: S3Tier): Promise<{ readonly error: unknown; readonly shown: string }> {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(line) });
  const digest = digestOf(`sha256:${'a'.repeat(64)}`);
  const error: unknown = await tier.open(digest, { from: 0, to: 9 }, AbortSignal.timeout(20_000)).catch((e) => e);
  log.warn({ err: error }, 'failed');
  return { error, shown: `${lines.join('')}${inspect(error, { depth: 2 })}` };
}

test('what a store answers to a signature that does not match is in no log: the signed request is a part of it', async () => {
  const tier = await tierOf((request, response) => {
    const headers = Object.entries(request.headers).map(([name, value]) => `${name}:${value}`);
    response.writeHead(403, { 'content-type': 'application/xml' }).end(
      `<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature does not match.</Message>
       <AWSAccessKeyId>AKIATHEKEYSNAME</AWSAccessKeyId><CanonicalRequest>${headers.join(' ')}</CanonicalRequest></Error>`,
    );
  });
  const { error, shown } = await failureOf(tier);
  expect(troubleOf(error)).toEqual({ trouble: 'credentials', message: 'The request signature does not match.' });
  for (const secret of Object.values(CREDENTIALS)) expect(shown).not.toContain(secret);
  expect(shown).not.toContain('Signature=');
});

test('of what a store says a line is kept', async () => {
  const tier = await tierOf((_, response) => {
    response
      .writeHead(403, { 'content-type': 'application/xml' })
      .end(
        `<Error><Code>AccessDenied</Code><Message>no${' no'.repeat(100_000)}</Message><More>${'x'.repeat(100_000)}</More></Error>`,
      );
  });
  const { error, shown } = await failureOf(tier);
  expect(troubleOf(error)).toEqual({ trouble: 'denied', message: expect.stringMatching(/^no no no.{1,500}…$/) });
  expect(shown.length).toBeLessThan(10_000);
});
