import { expect, test } from 'vitest';
import { alpnServerName, identifierOf } from '../../../src/certs/identifier.ts';
import { coversHost, readFacts, selfSigned } from '../../../src/certs/x509.ts';

test('an order names addresses as such (RFC 8738 §3)', () => {
  expect(identifierOf('cr.example')).toEqual({ type: 'dns', value: 'cr.example' });
  expect(identifierOf('9.9.9.9')).toEqual({ type: 'ip', value: '9.9.9.9' });
  expect(identifierOf('2620:fe::fe')).toEqual({ type: 'ip', value: '2620:fe::fe' });
});

// The examples of RFC 8738 §6.
test.each([
  ['cr.example', 'cr.example'],
  ['192.0.2.1', '1.2.0.192.in-addr.arpa'],
  ['2001:db8::1', '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa'],
])('for TLS-ALPN-01 a CA asks for %s as %s', (host, serverName) => {
  expect(alpnServerName(host)).toBe(serverName);
});

test('an address is found in a certificate, however OpenSSL writes it', () => {
  const names = ['2620:fe::fe', '9.9.9.9'];
  const { certificate } = selfSigned({ commonName: 'x', names, notBefore: 0, notAfter: 1e12 });
  const facts = readFacts(certificate);
  expect(facts.names).toEqual(names);
  expect(names.every((name) => coversHost(facts.names, name))).toBe(true);
  expect(coversHost(facts.names, '9.9.9.8')).toBe(false);
});
