import { expect, it, onTestFinished } from 'vitest';
import { PGBOUNCER, POSTGRES, PostgresServer, startPgBouncer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

describeWith(POSTGRES, 'the PostgreSQL that tests start', () => {
  it('has databases of its own, over a restart', async () => {
    const server = await PostgresServer.start();
    onTestFinished(() => server.stop());
    const [one, other] = [await server.createDatabase(), await server.createDatabase()];
    await server.query('CREATE TABLE kept (x int); INSERT INTO kept VALUES (1)', one);
    await server.halt('fast');
    await server.begin();
    expect(await server.query('SELECT x FROM kept', one)).toEqual(['1']);
    await expect(server.query('SELECT x FROM kept', other)).rejects.toThrow(/"kept" does not exist/);
  });
});

describeWith(PGBOUNCER, 'the PgBouncer that tests start', () => {
  it('leads to the same database', async () => {
    const server = await PostgresServer.start();
    onTestFinished(() => server.stop());
    const bouncer = await startPgBouncer(server);
    onTestFinished(() => bouncer.stop());
    const database = await server.createDatabase();
    expect(await server.query('SELECT current_database()', bouncer.through(database))).toEqual(['test_1']);
  });
});
