/** Of vitest's JSON report, what is counted. */
export interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
    }[];
  }[];
}

export interface Step {
  readonly name: string;
  readonly exitCode: number;
  /** Null where the step ended before its tests ran. */
  readonly report: VitestReport | null;
}

export interface Summary {
  readonly lines: readonly string[];
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/**
 * Adds the steps up. A test file that could not be loaded counts as one failure, and so does a step that failed with no failed test to
 * show for it (a type error, a crash), so that `0 failed` is never said of a run that was not right.
 */
export function summarize(steps: readonly Step[]): Summary {
  let passed = 0;
  const failures: string[] = [];
  const skips: string[] = [];
  for (const { name, exitCode, report } of steps) {
    const before = failures.length;
    for (const file of report?.testResults ?? []) {
      const failedBefore = failures.length;
      for (const { status, fullName } of file.assertionResults) {
        if (status === 'passed') passed += 1;
        else if (status === 'failed') failures.push(fullName);
        else skips.push(fullName);
      }
      if (file.status === 'failed' && failures.length === failedBefore) {
        failures.push(`${file.name}: ${file.message?.split('\n')[0] || 'it could not be run'}`);
      }
    }
    if (report === null) failures.push(`${name}: ended with ${exitCode} before its tests were reported`);
    else if (exitCode !== 0 && failures.length === before) failures.push(`${name}: ended with ${exitCode}`);
  }
  const lines = [
    ...skips.map((skip) => `skipped: ${skip}`),
    ...failures.map((failure) => `failed: ${failure}`),
    ...(skips.length === 0 ? [] : [`${skips.length} skipped`]),
    `${passed} passed, ${failures.length} failed`,
  ];
  return { lines, passed, failed: failures.length, skipped: skips.length };
}
