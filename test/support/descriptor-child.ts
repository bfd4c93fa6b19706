import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';
import { Writable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { startEdgeBed } from './edge-bed.ts';
import { eventually } from './eventually.ts';
import { parseAnswer, rawExchange, tlsClient } from './raw-client.ts';

// A process with few descriptors: an edge that has none left, and then some again. It prints what was seen as JSON.
const logged: string[] = [];
const destination = new Writable({
  write(chunk, _encoding, done) {
    const { level, msg } = JSON.parse(String(chunk));
    if (level >= 50 && !msg.startsWith('a request')) logged.push(msg);
    done();
  },
});
const bed = await startEdgeBed({ log: pino({}, destination) });
const options = { port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' };
const ask = async (socket: TLSSocket) =>
  parseAnswer(
    await rawExchange(0, 'GET /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', socket),
  );

const early = await tlsClient(options);
const held: number[] = [];
/** Takes every descriptor that is left. */
function exhaust(): unknown {
  try {
    for (;;) held.push(openSync(devNull, 'r'));
  } catch (error) {
    return error;
  }
}
const exhausted = exhaust();
bed.registry.answer = () => {
  throw new Error('the index cannot be opened', { cause: exhausted });
};
const refused = await ask(early);
// The end of that connection has freed some.
exhaust();
await eventually('it is noticed', () => logged.length > 0);
for (const descriptor of held) closeSync(descriptor);
bed.registry.reset();
const after = await ask(await tlsClient(options));
const seen = {
  logged,
  counted: (await bed.metrics.total('descriptors_exhausted_total')) > 0,
  told: {
    status: refused.status,
    retryAfter: refused.headers['retry-after'],
    code: JSON.parse(refused.body).errors[0].code,
  },
  after: after.status,
};
process.stdout.write(JSON.stringify(seen), () => process.exit(0));
