import { describe, expect, test } from 'vitest';
import { parseImageRules } from '../../../src/config/images.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { type Digest, parseReference, type Target } from '../../../src/oci/names.ts';
import { OPERATOR_AUDIENCE } from '../../../src/policy/audiences.ts';
import { ImagePolicy, type ImageRefusal } from '../../../src/policy/image-policy.ts';
import { MemoryTags } from '../../support/memory-tags.ts';

const digest = (letter: string) => `sha256:${letter.repeat(64)}` as Digest;
const [A, B, C, D] = [digest('a'), digest('b'), digest('c'), digest('d')];

/** `docker.io/library/nginx:1`, `quay.io/a/b@sha256:…`. */
function target(image: string, kind: 'manifest' | 'blob' | 'referrers' = 'manifest'): Target {
  const at = image.indexOf('@');
  const named = at < 0 ? image : image.slice(0, at);
  const slash = named.indexOf('/');
  const colon = named.indexOf(':', named.lastIndexOf('/'));
  const [registry, repository] = [named.slice(0, slash), named.slice(slash + 1, colon < 0 ? undefined : colon)];
  const reference = parseReference(at < 0 ? named.slice(colon + 1) : image.slice(at + 1));
  if (reference === null) throw new Error(image);
  if (reference.kind === 'digest' && kind !== 'manifest')
    return { registry, repository, what: { kind, digest: reference.digest } };
  return { registry, repository, what: { kind: 'manifest', reference } };
}

function make(rules: readonly unknown[], history = new MemoryTags()) {
  const refusals: ImageRefusal[] = [];
  const policy = new ImagePolicy({
    rules: parseImageRules(rules),
    history,
    onRefusal: (refusal) => refusals.push(refusal),
  });
  const passes = async (of: Target, audience?: string): Promise<boolean> => {
    try {
      await policy.admit(of, audience);
      return true;
    } catch (error) {
      if (error instanceof RegistryError && error.kind === 'imageRefused') return false;
      throw error;
    }
  };
  return { policy, history, refusals, passes };
}

const NGINX = { registry: 'docker.io', repository: 'library/nginx' };

describe('patterns', () => {
  test.each<[rules: string[], image: string, passes: boolean]>([
    [[], 'docker.io/library/nginx:1', true],
    // A list that only refuses lets the rest through; one that allows is closed.
    [['!quay.io/*'], 'docker.io/library/nginx:1', true],
    [['!quay.io/*'], 'quay.io/a/b:1', false],
    [['docker.io/*'], 'quay.io/a/b:1', false],
    [['docker.io/*'], 'docker.io/library/nginx:1', true],
    // The last that matches decides.
    [['*', '!docker.io/*', 'docker.io/library/nginx'], 'docker.io/library/nginx:1', true],
    [['*', '!docker.io/*', 'docker.io/library/nginx'], 'docker.io/library/redis:1', false],
    [['docker.io/library/nginx', '!docker.io/*', '*'], 'docker.io/library/redis:1', true],
    // A star stands for slashes too.
    [['docker.io/*'], 'docker.io/a/b/c:1', true],
    [['*/nginx'], 'docker.io/library/nginx:1', true],
    [['*/nginx'], 'quay.io/a/nginx:1', true],
    [['*/nginx'], 'quay.io/a/nginxy:1', false],
    // Docker Hub has several names, and images without a slash.
    [['!docker.io/nginx'], 'docker.io/library/nginx:1', false],
    [['!docker.io/library/nginx'], 'docker.io/library/nginx:1', false],
    [['!docker.io/ngin*'], 'docker.io/library/nginx:1', false],
    [['!docker.io/nginx'], 'docker.io/other/nginx:1', true],
    [['!index.docker.io/library/nginx'], 'docker.io/library/nginx:1', false],
    [['!registry-1.docker.io:443/nginx'], 'docker.io/library/nginx:1', false],
    [['!registry.hub.docker.com/*'], 'docker.io/a/b:1', false],
    [['!DOCKER.IO/Nginx'], 'docker.io/library/nginx:1', false],
    [['!quay.io/nginx'], 'quay.io/library/nginx:1', true],
    // The port of HTTPS is none.
    [['!quay.io:443/*'], 'quay.io/a/b:1', false],
    [['!quay.io/*'], 'quay.io:443/a/b:1', false],
    [['!localhost:5000/*'], 'localhost:5000/a:1', false],
    [['!localhost:5000/*'], 'localhost:5001/a:1', true],
    // Registries that take capitals take any.
    [['!hf.co/evil/*'], 'hf.co/Evil/Model:Q4_0', false],
    [['!hf.co/Org/Model:q4_0'], 'hf.co/org/MODEL:Q4_0', false],
    [['!quay.io/a/b:Latest'], 'quay.io/a/b:latest', true],
    // Tags.
    [['!*:latest'], 'quay.io/a/b:latest', false],
    [['!*/*:latest'], 'docker.io/library/nginx:latest', false],
    [['!*/*:latest'], 'docker.io/library/nginx:latest2', true],
    [['docker.io/nginx:1.*'], 'docker.io/library/nginx:1.25', true],
    [['docker.io/nginx:1.*'], 'docker.io/library/nginx:2', false],
    [['*', '!*:latest', 'quay.io/trusted/*'], 'quay.io/trusted/x:latest', true],
    // A pattern for digests allows no tag.
    [['*@*'], 'docker.io/library/nginx:1', false],
    [['*@*'], `docker.io/library/nginx@${A}`, true],
    [['!*', 'docker.io/library/*@*'], `docker.io/library/nginx@${A}`, true],
    [['!*', 'docker.io/library/*@*'], `docker.io/other/nginx@${A}`, false],
    [[`!*@${A}`], `docker.io/library/nginx@${A}`, false],
    [[`!*@${A}`], `docker.io/library/nginx@${B}`, true],
    [[`!*@${A}`, 'docker.io/*'], `docker.io/library/nginx@${A}`, true],
    // A digest where nothing is said of tags.
    [['docker.io/*'], `docker.io/library/nginx@${A}`, true],
    [['docker.io/*'], `quay.io/a/b@${A}`, false],
    [['quay.io/*:latest', 'docker.io/*'], `docker.io/library/nginx@${A}`, true],
    [['docker.io/*:latest', 'docker.io/*'], `docker.io/library/nginx@${A}`, true],
    // Where something is, no tag is known to stand for it.
    [['*', '!*:latest'], `docker.io/library/nginx@${A}`, false],
    [['docker.io/nginx:1.*'], `docker.io/library/nginx@${A}`, false],
    [['*', '!*:latest', '*@*'], `docker.io/library/nginx@${A}`, true],
    [['*@*', '*', '!*:latest'], `docker.io/library/nginx@${A}`, true],
    [['*@*', '!docker.io/*'], `docker.io/library/nginx@${A}`, false],
    [['*@*', `!*@${A}`], `docker.io/library/nginx@${A}`, false],
    [['*@*', '!docker.io/*', 'docker.io/library/*', '!*:latest'], `docker.io/library/nginx@${A}`, false],
    // What belongs to an image is judged as the image.
    [['*', '!*:latest'], `docker.io/library/nginx:sha256-${'a'.repeat(64)}`, false],
    [['*', '!*:latest'], `docker.io/library/nginx:SHA256-${'A'.repeat(64)}.sig`, false],
    [['*', '!*:latest', '*@*'], `docker.io/library/nginx:sha256-${'a'.repeat(64)}.sig`, true],
    [['*', '!*:*.sig', '*@*'], `docker.io/library/nginx:sha256-${'a'.repeat(64)}.sig`, false],
    [['docker.io/*'], `docker.io/library/nginx:sha256-${'a'.repeat(64)}.sig`, true],
  ])('%j: %s passes: %s', async (rules, image, expected) => {
    const { passes } = make(rules);
    expect(await passes(target(image))).toBe(expected);
    const of = target(image);
    if (of.what.kind !== 'manifest' || of.what.reference.kind === 'tag') return;
    for (const kind of ['blob', 'referrers'] as const) expect(await passes(target(image, kind))).toBe(expected);
  });

  test.each<[rules: string[], passes: boolean]>([
    [['docker.io/*'], true],
    [['quay.io/*'], false],
    [['docker.io/nginx:1.*'], true],
    [['!docker.io/*', 'docker.io/nginx:1.*'], true],
    [['docker.io/nginx:1.*', '!docker.io/*'], false],
    [['docker.io/nginx@*'], false],
    [['*', '!*:latest'], true],
  ])('%j: the list of tags passes: %s', async (rules, expected) => {
    const { passes } = make(rules);
    expect(await passes({ ...NGINX, what: { kind: 'tags' } })).toBe(expected);
  });

  test('say which tags of a list are shown', async () => {
    const filter = async (...rules: string[]) => {
      const admission = await make(rules).policy.admit({ ...NGINX, what: { kind: 'tags' } });
      return admission?.tagsFilter ?? null;
    };
    expect(await filter()).toBeNull();
    expect(await filter('docker.io/*')).toBeNull();
    expect(await filter('quay.io/*:1', 'docker.io/*')).toBeNull();
    expect(await filter('docker.io/*', '!*:latest', '*:1')).toEqual({
      rules: [
        { tag: '1', allows: true },
        { tag: 'latest', allows: false },
      ],
      otherwise: true,
      anyCase: false,
    });
  });
});

describe('digests whose tags decide', () => {
  const RULES = ['*', '!*:latest'];

  test('pass by a tag that may pass and stands for them, through indexes down to blobs', async () => {
    const { passes, history } = make(RULES);
    history.tag(NGINX, 'latest', A);
    history.names(NGINX, A, B);
    history.names(NGINX, B, C);
    for (const one of [A, B, C]) expect(await passes(target(`docker.io/library/nginx@${one}`))).toBe(false);
    history.tag(NGINX, '1.25', A);
    for (const one of [A, B, C]) {
      expect(await passes(target(`docker.io/library/nginx@${one}`))).toBe(true);
      expect(await passes(target(`docker.io/library/nginx@${one}`, 'blob'))).toBe(true);
    }
    // Another repository's tag is no tag of this one.
    expect(await passes(target(`docker.io/library/redis@${A}`))).toBe(false);
    expect(await passes(target(`docker.io/library/nginx@${D}`))).toBe(false);
  });

  test('what passes is remembered, what does not is looked up each time, and other rules begin anew', async () => {
    const { policy, passes, history } = make(RULES);
    const of = target(`docker.io/library/nginx@${A}`);
    expect(await passes(of)).toBe(false);
    expect(await passes(of)).toBe(false);
    expect(history.asked).toBe(2);
    history.tag(NGINX, '1.25', A);
    expect(await passes(of)).toBe(true);
    expect(history.asked).toBe(3);
    expect(policy.admit(of)).not.toBeInstanceOf(Promise);
    expect(history.asked).toBe(3);
    policy.reconfigure({ policy: { images: parseImageRules(['*', '!*:1.*']) } });
    expect(await passes(of)).toBe(false);
  });

  test('are told apart by who asks', async () => {
    const { policy, passes, history } = make(['*', { image: '!*:latest', users: ['ci'] }]);
    history.tag(NGINX, 'latest', A);
    const of = target(`docker.io/library/nginx@${A}`);
    const [anna, ci] = [policy.audience('anna', '192.0.2.1'), policy.audience('ci', '192.0.2.1')];
    expect(await passes(of, anna)).toBe(true);
    expect(await passes(of, ci)).toBe(false);
    expect(await passes(of, anna)).toBe(true);
  });

  test('a digest that is refused is refused by its tag, too', async () => {
    const of = target('docker.io/library/nginx:1.25');
    const admission = await make(['*', `!*@${A}`]).policy.admit(of);
    expect(() => admission?.tagged('1.25', B)).not.toThrow();
    expect(() => admission?.tagged('1.25', A)).toThrow('does not let');
    const later = await make([`!*@${A}`, '*:1.25']).policy.admit(of);
    expect(later).not.toBeNull();
    expect(() => later?.tagged('1.25', A)).not.toThrow();
  });

  test('what is about to be given opens what it names, without a question, for the same audience and under the same rules', async () => {
    const { policy, passes, history } = make(['*', { image: '!*:latest', users: ['ci'] }, '!*:nightly']);
    const admission = await policy.admit(target('docker.io/library/nginx:1.25'));
    if (admission === null) throw new Error('not admitted');
    expect(admission.wantsParts(A)).toBe(true);
    admission.gives(A, null);
    expect(admission.wantsParts(A)).toBe(true);
    admission.gives(A, [B]);
    expect(admission.wantsParts(A)).toBe(false);
    admission.givesWith([C]);
    for (const one of [A, B, C]) expect(await passes(target(`docker.io/library/nginx@${one}`))).toBe(true);
    expect(history.asked).toBe(0);
    expect(await passes(target(`docker.io/library/redis@${B}`))).toBe(false);
    expect(await passes(target(`docker.io/library/nginx@${B}`), policy.audience('ci', '192.0.2.1'))).toBe(false);
    // What was admitted before a change opens nothing after it.
    policy.reconfigure({ policy: { images: parseImageRules(['*', '!*:1.25']) } });
    admission.gives(A, [D]);
    for (const one of [A, B, C, D]) expect(await passes(target(`docker.io/library/nginx@${one}`))).toBe(false);
  });

  test('where patterns name digests, each is judged by itself', async () => {
    const { policy, passes } = make(['*', '!*:latest', `!*@${B}`]);
    const admission = await policy.admit(target('docker.io/library/nginx:1.25'));
    admission?.gives(A, [B]);
    expect(admission?.wantsParts(A)).toBe(false);
    expect(await passes(target(`docker.io/library/nginx@${B}`))).toBe(false);
  });

  test('what belongs to an image that passes, passes: its signature, and what the signature names', async () => {
    const { passes, history } = make(['docker.io/nginx:1.*']);
    const signature = `sha256-${'a'.repeat(64)}.sig`;
    expect(await passes(target(`docker.io/library/nginx:${signature}`))).toBe(false);
    history.tag(NGINX, '1.25', A);
    expect(await passes(target(`docker.io/library/nginx:${signature}`))).toBe(true);
    history.tag(NGINX, signature, B);
    history.names(NGINX, B, C);
    expect(await passes(target(`docker.io/library/nginx@${B}`))).toBe(true);
    expect(await passes(target(`docker.io/library/nginx@${C}`, 'blob'))).toBe(true);
    // Signatures that sign each other lead nowhere, and end.
    history.tag(NGINX, `sha256-${'c'.repeat(64)}.sig`, D);
    history.tag(NGINX, `sha256-${'d'.repeat(64)}.sig`, D);
    expect(await passes(target(`docker.io/library/nginx@${D}`))).toBe(true);
    const lost = digest('e');
    history.tag(NGINX, `sha256-${'f'.repeat(64)}.sig`, lost);
    history.tag(NGINX, `sha256-${'e'.repeat(64)}.sig`, digest('f'));
    history.asked = 0;
    expect(await passes(target(`docker.io/library/nginx@${lost}`))).toBe(false);
    expect(history.asked).toBeLessThanOrEqual(16);
  });

  test('nothing passes while what tags stood for cannot be read, and the message says to pull by a tag', async () => {
    const { policy, history } = make(RULES);
    const of = target(`docker.io/library/nginx@${A}`);
    await expect(policy.admit(of)).rejects.toMatchObject({
      kind: 'imageRefused',
      next: expect.stringContaining('pull it by a tag that may pass first'),
    });
    history.failing = true;
    await expect(policy.admit(of)).rejects.toMatchObject({ kind: 'unavailable' });
  });
});

describe('clients', () => {
  const RULES = [
    'docker.io/*',
    { image: 'quay.io/*', users: ['anna'] },
    { image: '!docker.io/secret/*', networks: ['10.0.0.0/8'] },
    { image: 'ghcr.io/*', users: ['ci'], networks: ['10.0.0.0/8', '2001:db8::/32'] },
  ];
  const [HUB, SECRET, QUAY, GHCR] = ['docker.io/a/b:1', 'docker.io/secret/b:1', 'quay.io/a/b:1', 'ghcr.io/a/b:1'];

  test.each<[user: string | null, address: string, images: string[]]>([
    [null, '192.0.2.1', [HUB, SECRET]],
    [null, '10.1.2.3', [HUB]],
    [null, '::ffff:10.1.2.3', [HUB]],
    ['anna', '192.0.2.1', [HUB, SECRET, QUAY]],
    ['anna', '10.1.2.3', [HUB, QUAY]],
    ['ci', '192.0.2.1', [HUB, SECRET]],
    ['ci', '10.1.2.3', [HUB, GHCR]],
    ['ci', '2001:db8::7', [HUB, SECRET, GHCR]],
    [null, 'no address', [HUB, SECRET]],
  ])('%s at %s is given %j', async (user, address, images) => {
    const { policy, passes } = make(RULES);
    const audience = policy.audience(user, address);
    for (const image of [HUB, SECRET, QUAY, GHCR])
      expect([image, await passes(target(image), audience)]).toEqual([image, images.includes(image)]);
  });

  test('the gateway’s own commands are held to the rules for all', async () => {
    const { passes } = make(RULES);
    const given = await Promise.all([HUB, SECRET, QUAY, GHCR].map((image) => passes(target(image), OPERATOR_AUDIENCE)));
    expect(given).toEqual([true, true, false, false]);
  });

  test('an audience of other rules opens nothing, and closes what it might have to', async () => {
    const { policy, passes } = make(RULES);
    const foreign = [
      make([...RULES, '*']).policy.audience('anna', '192.0.2.1'),
      '',
      'operator.',
      `${'x'.repeat(16)}.111`,
    ];
    for (const audience of foreign) {
      expect(await passes(target(HUB), audience)).toBe(true);
      for (const image of [SECRET, QUAY, GHCR]) expect(await passes(target(image), audience)).toBe(false);
    }
    // One bit too many is not of these rules.
    expect(await passes(target(QUAY), `${policy.audience('anna', '192.0.2.1')}1`)).toBe(false);
  });

  test('those that are judged alike have one audience, without spaces', () => {
    const { policy } = make(RULES);
    const of = (user: string | null, address: string) => policy.audience(user, address);
    expect(of('bert', '192.0.2.1')).toBe(of(null, '198.51.100.7'));
    expect(of('anna', '192.0.2.1')).not.toBe(of(null, '192.0.2.1'));
    expect(of('ci', '10.0.0.1')).not.toBe(of(null, '10.0.0.1'));
    expect(of('anna', '10.0.0.1')).not.toContain(' ');
    expect(make(['docker.io/*']).policy.audience('anna', '10.0.0.1')).toBe('');
    expect(make([]).policy.audience('anna', '10.0.0.1')).toBe('');
  });

  test('what other gateways ask for is refused where nobody here may have it', () => {
    const { policy } = make(['docker.io/nginx:1.*', { image: 'quay.io/*', users: ['anna'] }, `!*@${A}`]);
    const may = (registry: string, repository: string, of = B) =>
      policy.mayPassForSomebody({ registry, repository }, of);
    expect(may('docker.io', 'library/nginx')).toBe(true);
    expect(may('quay.io', 'a/b')).toBe(true);
    expect(may('docker.io', 'library/redis')).toBe(false);
    expect(may('quay.io', 'a/b', A)).toBe(false);
    const other = make(['*', { image: '!*', users: ['anna'] }]).policy;
    expect(other.mayPassForSomebody(NGINX, A)).toBe(true);
  });
});

test('what manifests name has to be known where a pattern names tags', () => {
  const needs = (...rules: string[]) => make(rules).policy.needsTags;
  expect(needs()).toBe(false);
  expect(needs('localhost:5000/app', 'docker.io/library/*', '*@sha256:*')).toBe(false);
  expect(needs('docker.io/library/*', '!*:latest')).toBe(true);
});

test('refusals are told with the image and with what decided', async () => {
  const { passes, refusals } = make(['docker.io/*', '!docker.io/bad/*', '!*:latest', `!*@${B}`]);
  const images = [
    'quay.io/a/b:1',
    'docker.io/bad/x:1',
    'docker.io/a/b:latest',
    `docker.io/a/b@${B}`,
    `docker.io/a/b@${A}`,
  ];
  for (const image of images) expect(await passes(target(image))).toBe(false);
  await passes({ registry: 'quay.io', repository: 'a/b', what: { kind: 'tags' } });
  expect(refusals.map(({ registry, image, ground }) => [registry, image, ground])).toEqual([
    ['quay.io', 'quay.io/a/b:1', 'unlisted'],
    ['docker.io', 'docker.io/bad/x:1', 'repository'],
    ['docker.io', 'docker.io/a/b:latest', 'tag'],
    ['docker.io', `docker.io/a/b@${B}`, 'digest'],
    ['docker.io', `docker.io/a/b@${A}`, 'untagged'],
    ['quay.io', 'quay.io/a/b', 'unlisted'],
  ]);
});
