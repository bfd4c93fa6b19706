import { describe, expect, it } from 'vitest';
import { silentLog } from '../../../src/telemetry/log.ts';
import {
  type HostDownload,
  type HostParallelism,
  ParallelHosts,
} from '../../../src/upstream/download/host-parallelism.ts';
import { StatusError } from '../../../src/upstream/failures.ts';

const MIB = 1024 * 1024;
const HOST = 'cdn.test:443';
const TICK_MS = 100;
const MINUTE_MS = 60_000;

/** A download that opens what it may have at once; each connection is established a tick later. */
class TestDownload implements HostDownload {
  wantsMore = true;
  readonly most: number;
  established = 1;
  opening = 0;

  constructor(most = 16) {
    this.most = most;
  }
}

/** Bytes per second of all connections together. */
type Link = (connections: number) => number;

/** Each connection has so much, as on a long way, or behind a throttle. */
const each =
  (rate: number): Link =>
  (connections) =>
    connections * rate;
/** One link for all. */
const shared =
  (rate: number): Link =>
  () =>
    rate;

class Bed {
  ms = 0;
  waited = 0;
  /** How much of the time the process waits. */
  waits = 1;
  link: Link;
  /** The host refuses more than these. */
  takes = Number.POSITIVE_INFINITY;
  refusals = 0;
  readonly hosts = new ParallelHosts(silentLog(), { now: () => this.ms, waited: () => this.waited });
  readonly downloads: TestDownload[] = [];
  /** The most connections that there ever were. */
  most = 0;

  constructor(link: Link) {
    this.link = link;
  }

  get host(): HostParallelism {
    return this.hosts.of(HOST);
  }

  get connections(): number {
    return this.downloads.reduce((sum, { established }) => sum + established, 0);
  }

  begin(most?: number): TestDownload {
    const download = new TestDownload(most);
    this.downloads.push(download);
    this.host.join(download);
    return download;
  }

  end(download: TestDownload): void {
    this.downloads.splice(this.downloads.indexOf(download), 1);
    this.host.leave(download);
  }

  run(ms: number): void {
    for (const end = this.ms + ms; this.ms < end; ) {
      this.ms += TICK_MS;
      this.waited += TICK_MS * this.waits;
      this.host.brought((this.link(this.connections) * TICK_MS) / 1000);
      for (const download of this.downloads) this.#tick(download);
      this.most = Math.max(this.most, this.connections);
    }
  }

  #tick(download: TestDownload): void {
    const { host } = this;
    for (; download.opening > 0; download.opening--) {
      if (this.connections < this.takes) {
        download.established++;
        host.succeeded();
      } else {
        this.refusals++;
        host.failed(new StatusError(429, HOST));
      }
    }
    host.look();
    const share = host.share(download);
    download.established = Math.min(download.established, share);
    while (download.wantsMore && download.established + download.opening < share && host.admits) download.opening++;
  }
}

describe('connections to a host', () => {
  it('grow up to what a blob may have, while each brings its own', () => {
    const bed = new Bed(each(MIB));
    const download = bed.begin();
    bed.run(20_000);
    expect(download.established).toBe(16);
  });

  it('are no more than a download may have', () => {
    const bed = new Bed(each(MIB));
    bed.begin(3);
    bed.run(20_000);
    expect(bed.most).toBe(3);
  });

  it('grow slowly up to a link that is lossy, whose rate varies', () => {
    let seed = 7;
    const random = (): number => {
      seed = (seed * 16_807) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    const bed = new Bed((connections) => connections * 50_000 * (0.6 + 0.8 * random()));
    const download = bed.begin();
    bed.run(30_000);
    expect(download.established).toBe(16);
  });

  it('go back to one where all share one link, and are tried ever more rarely', () => {
    const bed = new Bed(shared(4 * MIB));
    const download = bed.begin();
    bed.run(10_000);
    expect(bed.most).toBe(4);
    expect(download.established).toBe(1);
    let tries = 0;
    for (let second = 0, before = 1; second < 600; second++) {
      bed.run(1_000);
      if (before === 1 && download.established > 1) tries++;
      before = download.established;
    }
    expect(tries).toBeGreaterThan(0);
    expect(tries).toBeLessThan(9);
    // The next one need not find it out again.
    bed.end(download);
    bed.most = 0;
    bed.begin();
    bed.run(5_000);
    expect(bed.most).toBe(1);
  });

  it('stay at what a link of several takes', () => {
    const bed = new Bed((connections) => Math.min(connections, 5) * MIB);
    const download = bed.begin();
    bed.run(11_000);
    expect(bed.most).toBe(16);
    expect(download.established).toBe(8);
  });

  it('are counted as useful where slow start takes seconds', () => {
    const began: number[] = [];
    const bed: Bed = new Bed((connections) => {
      while (began.length < connections) began.push(bed.ms);
      began.length = connections;
      return began.reduce((sum, since) => sum + Math.min(1, (bed.ms - since) / 3_000) ** 2 * MIB, 0);
    });
    const download = bed.begin();
    bed.run(30_000);
    expect(download.established).toBe(16);
  });

  it('do not grow where the process, or the disk, is the limit', () => {
    const busy = new Bed(each(MIB));
    busy.waits = 0.1;
    busy.begin();
    busy.run(20_000);
    expect(busy.most).toBe(1);
    const held = new Bed((connections) => {
      held.host.paused(TICK_MS);
      return connections * MIB;
    });
    held.begin();
    held.run(20_000);
    expect(held.most).toBe(1);
  });

  it('do not grow where the host is fast as it is', () => {
    const bed = new Bed(shared(100 * MIB));
    for (let i = 0; i < 6; i++) bed.begin();
    bed.run(20_000);
    expect(bed.most).toBe(6);
  });

  it('do not grow for downloads that want no more', () => {
    const bed = new Bed(each(MIB));
    bed.begin().wantsMore = false;
    bed.run(20_000);
    expect(bed.most).toBe(1);
  });
});

describe('several downloads from a host', () => {
  it('share what helps, and one that wants no more leaves the rest to the others', () => {
    const bed = new Bed((connections) => Math.min(connections, 12) * MIB);
    const downloads = [bed.begin(), bed.begin(), bed.begin()];
    bed.run(11_000);
    expect(downloads.map(({ established }) => established)).toEqual([4, 4, 4]);
    const [first, second] = downloads;
    if (first === undefined || second === undefined) throw new Error('there are three');
    bed.end(first);
    second.wantsMore = false;
    second.established = 1;
    bed.run(1_000);
    expect(downloads[2]?.established).toBe(11);
  });

  it('keep their number at a host within bounds, and at least one each', () => {
    const bed = new Bed(each(MIB));
    for (let i = 0; i < 30; i++) bed.begin();
    bed.run(10_000);
    expect(bed.downloads.every(({ established }) => established === 1)).toBe(true);
    for (const download of bed.downloads.slice(6)) bed.end(download);
    bed.run(30_000);
    expect(bed.downloads.map(({ established }) => established)).toEqual([4, 4, 4, 4, 4, 4]);
  });
});

describe('what was learnt of a host', () => {
  it('is where the next download starts, for an hour', () => {
    const bed = new Bed(each(MIB));
    const first = bed.begin();
    bed.run(20_000);
    bed.end(first);
    expect(bed.host.ratePerConnection).toBeCloseTo(MIB);
    const second = bed.begin();
    bed.run(200);
    expect(second.established).toBe(16);
    bed.end(second);
    bed.ms += 61 * MINUTE_MS;
    const third = bed.begin();
    expect(bed.host.share(third)).toBe(1);
  });

  it('is found anew after that also where there is always some download', () => {
    const bed = new Bed(each(MIB));
    const download = bed.begin();
    bed.run(20_000);
    bed.link = shared(16 * MIB);
    bed.run(61 * MINUTE_MS);
    expect(download.established).toBe(1);
  });
});

describe('a host that refuses the fifth connection', () => {
  it('gets four for a while, then one more as a try, then four for longer', () => {
    const bed = new Bed(each(MIB));
    bed.takes = 4;
    const download = bed.begin();
    bed.run(MINUTE_MS);
    expect(download.established).toBe(4);
    expect(bed.refusals).toBe(1);
    bed.run(9 * MINUTE_MS);
    expect(bed.refusals).toBe(1);
    bed.run(5 * MINUTE_MS);
    expect(download.established).toBe(4);
    expect(bed.refusals).toBe(2);
    bed.run(14 * MINUTE_MS);
    expect(bed.refusals).toBe(2);
    // It has changed its mind.
    bed.takes = 6;
    bed.run(30 * MINUTE_MS);
    expect(download.established).toBe(6);
  });

  it('is remembered beyond the downloads, and its Retry-After is honoured', () => {
    const bed = new Bed(each(MIB));
    bed.host.join(new TestDownload());
    expect(bed.host.failed(new StatusError(503, HOST, 30 * 60))).toBe(true);
    bed.ms += 29 * MINUTE_MS;
    expect(bed.host.limit).toBe(1);
    bed.ms += 2 * MINUTE_MS;
    expect(bed.host.limit).toBe(2);
  });

  it('gets no more of several downloads together, at least one of each', () => {
    const bed = new Bed(each(MIB));
    bed.takes = 4;
    bed.begin();
    bed.run(10_000);
    expect(bed.host.limitOfEach).toBe(4);
    bed.begin();
    expect(bed.host.limitOfEach).toBe(2);
    for (let i = 0; i < 10; i++) bed.begin();
    expect(bed.host.limitOfEach).toBe(1);
  });

  it('is taken at its word where it took more than it had when it refused', () => {
    const bed = new Bed(each(MIB));
    const download = bed.begin();
    expect(bed.host.failed(new StatusError(429, HOST))).toBe(true);
    expect(bed.host.limit).toBe(1);
    download.established = 3;
    bed.host.succeeded();
    expect(bed.host.limit).toBe(3);
  });

  it('may do so by resets, of which one is none, nor are those between successes', () => {
    const bed = new Bed(each(MIB));
    const reset = Object.assign(new Error('reset'), { code: 'ECONNRESET' });
    bed.begin();
    for (let i = 0; i < 10; i++) {
      expect(bed.host.failed(reset)).toBe(false);
      bed.host.succeeded();
    }
    expect(bed.host.failed(Object.assign(new Error('slow'), { name: 'TimeoutError' }))).toBe(false);
    expect(bed.host.failed(new StatusError(500, HOST))).toBe(false);
    expect(bed.host.failed(reset)).toBe(false);
    expect(bed.host.failed(reset)).toBe(true);
    expect(bed.host.limit).toBe(1);
  });
});
