import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { expressionsOf } from '../support/dashboard.ts';
import { prepareGateway } from '../support/gateway.ts';
import { describeWith, programPath } from '../support/programs.ts';

// Prometheus' own tool reads what the gateway tells, and what deploy/ has for it.

const deploy = fileURLToPath(new URL('../../deploy/', import.meta.url));

/** @throws with what it said, where it is not content */
function promtool(args: readonly string[], input = ''): string {
  return execFileSync(programPath('promtool'), args, { cwd: join(deploy, 'prometheus'), input, encoding: 'utf8' });
}

describeWith(['promtool'], 'promtool', () => {
  it('reads the rules, and sees each alert fire for its cause alone', () => {
    expect(promtool(['check', 'rules', 'registry-gateway.rules.yml'])).toContain('SUCCESS');
    expect(promtool(['test', 'rules', 'registry-gateway.tests.yml'])).toContain('SUCCESS');
    expect(promtool(['check', 'config', '--syntax-only', 'prometheus.yml'])).toContain('SUCCESS');
  });

  it('reads every expression of the dashboard', () => {
    const dashboard = JSON.parse(readFileSync(join(deploy, 'grafana/registry-gateway.json'), 'utf8'));
    const folder = mkdtempSync(join(tmpdir(), 'dashboard-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const rules = expressionsOf(dashboard).map((expr, n) => ({ record: `panel:expression:${n}`, expr }));
    const file = join(folder, 'rules.yml');
    // JSON is YAML.
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    expect(promtool(['check', 'rules', file])).toContain(`${rules.length} rules found`);
  });

  it('finds nothing against the conventions in what a gateway of several processes tells', async () => {
    const gateway = await prepareGateway({ config: { listen: { workers: 2 } } });
    onTestFinished(() => gateway.close());
    await gateway.start();
    const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    // It says what it would have otherwise, and nothing where all is well.
    expect(promtool(['check', 'metrics'], text)).toBe('');
    expect(text).toMatch(/^gateway_build_info\{version="[^"]+",node="[^"]+"\} 1$/m);
    // Not added up over processes.
    const [, started = ''] = /^process_start_time_seconds (\d+)/m.exec(text) ?? [];
    expect(Math.abs(Number(started) - Date.now() / 1000)).toBeLessThan(86_400);
  });
});
