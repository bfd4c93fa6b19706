import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { accessibilityFaults, layoutFaults, TestBrowser } from '../support/browser.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, send } from '../support/http-client.ts';
import type { Program } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';

describeWith(['chromium'], 'gateway dashboard in Chromium', () => {
  let gateway: TestGateway;
  let dashboard: Program;
  let browser: TestBrowser;
  let url = '';

  beforeAll(async () => {
    [gateway, browser] = await Promise.all([startGateway(), TestBrowser.open()]);
    // Nothing listens there, so that there is something that went wrong.
    await gateway.ok('registry', 'set', 'quay.io', '--endpoint', 'http://127.0.0.1:1', '--no-check');
    dashboard = gateway.begin('dashboard');
    [url = ''] = await dashboard.waitFor(/http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]+/);
  });
  afterEach(() => browser.reset());
  afterAll(async () => {
    await browser?.close();
    await dashboard?.end();
    await gateway?.close();
  });

  it('shows what goes wrong while it is open', async () => {
    const page = await browser.page({ width: 1280, language: 'en' });
    await page.goto(url);
    expect(new URL(page.url()).search).toBe('');
    expect(await page.textContent('#troubles')).toContain('Nothing went wrong');
    const path = '/v2/quay.io/org/app/manifests/v1';
    expect((await send({ port: gateway.httpsPort, path, ca: caOf(gateway) })).status).toBe(502);
    await page.waitForSelector('#troubles td:has-text("quay.io/org/app v1")');
    expect(await page.textContent('#endpoints')).toContain('out of reach');
  });

  it.each([
    [360, 'en', true],
    [360, 'zh-CN', false],
    [1280, 'en', false],
    [1280, 'zh-CN', true],
  ] as const)('at %i pixels in %s fits and can be read by everyone (dark: %s)', async (width, language, dark) => {
    const page = await browser.page({ width, language, dark });
    await page.goto(url);
    expect(await layoutFaults(page)).toEqual([]);
    expect(await accessibilityFaults(page)).toEqual([]);
  });

  it('is for whoever has its URL', async () => {
    const page = await browser.page({ width: 1280, language: 'en' });
    expect((await page.goto(new URL('/', url).href))?.status()).toBe(401);
  });
});
