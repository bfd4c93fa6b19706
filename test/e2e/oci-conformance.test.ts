import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startBesidePushes } from '../support/beside-pushes.ts';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { type ConformanceReport, inventory, type ReadOnlyData, runConformance } from '../support/oci-conformance.ts';
import { startOlareg } from '../support/olareg.ts';
import { describeWith } from '../support/programs.ts';
import { openWay, type WayName } from '../support/ways.ts';

// The distribution-spec's own conformance program, first against a registry, then against the gateway before it: no clause may fail there
// that the registry itself passes. Its reports are kept in test-reports/.

const UPSTREAMS = {
  // Neither pages tags nor knows referrers.
  'docker-registry': startDockerRegistry,
  olareg: startOlareg,
};
const OWN = 'conformance/own';
/** The APIs of the categories *Pull* and *Content Discovery*. */
const READ = /^(Ping|Tag listing|Blob (get|get range|head)|Manifest (get|head) by (digest|tag)|Referrers)$/;

describeWith(
  ['linux', 'root', 'docker-registry', 'olareg', 'conformance', 'unshare', 'nsenter', 'mount'],
  'the distribution-spec’s conformance program',
  () => {
    for (const [name, start] of Object.entries(UPSTREAMS)) {
      describe(`in front of ${name}`, () => {
        let space: Namespace;
        let upstream: { readonly endpoint: string; close(): Promise<void> };
        let gateway: TestGateway;
        let own: ConformanceReport;
        let held: ReadOnlyData;
        showLogOfFailures(() => gateway);

        beforeAll(async () => {
          space = await openNamespace({ hosts: { 'docker.localhost': '127.0.0.1' }, network: false });
          upstream = await start();
          // The program moves tags as it goes.
          gateway = await startGateway({ config: { cache: { tagTtl: '1ms' } } });
          await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.endpoint);
          const registry = new URL(upstream.endpoint).host;
          own = await runConformance({ registry, repository: OWN, name: join(name, 'itself') });
          held = await inventory(upstream.endpoint, OWN);
        });

        afterAll(async () => {
          await gateway?.close();
          await upstream?.close();
          await space?.close();
        });

        it.each([
          ['by prefix', 'localhost', `docker.io/${OWN}`],
          ['by alias host', 'docker.localhost', OWN],
          ['as a mirror', 'localhost', OWN],
        ])('%s, pushing nothing: every API for reading passes', async (way, host, repository) => {
          const port = gateway.httpsPort;
          const report = await runConformance({
            registry: `${host}:${port}`,
            repository,
            name: join(name, `${way}, read-only`),
            caFile: join(gateway.dataDir, 'ca.crt'),
            readOnly: held,
            within: space,
          });
          const { 'Blob get range': untested, ...read } = Object.fromEntries(
            [...report.apis].filter(([api]) => READ.test(api)),
          );
          // The program tests ranges of what it pushed alone.
          expect(untested).toBe('Unknown');
          expect(Object.keys(read)).toHaveLength(9);
          for (const [api, state] of Object.entries(read)) expect([api, state], report.text).toEqual([api, 'Pass']);
        });

        it.each<WayName>(['by prefix', 'by alias host', 'as a mirror with ns'])(
          '%s, pushing past the gateway: nothing fails that the registry passes',
          async (wayName) => {
            const way = openWay(gateway, wayName);
            const beside = await startBesidePushes(upstream.endpoint, way);
            try {
              const report = await runConformance({
                registry: beside.registry,
                repository: `conformance/${wayName.replaceAll(' ', '-')}`,
                name: join(name, wayName),
              });
              const worse = [...own.clauses].filter(
                ([clause, passed]) => passed && report.clauses.get(clause) !== true,
              );
              expect(
                worse.map(([clause]) => clause),
                report.text.slice(-10_000),
              ).toEqual([]);
              expect(own.clauses.size).toBeGreaterThan(100);
            } finally {
              await beside.close();
              way.close();
            }
          },
        );
      });
    }
  },
);
