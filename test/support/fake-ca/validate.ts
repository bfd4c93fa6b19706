import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { AsnConvert } from '@peculiar/asn1-schema';
import { Certificate } from '@peculiar/asn1-x509';
import ipaddr from 'ipaddr.js';
import { readBounded } from '../../../src/kit/http.ts';

/** RFC 8737 §6.1: id-pe-acmeIdentifier. */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31';

/** Looks at the answer as a CA does; null where it is right, else what is wrong. */
export async function validate(
  type: string,
  host: string,
  token: string,
  keyAuthorization: string,
  ports: { readonly http: number; readonly tls: number },
): Promise<{ type: string; detail: string } | null> {
  try {
    return type === 'http-01'
      ? await lookByHttp(host, token, keyAuthorization, ports.http)
      : await lookByAlpn(host, keyAuthorization, ports.tls);
  } catch (error) {
    return { type: 'connection', detail: `127.0.0.1: Fetching ${host}: ${(error as Error).message}` };
  }
}

async function lookByHttp(host: string, token: string, keyAuthorization: string, port: number) {
  const path = `/.well-known/acme-challenge/${token}`;
  const call = request({
    host: '127.0.0.1',
    port,
    path,
    headers: { host: isIP(host) === 6 ? `[${host}]` : host },
    agent: false,
    timeout: 5_000,
  });
  call.end();
  const [response] = await once(call, 'response');
  const body = (await readBounded(response, 4096)).toString();
  if (response.statusCode === 200 && body === keyAuthorization) return null;
  return {
    type: 'unauthorized',
    detail: `127.0.0.1: Invalid response from http://${host}${path}: ${response.statusCode}`,
  };
}

async function lookByAlpn(host: string, keyAuthorization: string, port: number) {
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: isIP(host) === 0 ? host : reverseName(host),
    ALPNProtocols: ['acme-tls/1'],
    rejectUnauthorized: false,
  });
  try {
    await once(socket, 'secureConnect');
    const peer = socket.getPeerX509Certificate();
    const extension =
      peer &&
      AsnConvert.parse(peer.raw, Certificate).tbsCertificate.extensions?.find(
        ({ extnID }) => extnID === ACME_IDENTIFIER,
      );
    const wanted = createHash('sha256').update(keyAuthorization).digest('hex');
    const found = extension && Buffer.from(extension.extnValue.buffer).toString('hex');
    if (socket.alpnProtocol === 'acme-tls/1' && found === `0420${wanted}` && nameOf(peer?.subjectAltName) === host)
      return null;
    return { type: 'unauthorized', detail: `Incorrect validation certificate for tls-alpn-01 challenge for ${host}` };
  } finally {
    socket.destroy();
  }
}

/** RFC 8738 §6. */
function reverseName(host: string): string {
  const bytes = ipaddr.parse(host).toByteArray();
  if (bytes.length === 4) return `${bytes.toReversed().join('.')}.in-addr.arpa`;
  const digits = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${[...digits].reverse().join('.')}.ip6.arpa`;
}

/** The one name of a certificate, as Node writes it. */
function nameOf(subjectAltName: string | undefined): string | undefined {
  const [type, name = ''] = subjectAltName?.split(/:(.*)/s) ?? [];
  return type === 'IP Address' ? ipaddr.parse(name).toString() : name;
}
