import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { What } from '../../src/oci/names.ts';
import { answersBed, closeAfterEach, toldOf } from '../support/answers-bed.ts';
import { generated, sha256 } from '../support/fake-registry/index.ts';

closeAfterEach();

const REASON = 'OCI index found, but accept header does not support OCI indexes';
const digest = sha256(Buffer.from('x'));
const errors = (message: unknown, code: unknown = 'MANIFEST_UNKNOWN') =>
  JSON.stringify({ errors: [{ code, message }] });

const QUESTIONS: [string, What][] = [
  ['a manifest by tag', { kind: 'manifest', reference: { kind: 'tag', tag: 'latest' } }],
  ['a manifest by digest', { kind: 'manifest', reference: { kind: 'digest', digest } }],
  ['a blob', { kind: 'blob', digest }],
  ['tags', { kind: 'tags' }],
];

describe("a registry's own reason is quoted behind ours", () => {
  it.each(QUESTIONS.flatMap(([name, what]) => [403, 404, 500].map((status) => [name, status, what] as const)))(
    'for %s, with status %i',
    async (_, status, what) => {
      const { fake, ask } = await answersBed();
      fake.faults = () => ({ status, body: errors(REASON) });
      const told = await toldOf(ask(what));
      expect(told.message).toMatch(new RegExp(`.+; .+; r\\.test says: "${REASON}"$`));
      expect(told.detail).toMatchObject({ registry: 'r.test', upstream: 'MANIFEST_UNKNOWN' });
    },
  );

  it('for a HEAD, which a GET has decided', async () => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 404, body: errors(REASON) });
    expect((await toldOf(manifest('latest', { method: 'HEAD' }))).message).toContain(`r.test says: "${REASON}"`);
  });

  it('for referrers, and for a limit', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = () => ({ status: 429, body: errors('slow down') });
    const told = await toldOf(ask({ kind: 'referrers', digest }));
    expect([told.status, told.message]).toEqual([429, expect.stringContaining('r.test says: "slow down"')]);
  });

  it.each([
    ['errors', { errors: [{ code: 'DENIED', message: 'requested access is denied' }] }, 'requested access is denied'],
    ['details', { details: 'incorrect username or password' }, 'incorrect username or password'],
    ['detail', { detail: 'account is locked' }, 'account is locked'],
    ['error_description', { error: 'invalid_grant', error_description: 'token expired' }, 'token expired'],
    ['error', { error: 'unauthorized_client' }, 'unauthorized_client'],
    ['an error with a message', { error: { code: 403, message: 'no such project' } }, 'no such project'],
  ])('for a token that is refused, in `%s`', async (_, body, words) => {
    const { fake, manifest } = await answersBed({ auth: { scheme: 'bearer' } });
    fake.faults = ({ kind }) => (kind === 'token' ? { status: 403, body: JSON.stringify(body) } : undefined);
    const told = await toldOf(manifest('latest'));
    expect([told.status, told.message]).toEqual([
      403,
      expect.stringMatching(`token endpoint of r.test says: "${words}"$`),
    ]);
  });

  it('where it came compressed', async () => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 404, headers: { 'content-encoding': 'GZIP' }, body: gzipSync(errors(REASON)) });
    expect((await toldOf(manifest('latest'))).message).toContain(REASON);
  });
});

describe('a reason is cleaned and bounded', () => {
  it.each([
    ['control characters and lines', 'one\r\ntwo\u001b[31m\u0000three\u2028four', 'one two [31m three four'],
    ['what turns the direction of text', 'safe\u202egnp.exe', 'safe gnp.exe'],
    ['quotes', 'no "x" here', "no 'x' here"],
    [
      'a URL with its signature',
      'see https://u:p@cdn.test/x?X-Amz-Signature=abc',
      'see https://***@cdn.test/x?X-Amz-Signature=***',
    ],
    ['a token', `bad token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln`, 'bad token ***'],
    ['an authorisation', `got Basic ${'QWxhZGRpbjpvcGVu'.repeat(2)}`, 'got Basic ***'],
  ])('of %s', async (_, said, quoted) => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 404, body: errors(said) });
    expect((await toldOf(manifest('latest'))).message).toMatch(
      new RegExp(`says: "${quoted.replace(/[[\]?*.]/g, '\\$&')}"$`),
    );
  });

  it("of the operator's password, and the host that is really asked", async () => {
    const { fake, bed, manifest } = await answersBed();
    bed.put('r.test', { fake, credentials: { username: 'ops', password: 'correct horse' } });
    fake.faults = () => ({ status: 403, body: errors('127.0.0.1 does not know ops:correct horse') });
    const { message } = await toldOf(manifest('latest', { authenticated: true }));
    expect(message).toContain('says: "*** does not know ops:***"');
  });

  it.each([encodeURIComponent, (text: string) => new URLSearchParams([['p', text]]).toString().slice(2)])(
    'of that password as a URL or a form has it (%s)',
    async (encode) => {
      const { fake, bed, manifest } = await answersBed();
      const password = 'Tr0ub4dor&+ 3';
      bed.put('r.test', { fake, credentials: { username: 'ops', password } });
      fake.faults = () => ({ status: 403, body: errors(`no user for password=${encode(password)}`) });
      const { message } = await toldOf(manifest('latest', { authenticated: true }));
      expect(message).toContain('says: "no user for password=***"');
    },
  );

  it('to 300 characters', async () => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 404, body: errors('x'.repeat(50_000)) });
    expect((await toldOf(manifest('latest'))).message.length).toBeLessThan(500);
  });

  it.each([
    ['deep JSON', `{"errors":${'['.repeat(100_000)}`],
    ['other types', errors({ a: 1 }, ['x'])],
    ['no reason', errors('  ', '<script>')],
    ['a web page', '<html><h1>Not here</h1></html>'],
    ['nothing', ''],
  ])('to nothing where it is %s', async (_, body) => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 404, body });
    const told = await toldOf(manifest('latest'));
    expect([told.status, told.message]).toEqual([
      404,
      'r.test/library/app has no manifest latest; check the tag or digest',
    ]);
    expect(told.detail).toEqual({ registry: 'r.test', repository: 'library/app', reference: 'latest' });
  });
});

it('what a registry says of a refused range or blob reaches the one who asked for it', async () => {
  const { fake, repository, blob } = await answersBed();
  const layer = repository.addBlob(generated(1000));
  fake.faults = ({ kind }) => (kind === 'blob' ? { status: 451, body: errors('not in your country') } : undefined);
  expect((await toldOf(blob(layer.digest, { range: 'bytes=1-2' }))).message).toContain('not in your country');
});
