import { timingSafeEqual } from 'node:crypto';
import { type Context, Hono, type Next } from 'hono';
import { getCookie, setCookie } from 'hono/cookie';
import { streamSSE } from 'hono/streaming';
import type { DashboardReport } from '../admin/contract.ts';
import { languageOf } from '../kit/language.ts';
import { LIVE, STYLE } from './assets.ts';
import { page, sections } from './view.ts';

export interface DashboardOptions {
  /** Asks the gateway. @throws where it does not answer */
  readonly read: () => Promise<DashboardReport>;
  /** Whoever has it may look: it is in the URL that is printed, and in a cookie afterwards. */
  readonly token: string;
  readonly port: () => number;
  /** Between two readings, ms. */
  readonly every?: number;
}

/** Between two readings, ms. */
const EVERY = 2_000;

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

/**
 * The operator's view, for a browser on this machine. Other users of the machine and web pages that the operator has open can connect to it, too:
 * so it answers only under its own names (against DNS rebinding), and only to whoever has the token, which the browser sends with its own
 * requests alone.
 */
export function createDashboard(options: DashboardOptions): Hono {
  const { token, port, every = EVERY } = options;
  const app = new Hono();
  const read = shared(options.read, every / 2);
  // Cookies know no ports: another dashboard on this machine has its own.
  const cookie = () => `dashboard-${port()}`;

  app.use('*', async (c, next) => {
    for (const [name, value] of Object.entries(HEADERS)) c.header(name, value);
    const host = c.req.header('host') ?? '';
    if (host !== `127.0.0.1:${port()}` && host !== `localhost:${port()}`) {
      return c.text('this is not a name of the dashboard; open the URL that gateway dashboard printed\n', 403);
    }
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') return c.text('only GET\n', 405, { allow: 'GET, HEAD' });
    return next();
  });

  app.get('/', async (c, next) => {
    const given = c.req.query('token');
    if (given === undefined) return next();
    if (!equal(given, token)) return refuse(c);
    setCookie(c, cookie(), token, { httpOnly: true, sameSite: 'Strict', path: '/' });
    // The token does not stay in the address bar.
    return c.redirect('/', 303);
  });

  const guard = async (c: Context, next: Next) => {
    const site = c.req.header('sec-fetch-site');
    const isForeign = site === 'cross-site' || site === 'same-site';
    if (isForeign || !equal(getCookie(c, cookie()) ?? '', token)) return refuse(c);
    return next();
  };

  app.get('/', guard, async (c) => {
    const language = languageOf(c.req.query('lang'), c.req.header('accept-language'));
    return c.html(page(sections(await read(), language), language));
  });
  app.get('/style.css', guard, (c) => c.body(STYLE, 200, { 'content-type': 'text/css; charset=utf-8' }));
  app.get('/live.js', guard, (c) => c.body(LIVE, 200, { 'content-type': 'text/javascript; charset=utf-8' }));
  app.get('/report.json', guard, async (c) => c.json(await read()));
  app.get('/events', guard, (c) => {
    const language = languageOf(c.req.query('lang'), c.req.header('accept-language'));
    return streamSSE(c, async (stream) => {
      while (!stream.aborted) {
        try {
          const markup = await sections(await read(), language);
          await stream.writeSSE({ event: 'state', data: JSON.stringify(markup) });
        } catch {
          await stream.writeSSE({ event: 'lost', data: '' });
        }
        await stream.sleep(every);
      }
    });
  });

  app.onError((error, c) => c.text(`the gateway does not answer: ${error.message}\n`, 503));
  return app;
}

function refuse(c: Context): Response {
  return c.text('open the URL that gateway dashboard printed: it has a token that is asked for here\n', 401);
}

function equal(given: string, token: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(token)];
  return one.length === other.length && timingSafeEqual(one, other);
}

/** One question for all who ask within `ms`. */
function shared<T>(ask: () => Promise<T>, ms: number): () => Promise<T> {
  let answer: Promise<T> | null = null;
  let until = 0;
  return () => {
    const now = performance.now();
    if (answer === null || now >= until) {
      answer = ask();
      until = now + ms;
    }
    return answer;
  };
}
