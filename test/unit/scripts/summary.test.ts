import { describe, expect, it } from 'vitest';
import { type Step, summarize } from '../../../scripts/lib/summary.ts';

const report = (...statuses: string[]): Step['report'] => ({
  testResults: [
    {
      name: '/a.test.ts',
      status: statuses.includes('failed') ? 'failed' : 'passed',
      assertionResults: statuses.map((status, index) => ({ status, fullName: `test ${index}` })),
    },
  ],
});

describe('the summary of a test run', () => {
  it('adds the steps up and ends with a plain line', () => {
    const { lines } = summarize([
      { name: 'check', exitCode: 0, report: report('passed', 'passed') },
      { name: 'e2e', exitCode: 0, report: report('passed', 'skipped') },
    ]);
    expect(lines).toEqual(['skipped: test 1', '1 skipped', '3 passed, 0 failed']);
  });

  it('names what failed', () => {
    const { lines, failed } = summarize([{ name: 'check', exitCode: 1, report: report('passed', 'failed') }]);
    expect(failed).toBe(1);
    expect(lines).toEqual(['failed: test 1', '1 passed, 1 failed']);
  });

  it.each([
    ['a step that ended before its tests', { name: 'check', exitCode: 2, report: null }],
    ['a step without a report that claims success', { name: 'check', exitCode: 0, report: null }],
    ['a step that failed with no failed test', { name: 'check', exitCode: 1, report: report('passed') }],
    [
      'a test file that could not be loaded',
      {
        name: 'check',
        exitCode: 1,
        report: {
          testResults: [{ name: '/b.test.ts', status: 'failed', message: 'SyntaxError', assertionResults: [] }],
        },
      },
    ],
  ] satisfies [string, Step][])('counts %s as a failure', (_, step) => {
    expect(summarize([step]).failed).toBe(1);
  });
});
