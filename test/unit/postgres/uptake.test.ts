import { expect, it } from 'vitest';
import { Uptake } from '../../../src/postgres/uptake.ts';

it('what is loaded is of the revision that was heard of before, or, of a database that was put back, of the one that it has now', async () => {
  let revision = 7;
  const uptake = new Uptake({ revision: () => revision });
  const loads: string[] = [];
  uptake.onLoad(() => loads.push(String(uptake.revisions().aliases)));
  const load = () => uptake.load('aliases', async () => 'table');
  const unwatch = uptake.watch(
    'aliases',
    () => void load(),
    () => {},
  );
  await load();
  await load();
  revision = 9;
  await uptake.load('aliases', () => Promise.reject(new Error('away'))).catch(() => {});
  expect(uptake.revisions().aliases).toBe(7);
  uptake.catchUp();
  await load();
  revision = 3;
  uptake.catchUp();
  await load();
  expect([uptake.revisions().aliases, loads]).toEqual([3, ['7', '9', '3']]);
  unwatch();
  revision = 4;
  expect(uptake.revisions().aliases).toBe(4);
});
