import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AxeResults, RunOptions } from 'axe-core';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { programPath } from './programs.ts';

/** Evaluated in a page, where it becomes `window.axe`: a policy that lets no other script in does not hold for what a debugger evaluates. */
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A program for the page, not for Node. */
const LAYOUT = readFileSync(new URL('./layout-faults.js', import.meta.url), 'utf8');

/** WCAG 2.2 AA, and what axe-core calls good practice. */
const RULES: RunOptions = {
  resultTypes: ['violations'],
  runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
};

export interface Viewer {
  /** Of the window, CSS pixels. */
  readonly width: number;
  readonly language: 'en' | 'zh-CN';
  readonly javaScript?: boolean;
  readonly dark?: boolean;
}

/** Debian's Chromium, without a window, for a file's tests together; each viewer has a profile of their own. */
export class TestBrowser {
  readonly #browser: Browser;
  readonly #contexts = new Set<BrowserContext>();

  static async open(): Promise<TestBrowser> {
    return new TestBrowser(
      await chromium.launch({
        executablePath: programPath('chromium'),
        // Tests run as root and with little shared memory, in containers too.
        args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
      }),
    );
  }

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** A page for someone who sits before a window of this kind; certificates of local authorities are taken. */
  async page({ width, language, javaScript = true, dark = false }: Viewer): Promise<Page> {
    const context = await this.#browser.newContext({
      viewport: { width, height: 900 },
      locale: language,
      javaScriptEnabled: javaScript,
      colorScheme: dark ? 'dark' : 'light',
      // What is seen must not depend on the moment of an animation.
      reducedMotion: 'reduce',
      ignoreHTTPSErrors: true,
    });
    this.#contexts.add(context);
    return context.newPage();
  }

  /** Ends what the pages so far have left. */
  async reset(): Promise<void> {
    await Promise.all([...this.#contexts].map((context) => context.close()));
    this.#contexts.clear();
  }

  close(): Promise<void> {
    return this.#browser.close();
  }
}

/**
 * What axe-core holds against a page, a line each: the rule, and the element. Empty where all is well. It waits for timers, so the page must
 * be one with JavaScript.
 */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate<AxeResults>(`axe.run(${JSON.stringify(RULES)})`);
  return violations.flatMap(({ id, help, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target.join(' ')}: ${failureSummary ?? ''}`),
  );
}

/** What of a page does not fit into its window, a line each, as `layout-faults.js` finds it. Empty where all is well. */
export function layoutFaults(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(LAYOUT);
}
