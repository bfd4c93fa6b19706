import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { type Dashboard, expressionsOf } from '../support/dashboard.ts';

// What deploy/ has for Prometheus and Grafana says nothing of metrics that there are not, and tells a person what to do.

const read = (name: string) => readFileSync(new URL(`../../deploy/${name}`, import.meta.url), 'utf8');

interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly labels?: { readonly severity?: string };
  readonly annotations?: { readonly summary?: string; readonly description?: string };
}

const groups: { readonly rules: readonly Rule[] }[] = parse(read('prometheus/registry-gateway.rules.yml')).groups;
const rules = groups.flatMap((group) => group.rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);
const dashboard: Dashboard = JSON.parse(read('grafana/registry-gateway.json'));
const documented = new Set([...read('METRICS.md').matchAll(/^\| `(gateway_[a-z_]+)` \|/gm)].map(([, name]) => name));

/** The gateway's own metrics in an expression, a histogram's series by its name. */
function metricsIn(expression: string): string[] {
  const names = expression.match(/(?<![a-z_:])gateway_[a-z_]+/g) ?? [];
  return names.map((name) => name.replace(/_seconds_(bucket|sum|count)$/, '_seconds'));
}

const recorded = new Set(rules.map(({ record }) => record));

describe.each([
  ['the rules', rules.map(({ expr }) => expr)],
  ['the dashboard', expressionsOf(dashboard)],
])('%s', (_, expressions) => {
  it('name metrics of deploy/METRICS.md alone', () => {
    const used = new Set(expressions.flatMap(metricsIn));
    expect(used.size).toBeGreaterThan(10);
    expect([...used].filter((name) => !documented.has(name))).toEqual([]);
  });

  it('name recorded series that there are', () => {
    const used = expressions.flatMap((expression) => expression.match(/registry_gateway:[a-z_:0-9]+/g) ?? []);
    expect(used.filter((name) => !recorded.has(name))).toEqual([]);
  });
});

describe('each alert', () => {
  const tests = read('prometheus/registry-gateway.tests.yml');

  it.each(alerts.map((rule) => [rule.alert ?? '', rule] as const))(
    '%s says what is wrong, and what to do',
    (name, rule) => {
      expect(rule.labels?.severity).toMatch(/^(critical|warning|info)$/);
      expect(rule.annotations?.summary).toMatch(/\.$/);
      expect(rule.annotations?.description).toMatch(/deploy\/README\.md, (Sizing|Troubleshooting by symptom: .+)\.$/);
      // And it has been seen to fire: see test/e2e/monitoring.test.ts.
      expect(tests).toContain(`ALERTS{alertname="${name}",alertstate="firing",`);
    },
  );
});

describe('the dashboard', () => {
  const panels = dashboard.panels.filter(({ type }) => type !== 'row');

  it('has a row for each part, and lets a data source, a gateway and a registry be chosen', () => {
    const titles = dashboard.panels.filter(({ type }) => type === 'row').map(({ title }) => title);
    expect(titles).toEqual(['Traffic', 'Cache', 'Upstream', 'Certificates', 'Process']);
    expect(dashboard.templating.list.map(({ name }) => name)).toEqual(['datasource', 'job', 'instance', 'registry']);
  });

  it('has a title, a unit and a description for each panel, and each panel its own number', () => {
    for (const { title, description, fieldConfig, targets } of panels) {
      expect(title).not.toBe('');
      expect(description, title).toMatch(/\.$/);
      expect(fieldConfig?.defaults.unit, title).toBeTruthy();
      expect(targets?.length, title).toBeGreaterThan(0);
    }
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
  });

  it('has no panel over another, and none wider than the grid', () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x} ${y}`), `${title} at ${x} ${y}`).toBeUndefined();
          taken.set(`${x} ${y}`, title);
        }
      }
    }
  });
});
