import { defineConfig } from 'vitest/config';

// unit: nothing but Node. integration: real sockets on loopback, fakes that are real servers.
// e2e: real programs (docker-registry, pebble, skopeo, dockerd …); missing ones skip by name, or fail where CI=true.
// scripts/test counts from this report.
const report = process.env.TEST_REPORT;

/** What a test of milliseconds may take, ms, on a machine whose cores are busy with other work. */
const BUSY_MACHINE = 30_000;

export default defineConfig({
  test: {
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: BUSY_MACHINE,
          hookTimeout: BUSY_MACHINE,
          benchmark: { include: ['test/bench/**/*.bench.ts'] },
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 2 * BUSY_MACHINE,
          hookTimeout: 2 * BUSY_MACHINE,
          // They wait for links and timers for most of the time: one at a time leaves two cores idle. More disturb each other's rates.
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          // They mostly wait: for timers, slow links and other programs.
          maxWorkers: 3,
        },
      },
    ],
  },
});
