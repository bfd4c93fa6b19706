import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Denial } from '../../src/cache/facts.ts';
import type { Digest } from '../../src/oci/names.ts';
import { PostgresDenials } from '../../src/postgres/denials.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { eventually } from '../support/eventually.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { openNode } from '../support/postgres-stores.ts';
import { describeWith } from '../support/programs.ts';

describeWith([...POSTGRES], 'what registries deny to one of several gateways', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server?.stop());

  it('is told to the others in its order, once to each, also to one that was away; and not to whom it was denied', async () => {
    const url = await server.createDatabase();
    const start = async (node: string) => {
      const { database, feed } = await openNode(url);
      const denials = new PostgresDenials({ database, feed, node, log: silentLog() });
      const heard: Denial[] = [];
      denials.watch((denial) => heard.push(denial));
      await denials.settled();
      return { denials, heard };
    };
    const digest = `sha256:${'ab'.repeat(32)}` as Digest;
    const [secret, blob] = [
      { registry: 'quay.io', repository: 'corp/secret' },
      { registry: 'quay.io', repository: 'corp/open', digest },
    ];
    const [one, other] = [await start('one'), await start('other')];
    one.denials.announce(secret, true);
    one.denials.announce(secret, true);
    one.denials.announce(blob, true);
    await eventually('the other to hear of both', () => other.heard.length === 2);
    expect(other.heard).toEqual([secret, blob]);
    await other.denials.close();
    one.denials.announce({ ...secret, repository: 'corp/later' }, true);
    await one.denials.settled();
    const again = await start('other');
    expect(again.heard).toEqual([{ ...secret, repository: 'corp/later' }]);
    expect((await start('new')).heard).toHaveLength(3);
    expect(one.heard).toEqual([]);
    await Promise.all([one, again].map(({ denials }) => denials.close()));
  });

  it('costs no row each where names without end are denied of which nothing is known; what is known is told at once', async () => {
    const { database, feed } = await openNode(await server.createDatabase());
    const denials = new PostgresDenials({ database, feed, node: 'one', log: silentLog() });
    for (let n = 0; n < 300; n++) denials.announce({ registry: 'quay.io', repository: `made/up${n}` }, false);
    denials.announce({ registry: 'ghcr.io', repository: 'made/up' }, false);
    denials.announce({ registry: 'quay.io', repository: 'made/up299' }, true);
    await denials.settled();
    const { rows } = await database.query<{ registry: string; repository: string }>(
      'SELECT registry, repository FROM denials',
      [],
    );
    expect(rows).toHaveLength(62);
    expect(rows).toContainEqual({ registry: 'quay.io', repository: 'made/up299' });
    expect(rows).toContainEqual({ registry: 'ghcr.io', repository: 'made/up' });
    await denials.close();
  });
});
