import type { Grant } from '../../access/access.ts';
import type { TableSnapshot } from '../../aliases/table.ts';
import { clientConfiguration, configurationText } from '../../clients/configuration.ts';
import { CLIENT_KINDS, type ClientFacts, publicFacts } from '../../clients/facts.ts';
import { clientScript } from '../../clients/script.ts';
import { didYouMean } from '../../kit/did-you-mean.ts';
import { languageOf } from '../../kit/language.ts';
import { RegistryError } from '../../oci/errors.ts';
import type { RegistryOutline } from '../../proxy/outline.ts';
import { checkAccess, type EdgeApp, type EdgeContext, on, requireRole, respond } from '../handlers.ts';
import type { AccessPort } from '../request-context.ts';
import { type SmallAnswer, textAnswer } from '../response-writer.ts';
import { SCRIPT_PATH, scriptAnswer } from './document.ts';
import { renderPage } from './page.ts';
import { forStrangers, isStranger } from './visible.ts';

export interface PageDeps {
  readonly table: () => TableSnapshot;
  readonly access: AccessPort;
  /** What clients are configured with, by whether they must log in. */
  readonly clientFacts: (credentials: boolean) => Promise<ClientFacts>;
  readonly outlines: () => readonly RegistryOutline[] | Promise<readonly RegistryOutline[]>;
  readonly version: string;
}

/** What people open in a browser or fetch by curl: the page, and the configuration of each client. */
export function addPageRoutes(app: EdgeApp, deps: PageDeps): void {
  app.get(
    '/',
    on('registry', async (c) => {
      const role = requireRole(c, deps.table());
      const { grant, refusal } = await admission(c, deps.access);
      const { facts, outlines } = await told(c, deps, grant, refusal);
      const language = languageOf(c.req.query('lang'), c.req.header('accept-language'));
      const user = grant?.user ?? null;
      const page = {
        facts,
        outlines,
        role,
        language,
        user,
        refusal,
        version: deps.version,
        image: c.req.query('image'),
      };
      return respond(c, 'page', await renderPage(page, c.req.header('if-none-match')));
    }),
  );

  app.get(
    SCRIPT_PATH,
    on('registry', (c) => {
      requireRole(c, deps.table());
      return respond(c, 'page', scriptAnswer());
    }),
  );

  // Browsers ask for a user and a password where they are challenged to (RFC 7617), and send them to the page from then on.
  app.get(
    '/login',
    on('registry', async (c) => {
      requireRole(c, deps.table());
      await checkAccess(c, deps.access);
      return respond(c, 'page', { ...textAnswer(303, 'see /\n'), headers: { location: '/' } });
    }),
  );

  app.get(
    '/client/:kind',
    on('registry', async (c) => {
      requireRole(c, deps.table());
      const grant = await checkAccess(c, deps.access);
      const asked = c.req.param('kind') ?? '';
      const wantsScript = asked.endsWith('.sh') || c.req.query('script') !== undefined;
      const name = asked.replace(/\.sh$/, '');
      const kind = CLIENT_KINDS.find((one) => one === name);
      if (kind === undefined) return respond(c, 'page', textAnswer(404, noSuchClient(name)));
      const { facts } = await told(c, deps, grant, null);
      if (wantsScript) return respond(c, 'page', scriptText(clientScript(kind, facts)));
      const configuration = clientConfiguration(kind, facts);
      if (c.req.query('json') === undefined)
        return respond(c, 'page', textAnswer(200, configurationText(configuration)));
      // For `gateway client KIND --gateway URL` on a client's machine.
      const { status, headers, body } = textAnswer(
        200,
        JSON.stringify({ ...configuration, facts: publicFacts(facts) }),
      );
      return respond(c, 'page', { status, headers: { ...headers, 'content-type': 'application/json' }, body });
    }),
  );
}

async function admission(
  c: EdgeContext,
  access: AccessPort,
): Promise<{ grant: Grant | null; refusal: RegistryError | null }> {
  try {
    return { grant: await checkAccess(c, access), refusal: null };
  } catch (error) {
    if (error instanceof RegistryError) return { grant: null, refusal: error };
    throw error;
  }
}

/** What this client may know of the gateway and its registries. */
async function told(
  c: EdgeContext,
  { table, clientFacts, outlines }: PageDeps,
  grant: Grant | null,
  refusal: RegistryError | null,
): Promise<{ facts: ClientFacts; outlines: readonly RegistryOutline[] }> {
  const asker = { known: grant?.known ?? false, address: c.env.context.clientAddress };
  const all = await outlines();
  const facts = await clientFacts(grant?.authenticated ?? refusal?.status === 401);
  return { facts: isStranger(asker, table()) ? forStrangers(facts, all) : facts, outlines: all };
}

function scriptText(body: string): SmallAnswer {
  const { status, headers } = textAnswer(200, body);
  return { status, headers: { ...headers, 'content-type': 'text/x-shellscript; charset=utf-8' }, body };
}

/** In comments, so that a shell which is given it does nothing. */
function noSuchClient(asked: string): string {
  const near = didYouMean(asked, CLIENT_KINDS);
  const meant = near === undefined ? '' : `; did you mean ${near}?`;
  return `# no such client${meant}\n# there are: ${CLIENT_KINDS.join(', ')}; each as a script, too: /client/docker.sh\n`;
}
