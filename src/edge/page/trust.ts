import { X509Certificate } from 'node:crypto';
import { html } from 'hono/html';
import type { Language } from '../../kit/language.ts';
import { codeLine, type Html, type Texts } from './texts.ts';

/** The gateway's own root, and where it is downloaded. */
export interface Root {
  readonly pem: string;
  /** `https://cr.example.com/ca.crt`. */
  readonly url: string;
  /** `cr.example.com:8443`: as clients' folders are named. */
  readonly authority: string;
}

const WORDS = {
  head: { en: 'Trust this gateway’s root certificate', zh: '信任本网关的根证书' },
  lead: {
    en: 'Its certificates are signed by an authority of its own, which no machine trusts by itself. Trust it once on each machine that pulls.',
    zh: '本网关的证书由它自己的机构签发，机器默认并不信任。请在每台要拉取的机器上信任一次。',
  },
  download: { en: 'Download ca.crt', zh: '下载 ca.crt' },
  fingerprint: { en: 'SHA-256 fingerprint', zh: 'SHA-256 指纹' },
  compare: {
    en: 'Ask the operator for it by another way and compare: whoever could change this page could change the certificate too. The file that you have shows it with:',
    zh: '请通过其他途径向管理员核对指纹：能篡改本页的人也能篡改证书。查看已下载文件的指纹：',
  },
  fetch: { en: 'Download it on the command line', zh: '在命令行下载' },
} as const;

/** Where each system, and each client with a store of its own, takes roots from; the file is `ca.crt` in the working directory. */
const SYSTEMS: readonly { readonly name: string; readonly lines: (authority: string) => string }[] = [
  {
    name: 'Debian · Ubuntu · Alpine',
    lines: () => 'sudo cp ca.crt /usr/local/share/ca-certificates/registry-gateway.crt\nsudo update-ca-certificates',
  },
  {
    name: 'RHEL · Fedora · openEuler',
    lines: () => 'sudo cp ca.crt /etc/pki/ca-trust/source/anchors/registry-gateway.crt\nsudo update-ca-trust',
  },
  {
    name: 'macOS',
    lines: () =>
      'sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.crt\n# Docker Desktop: restart it',
  },
  { name: 'Windows', lines: () => 'certutil -addstore Root ca.crt' },
  {
    name: 'Docker',
    lines: (authority) =>
      `sudo mkdir -p '/etc/docker/certs.d/${authority}'\nsudo cp ca.crt '/etc/docker/certs.d/${authority}/ca.crt'`,
  },
  {
    name: 'containerd',
    lines: () =>
      'sudo mkdir -p /etc/containerd/certs.d/_default\nsudo cp ca.crt /etc/containerd/certs.d/_default/gateway-ca.crt',
  },
  {
    name: 'podman · CRI-O',
    lines: (authority) =>
      `sudo mkdir -p '/etc/containers/certs.d/${authority}'\nsudo cp ca.crt '/etc/containers/certs.d/${authority}/ca.crt'`,
  },
];

export function trustSection(language: Language, texts: Texts, { pem, url, authority }: Root): Html {
  const fingerprint = new X509Certificate(pem).fingerprint256;
  const word = (key: keyof typeof WORDS) => WORDS[key][language];
  return html`<section aria-labelledby="trust"><h2 id="trust">${word('head')}</h2>
<p>${word('lead')}</p>
<p><a class="button" href="/ca.crt" download>${word('download')}</a></p>
<p>${word('fingerprint')}<br><code class="breaks">${fingerprint}</code></p>
<p class="note">${word('compare')}</p>
${codeLine('openssl x509 -in ca.crt -noout -fingerprint -sha256', texts, word('fingerprint'))}
<details><summary>${word('fetch')}</summary>${codeLine(`curl -fsSk -o ca.crt ${url}`, texts, word('fetch'))}</details>
${SYSTEMS.map(({ name, lines }) => html`<details><summary>${name}</summary>${codeLine(lines(authority), texts, name)}</details>`)}
</section>`;
}
