import { html, raw } from 'hono/html';
import type { Language } from '../../kit/language.ts';
import type { ErrorName } from '../../oci/errors.ts';

/** Markup whose texts are escaped. */
export type Html = ReturnType<typeof html>;

/** One sentence in both languages, of one shape: neither can lack it. */
function both<T>(en: T, zh: T): Record<Language, T> {
  return { en, zh };
}

/** A sentence that a registry, a host or a name is put into; names are set as code. */
type About = (name: string) => Html;
const about = (en: About, zh: About) => both<About>(en, zh);

/** Everything that the page says, but for what to do when a pull fails (symptoms.ts) and how to trust a root (trust.ts). */
export const TEXTS = {
  title: both('registry gateway', '容器镜像仓库网关'),
  lead: both(
    'Pull container images through this host. Each layer is fetched once from its registry and served from here.',
    '通过本主机拉取容器镜像：每一层只从上游仓库下载一次，之后都由这里提供。',
  ),
  aliasLead: about(
    (registry) =>
      html`This host stands for <b>${registry}</b>: write it where an image’s name has <code>${registry}</code>.`,
    (registry) => html`本主机代表 <b>${registry}</b>：镜像名里写 <code>${registry}</code> 的地方，改写成本主机名即可。`,
  ),
  aliasMore: both('Every other registry of this gateway:', '本网关的其他仓库：'),
  refusedLead: both(
    'A gateway to container registries, for those whom its operator lets in.',
    '容器镜像仓库网关，只对管理员允许的用户开放。',
  ),
  refusals: both<Partial<Record<ErrorName, string>>>(
    {
      unauthorized: 'This gateway wants credentials. Its operator makes a user for you.',
      credentialsWrong:
        'This gateway does not know that user and token. Log in again, or ask its operator for a new token.',
      tokenExpired: 'Your token has expired. Ask the operator of this gateway for a new one.',
      clientDenied:
        'Clients from your address may not use this gateway. Its operator decides from where it may be used.',
      tooManyRequests: 'You have reached a limit of this gateway. Try again later.',
    },
    {
      unauthorized: '本网关需要凭据，请管理员为您创建用户。',
      credentialsWrong: '用户名或令牌不正确。请重新登录，或向管理员索取新的令牌。',
      tokenExpired: '您的令牌已过期，请向管理员索取新的令牌。',
      clientDenied: '您的地址不允许使用本网关，允许的范围由管理员决定。',
      tooManyRequests: '您已达到本网关的限额，请稍后再试。',
    },
  ),
  skip: both('Skip to the content', '跳到正文'),
  footer: both('for pulls only', '只提供拉取'),
  copy: both('Copy', '复制'),
  copied: both('Copied', '已复制'),

  askHead: both('What do you want to pull?', '想拉取什么？'),
  askLabel: both(
    'An image’s name, a docker pull line, a Dockerfile’s FROM, a manifest’s image: or helm’s oci:// address',
    '镜像名、docker pull 命令、Dockerfile 的 FROM 行、清单里的 image: 行，或 helm 的 oci:// 地址',
  ),
  askButton: both('Show the lines', '生成命令'),
  example: both('For example:', '例如：'),
  tooLong: both('That is more than this page reads. Paste fewer lines.', '内容超出本页可处理的长度，请减少行数。'),
  tooMany: both('Only the first images are shown.', '只显示前几个镜像。'),
  nothingFound: both(
    'No image’s name was found in that. Paste one as you would give it to docker pull.',
    '没有找到镜像名。请像 docker pull 那样粘贴一个镜像名。',
  ),
  push: about(
    (command) =>
      html`<code>${command}</code> writes to a registry. This gateway only serves pulls: push to the registry itself, by its own name.`,
    (command) => html`<code>${command}</code> 会写入仓库。本网关只提供拉取：请用仓库自己的名字直接推送。`,
  ),
  own: about(
    (name) => html`<code>${name}</code> goes through this gateway already.`,
    (name) => html`<code>${name}</code> 已经经过本网关。`,
  ),
  unknownRegistry: about(
    (registry) => html`<code>${registry}</code> is not among this gateway’s registries. Its operator adds it with:`,
    (registry) => html`<code>${registry}</code> 不在本网关的仓库列表里。管理员可以这样添加：`,
  ),
  didYouMean: both('Did you mean', '您是想写'),
  needsAlias: about(
    (registry) =>
      html`<code>${registry}</code> has a port, which the path of an image’s name cannot hold. Its operator gives it an alias with:`,
    (registry) => html`<code>${registry}</code> 带有端口，无法写进镜像名的路径。管理员可以为它添加别名：`,
  ),
  variable: about(
    (name) =>
      html`<code>${name}</code> has a variable or a character that a name cannot have. Put in what it stands for.`,
    (name) => html`<code>${name}</code> 含有变量，或含有镜像名不允许的字符。请填入实际的值。`,
  ),
  scratch: about(
    (name) => html`<code>${name}</code> is the empty image; no registry has it, and it stays as it is.`,
    (name) => html`<code>${name}</code> 是空镜像，任何仓库都没有它，保持原样即可。`,
  ),
  imageId: about(
    (name) => html`<code>${name}</code> is the ID of an image on your own machine. Give its name.`,
    (name) => html`<code>${name}</code> 是您本机上镜像的 ID，请改用镜像名。`,
  ),
  malformed: about(
    (name) =>
      html`<code>${name}</code> is no image’s name. Names are like <code>quay.io/org/app:1.2</code>, in lower case.`,
    (name) => html`<code>${name}</code> 不是镜像名。镜像名形如 <code>quay.io/org/app:1.2</code>，用小写字母。`,
  ),
  unchanged: both(
    'Or set your machine up once, and pull by the names that you know.',
    '也可以一次性配置好机器，之后镜像名不变。',
  ),

  registriesHead: both('Registries', '仓库'),
  none: both('This gateway has no registries yet.', '本网关还没有仓库。'),
  registry: both('Registry', '仓库'),
  writeInstead: both('Write instead', '改写为'),
  now: both('Now', '状态'),
  well: both('well', '正常'),
  partly: both('partly', '部分异常'),
  down: both('out of reach', '无法访问'),
  unknown: both('not asked lately', '近期未使用'),
  wellbeingNote: both(
    'As they answered in the last quarter of an hour. What is kept here is served even while a registry is out of reach.',
    '依据最近一刻钟的应答情况。上游无法访问时，已缓存的内容仍可拉取。',
  ),
  more: both(
    (count: number) => html`and ${count} more.`,
    (count: number) => html`另有 ${count} 个。`,
  ),
  pattern: both('every host that matches', '所有匹配的主机'),

  mirrorHead: both('As a mirror, names unchanged', '作为镜像加速，镜像名不变'),
  mirrorLead: both(
    'A machine that is set up once pulls through here by the names that it always used, and goes past this gateway where it does not answer.',
    '机器一次性配置好之后，镜像名保持不变，自动经过这里拉取；网关没有应答时会直接访问原仓库。',
  ),
  client: both('Client', '客户端'),
  configuration: both('Configuration', '配置'),
  script: both('Script', '脚本'),
  scriptNote: both(
    'The script shows what it would change, and changes it with --yes. It writes only files of its own, keeps what was there, and takes everything back with --undo:',
    '脚本先显示将要做的修改，加上 --yes 才会写入。它只写自己的文件，保留原有内容，用 --undo 可全部撤销：',
  ),

  loginHead: both('Log in', '登录'),
  loginLead: both(
    'This gateway wants credentials, which its operator gives you. A client sends a login only to the host that it was made for:',
    '本网关需要凭据，请向管理员索取。客户端只会把登录信息发给登录时的主机：',
  ),
  loginAlias: both('Every alias host that you pull by wants its own:', '每个用到的别名主机都要单独登录：'),
  loginPage: both('Log in on this page', '在本页登录'),
  loggedIn: about(
    (user) => html`You are logged in as <b>${user}</b>.`,
    (user) => html`已登录为 <b>${user}</b>。`,
  ),
} as const;

/** The page's texts in one language. */
export type Texts = { readonly [Key in keyof typeof TEXTS]: (typeof TEXTS)[Key]['en'] };

export function textsIn(language: Language): Texts {
  return Object.fromEntries(Object.entries(TEXTS).map(([key, text]) => [key, text[language]])) as Texts;
}

/** A line to type, with a button that the script gives its work. */
export function codeLine(code: string, texts: Pick<Texts, 'copy' | 'copied'>, label: string): Html {
  return html`<div class="line"><pre tabindex="0" aria-label="${label}"><code>${code}</code></pre><button type="button" class="copy" hidden data-copied="${texts.copied}" aria-label="${`${texts.copy}: ${label}`}">${texts.copy}</button></div>`;
}

export const nothing = raw('');
