import { beforeEach, describe, expect, test } from 'vitest';
import { QuietCollector } from '../../../src/kit/quiet-collector.ts';

const MIB = 1024 * 1024;

describe('the collector of a quiet process', () => {
  let size: number;
  let utilization: number;
  let collections: number;
  let thorough: number;
  let collector: QuietCollector;
  /** How many collections so many looks made. */
  const looks = (count: number): number => {
    const before = collections;
    for (let look = 0; look < count; look++) collector.look();
    return collections - before;
  };

  beforeEach(() => {
    size = 20 * MIB;
    utilization = 0.001;
    collections = 0;
    thorough = 0;
    collector = new QuietCollector({
      size: () => size,
      utilization: () => utilization,
      collect() {
        collections++;
        size = 16 * MIB;
      },
      collectAll() {
        thorough++;
        this.collect();
      },
    });
  });

  test('collects once what the start has left', () => {
    expect(looks(1)).toBe(0);
    expect(looks(1)).toBe(1);
    expect(looks(100)).toBe(0);
  });

  test('never does under load, however much there is', () => {
    utilization = 0.3;
    size = 500 * MIB;
    expect(looks(100)).toBe(0);
  });

  test('waits until it has been quiet for longer than a moment', () => {
    for (let pause = 0; pause < 10; pause++) {
      utilization = 0.3;
      expect(looks(1)).toBe(0);
      utilization = 0.001;
      expect(looks(1)).toBe(0);
    }
    expect(looks(1)).toBe(1);
  });

  test('collects again once a load that is over has left enough, which is more each time', () => {
    looks(2);
    for (const worth of [4, 8, 16, 16]) {
      size += (worth - 1) * MIB;
      expect(looks(100)).toBe(0);
      size += MIB;
      expect(looks(2)).toBe(1);
    }
  });

  test('forgets code only once, with what the start has left', () => {
    looks(2);
    expect(thorough).toBe(1);
    for (let load = 0; load < 5; load++) {
      size += 20 * MIB;
      looks(10);
    }
    expect([collections, thorough]).toEqual([6, 1]);
  });

  test('takes what stays after a collection for what is needed', () => {
    const collect = () => void collections++;
    collector = new QuietCollector({ size: () => size, utilization: () => 0, collect, collectAll: collect });
    expect(looks(100)).toBe(1);
  });
});
