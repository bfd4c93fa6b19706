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

  it.each([360, 1280])('at %i pixels fits without JavaScript', async (width) => {
    const page = await browser.page({ width, language: 'en', javaScript: false });
    await page.goto(url());
    expect(await layoutFaults(page)).toEqual([]);
  });
});
