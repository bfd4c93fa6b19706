import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import ipaddr from 'ipaddr.js';
import { onTestFinished } from 'vitest';

export type DnsRecords = Record<string, { A?: string; AAAA?: string; CNAME?: string; SOA?: string }>;

const TYPES = { A: 1, CNAME: 5, SOA: 6, AAAA: 28 } as const;

/** A DNS server with these records and no others, on UDP; answers `host:port`. */
export async function dnsServer(records: DnsRecords): Promise<string> {
  const socket = createSocket('udp4');
  socket.on('message', (question, peer) => {
    const { name, type, end } = readQuestion(question);
    const found = records[name];
    const answers: Buffer[] = [];
    for (const kind of ['CNAME', 'A', 'AAAA', 'SOA'] as const) {
      const value = found?.[kind];
      if (value !== undefined && TYPES[kind] === type) answers.push(answer(kind, value));
    }
    const header = Buffer.alloc(12);
    question.copy(header, 0, 0, 2);
    // Response, recursion; NXDOMAIN for names without any record.
    header.writeUInt16BE(0x8180 | (found === undefined ? 3 : 0), 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(answers.length, 6);
    socket.send(Buffer.concat([header, question.subarray(12, end), ...answers]), peer.port, peer.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => new Promise<void>((done) => socket.close(() => done())));
  return `127.0.0.1:${socket.address().port}`;
}

function readQuestion(message: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.').toLowerCase(), type: message.readUInt16BE(at + 1), end: at + 5 };
}

function answer(kind: keyof typeof TYPES, value: string): Buffer {
  const data = dataOf(kind, value);
  const head = Buffer.alloc(12);
  // A pointer to the name asked for.
  head.writeUInt16BE(0xc00c, 0);
  head.writeUInt16BE(TYPES[kind], 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}

function dataOf(kind: keyof typeof TYPES, value: string): Buffer {
  if (kind === 'CNAME') return nameBytes(value);
  // Its primary, who looks after it, and five numbers that nobody here reads.
  if (kind === 'SOA') return Buffer.concat([nameBytes(value), nameBytes(value), Buffer.alloc(20)]);
  return Buffer.from(ipaddr.parse(value).toByteArray());
}

function nameBytes(name: string): Buffer {
  return Buffer.concat([
    ...name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0]),
  ]);
}
