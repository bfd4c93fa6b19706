import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { accessibilityFaults, layoutFaults, TestBrowser } from '../support/browser.ts';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';
import { describeWith } from '../support/programs.ts';

// The page at `/` in a real browser, as people have it: on a phone and at a desk, in both languages, with and without JavaScript.

describeWith(['chromium'], 'the page in Chromium', () => {
  let browser: TestBrowser;
  let bed: EdgeBed;
  const url = (path = '/') => `https://localhost:${bed.httpsPort}${path}`;

  beforeAll(async () => {
    [browser, bed] = await Promise.all([TestBrowser.open(), startEdgeBed()]);
  });
  afterEach(() => browser.reset());
  afterAll(async () => {
    await browser?.close();
    await bed?.stop();
  });

  it.each([
    [360, 'en', false],
    [360, 'zh-CN', true],
    [1280, 'en', true],
    [1280, 'zh-CN', false],
  ] as const)('at %i pixels in %s fits and can be read by everyone (dark: %s)', async (width, language, dark) => {
    const page = await browser.page({ width, language, dark });
    await page.goto(url());
    expect(await page.getAttribute('html', 'lang')).toBe(language);
    expect(await layoutFaults(page)).toEqual([]);
    expect(await accessibilityFaults(page)).toEqual([]);
  });

  it.each([
    [360, 'en'],
    [1280, 'zh-CN'],
  ] as const)('at %i pixels in %s does its work without JavaScript', async (width, language) => {
    const page = await browser.page({ width, language, javaScript: false });
    await page.goto(url());
    expect(await layoutFaults(page)).toEqual([]);
    await page
      .locator('textarea')
      .fill('FROM --platform=$BUILDPLATFORM quay.io/org/app:1 AS build\nCOPY --from=quya.io/a/b /x /x');
    await page.locator('form button').click();
    expect(await page.locator('code').allTextContents()).toContain(
      `docker pull localhost:${bed.httpsPort}/quay.io/org/app:1`,
    );
    expect(await page.locator('.problem a').getAttribute('href')).toContain('quay.io');
    expect(await page.locator('button.copy:visible').count()).toBe(0);
    expect(await layoutFaults(page)).toEqual([]);
    // What was asked stays in the other language.
    await page.locator('header nav a').click();
    expect(await page.getAttribute('html', 'lang')).not.toBe(language);
    expect(await page.locator('textarea').inputValue()).toContain('quay.io/org/app:1');
    await page.locator('summary', { hasText: '429' }).click();
    expect(await page.locator('details[open] p').isVisible()).toBe(true);
  });

  it('is used by keyboard alone: Enter asks, Tab reaches each button, and a button copies', async () => {
    const page = await browser.page({ width: 360, language: 'en' });
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(message.text()));
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.goto(url());
    const focused = () =>
      page.evaluate<string>(
        'document.activeElement.className || document.activeElement.id || document.activeElement.textContent',
      );
    const reached: string[] = [];
    while (reached.at(-1) !== 'image') {
      await page.keyboard.press('Tab');
      reached.push(await focused());
    }
    expect(reached).toEqual(['skip', '中文', 'image']);
    await page.keyboard.type('quay.io/org/app');
    await page.keyboard.press('Enter');
    await page.waitForURL(/image=quay\.io/);
    await page.locator('button.copy').first().focus();
    const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
    expect(outline).toBe('solid');
    await page.keyboard.press('Enter');
    await page.locator('#said', { hasText: 'Copied' }).waitFor({ state: 'attached' });
    expect(await page.evaluate('navigator.clipboard.readText()')).toBe(
      `docker pull localhost:${bed.httpsPort}/quay.io/org/app`,
    );
    expect(await accessibilityFaults(page)).toEqual([]);
    // Nothing that its policy keeps out, and nothing from elsewhere.
    expect(complaints).toEqual([]);
  });
});
