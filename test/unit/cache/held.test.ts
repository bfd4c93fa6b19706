import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Layout, partialName, SharedFile } from '../../../src/cache/files.ts';
import { HeldRecorder, parseHeld } from '../../../src/cache/partial-files.ts';
import { Mutex } from '../../../src/kit/async.ts';
import { IntervalSet } from '../../../src/kit/interval-set.ts';
import { makeContent } from '../../support/cache-rig.ts';

describe('the record of a growing file', () => {
  const text = JSON.stringify({
    registry: 'docker.io',
    size: 100,
    extents: [[0, 30]],
    written: { boot: 'this', extents: [[0, 80]] },
  });

  it('counts all that was written while the system has not been down since', () => {
    expect(parseHeld(text, 'this')).toEqual({ registry: 'docker.io', size: 100, extents: [{ from: 0, to: 80 }] });
  });

  it('counts only what was synced after a power cut, and where the system does not tell its runs apart', () => {
    for (const boot of ['another', null])
      expect(parseHeld(text, boot)).toEqual({ registry: 'docker.io', size: 100, extents: [{ from: 0, to: 30 }] });
  });

  it('claims nothing where nothing was synced before a power cut', () => {
    const unsynced = JSON.stringify({
      registry: 'docker.io',
      size: 100,
      extents: [],
      written: { boot: 'this', extents: [[0, 80]] },
    });
    expect(parseHeld(unsynced, 'another')).toBeNull();
  });

  it.each([
    ['{"registry":"docker.io","size":100,"extents":[[0,', 'cut in two'],
    ['{"registry":"docker.io","size":100,"extents":[[50,40]]}', 'no extent'],
    ['{"registry":"docker.io","size":100}', 'no extents'],
    ['{"size":100,"extents":[[0,40]]}', 'without a registry'],
    ['', 'empty'],
  ])('is worth nothing where it is %s (%s)', (broken) => {
    expect(parseHeld(broken, 'this')).toBeNull();
  });
});

it('what is written is recorded while its sync waits for its turn, or for the disk', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'gateway-held-'));
  const layout = new Layout(directory);
  mkdirSync(layout.partials);
  const { key } = makeContent(1);
  const name = partialName(key);
  const syncs = new Mutex();
  const others = Promise.withResolvers<void>();
  void syncs.run(() => others.promise);
  const failures: Error[] = [];
  const limits = { recordBytes: 10, recordInterval: 1_000_000, syncInterval: 0 };
  const recorder = new HeldRecorder({ layout, key, syncs, limits, failed: (error) => failures.push(error) });
  const file = SharedFile.openNew(layout.partial(name)) as SharedFile;
  const written = new IntervalSet();
  const record = () => JSON.parse(readFileSync(layout.held(name), 'utf8'));
  for (const end of [20, 40]) {
    written.add(end - 20, end);
    recorder.grown({ file, written, size: 100 });
    await recorder.idle();
    expect([record().written.extents, record().extents]).toEqual([[[0, end]], []]);
  }
  // What comes while a record is being written is not in it; once all is there, no more of it is left out than a restart may lose.
  written.add(40, 60);
  recorder.grown({ file, written, size: 100 });
  written.add(60, 80);
  recorder.grown({ file, written, size: 100 });
  await recorder.catchUp({ file, written, size: 100 });
  expect(record().written.extents).toEqual([[0, 80]]);
  others.resolve();
  await recorder.record({ file, written, size: 100 });
  expect([record().extents, failures]).toEqual([[[0, 80]], []]);
  file.release();
  rmSync(directory, { recursive: true });
});
