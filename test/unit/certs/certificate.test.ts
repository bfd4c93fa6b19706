import { generateKeyPairSync, type X509Certificate } from 'node:crypto';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { remediation } from '../../../src/certs/advice.ts';
import { coversHost, readMaterial, requireKnownIssuer, signCertificate } from '../../../src/certs/x509.ts';

const NOW = Math.floor(Date.now() / 1000) * 1000;

function pair() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { key: privateKey, publicKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

function sign(names: string[], ca = pair(), commonName = 'A CA') {
  const leaf = pair();
  const validity = { notBefore: NOW, notAfter: NOW + 86_400_000 };
  const signer = { ...ca, commonName };
  const root = signCertificate({ commonName, names: [], publicKey: ca.publicKey, ...validity, ca: true }, signer);
  const certificate = signCertificate(
    { commonName: 'leaf', names, publicKey: leaf.publicKey, ...validity, ca: false },
    signer,
  );
  const chain = (...list: X509Certificate[]) => list.map(String).join('');
  return {
    key: leaf.pem,
    leaf: certificate,
    root,
    chain: chain(certificate, root),
    reversed: chain(root, certificate),
  };
}

describe('a certificate to import', () => {
  const made = sign(['a.example.com']);
  const requires = (chain: string) => requireKnownIssuer(readMaterial(chain, made.key));

  it('comes with its issuers, up to a root that is in the file or that this machine knows', () => {
    expect(() => requires(made.chain)).not.toThrow();
    expect(() => requires(made.leaf.toString())).toThrow(
      /signed by A CA, whose certificate is neither in the file nor/,
    );
    const kept = getCACertificates('default');
    setDefaultCACertificates([...kept, made.root.toString()]);
    try {
      expect(() => requires(made.leaf.toString())).not.toThrow();
    } finally {
      setDefaultCACertificates(kept);
    }
  });

  it('is not followed by an issuer of the right name that did not sign it', () => {
    const other = sign(['b.example.com']);
    expect(() => readMaterial(made.leaf.toString() + other.root, made.key)).toThrow(/does not follow/);
  });
});

describe('readMaterial', () => {
  it('reads what has to be known of a chain', () => {
    const made = sign(['Hub.example.com', '*.example.org', '10.0.0.1']);
    expect(readMaterial(made.chain, made.key)).toMatchObject({
      names: ['hub.example.com', '*.example.org', '10.0.0.1'],
      notBefore: NOW,
      notAfter: NOW + 86_400_000,
      serial: made.leaf.serialNumber,
      issuer: 'A CA',
    });
  });

  it('takes what lies around the PEM blocks for comments', () => {
    const made = sign(['a.example.com']);
    const material = readMaterial(`subject=leaf\r\n${made.chain.replaceAll('\n', '\r\n')}\ntrailing`, made.key);
    expect(material.chain.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(material.chain).not.toContain('subject');
  });

  const made = sign(['a.example.com']);
  it.each([
    ['no certificate', 'hello', made.key, /no PEM certificate/],
    ['another key', made.chain, pair().pem, /private key does not belong/],
    ['the root first', made.reversed, made.key, /private key does not belong/],
    ['a key that is none', made.chain, 'hello', /private key cannot be read/],
    [
      'a chain that does not follow',
      made.leaf.toString() + sign(['b'], pair(), 'Another CA').root,
      made.key,
      /does not follow/,
    ],
    ['a damaged certificate', made.chain.replace(/\nMII/, '\nAAA'), made.key, /cannot be read/],
  ])('refuses %s in words', (_, chain, key, words) => {
    expect(() => readMaterial(chain, key)).toThrow(words);
  });

  it('refuses a certificate that names no host', () => {
    const nameless = sign([]);
    expect(() => readMaterial(nameless.chain, nameless.key)).toThrow(/names no host in its subjectAltName/);
  });
});

describe('coversHost', () => {
  it.each([
    [['hub.example.com'], 'hub.example.com', true],
    [['*.example.com'], 'hub.example.com', true],
    [['*.example.com'], 'a.hub.example.com', false],
    [['*.example.com'], 'example.com', false],
    [['*.0.0.1'], '10.0.0.1', false],
    [['example.com'], 'hub.example.com', false],
  ])('%j for %s: %s', (names, host, expected) => {
    expect(coversHost(names, host)).toBe(expected);
  });
});

describe('remediation', () => {
  it('knows every problem of RFC 8555 §6.7 that an order can meet', () => {
    const words =
      'accountDoesNotExist badCSR badNonce badPublicKey badSignatureAlgorithm caa compound connection dns externalAccountRequired incorrectResponse invalidContact malformed orderNotReady rateLimited rejectedIdentifier serverInternal tls unauthorized unsupportedContact unsupportedIdentifier userActionRequired';
    const unknown = remediation('urn:ietf:params:acme:error:somethingNew');
    for (const word of words.split(' '))
      expect(remediation(`urn:ietf:params:acme:error:${word}`), word).not.toBe(unknown);
    expect(remediation('constructor')).toBe(unknown);
  });
});
