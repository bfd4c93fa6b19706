import type { ServerResponse } from 'node:http';
import type { Content } from '../content.ts';
import type { LoggedRequest } from './log.ts';
import type { Fault } from './options.ts';
import { reset } from './sockets.ts';

const CHUNK = 256 * 1024;
/** A throttled answer is fed so many times a second. */
const TICKS = 20;

/** Sends `[from, to)` of a content with the faults asked for; resolves when the answer is over, one way or another. */
export async function sendBody(
  response: ServerResponse,
  content: Content,
  from: number,
  to: number,
  fault: Fault,
  record: LoggedRequest,
): Promise<void> {
  const rate = fault.bytesPerSecond;
  const chunk = rate === undefined ? CHUNK : Math.max(1, Math.min(CHUNK, Math.ceil(rate / TICKS)));
  const started = performance.now();
  const stop = Math.min(fault.resetAfter ?? Infinity, fault.stallAfter ?? Infinity, fault.endAfter ?? Infinity);
  const end = Math.min(to, from + stop);
  for (let at = from; at < end && !response.destroyed; ) {
    const upTo = Math.min(end, at + chunk);
    const bytes = content.read(at, upTo);
    const ready = response.write(flipped(bytes, at, fault.wrongByteAt));
    record.sent += bytes.length;
    at = upTo;
    if (!ready) await drained(response);
    if (rate !== undefined) await wait(((at - from) / rate) * 1000 - (performance.now() - started), response);
  }
  if (response.destroyed) return;
  if (from + stop < to) {
    if (fault.stallAfter !== undefined && stop === fault.stallAfter) return await closed(response);
    await flushed(response);
    if (fault.resetAfter !== undefined && stop === fault.resetAfter) reset(response.socket);
    else response.socket?.end();
    return await closed(response);
  }
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    response.end(resolve);
  });
}

function flipped(bytes: Buffer, at: number, offset: number | undefined): Buffer {
  if (offset === undefined || offset < at || offset >= at + bytes.length) return bytes;
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(offset - at) ^ 0xff, offset - at);
  return copy;
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

/** Until what was written has been handed to the kernel, so that a reset does not eat it. */
function flushed(response: ServerResponse): Promise<void> {
  const { socket } = response;
  if (socket === null || socket.writableLength === 0) return Promise.resolve();
  return new Promise((resolve) => {
    response.once('close', resolve);
    // Called when everything before it has been written.
    socket.write('', () => resolve());
  });
}

export function closed(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => (response.destroyed ? resolve() : response.once('close', resolve)));
}

export function wait(ms: number, response: ServerResponse): Promise<void> {
  if (ms <= 0 || response.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      response.off('close', done);
      resolve();
    }
    response.on('close', done);
  });
}
