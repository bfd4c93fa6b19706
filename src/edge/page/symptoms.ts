import { html } from 'hono/html';
import type { Language } from '../../kit/language.ts';
import type { Html } from './texts.ts';

/** A failure as a person meets it, and what to do. */
interface Symptom {
  /** Words of the client's message, the same in every language, or what is seen. */
  readonly said: string | Record<Language, string>;
  readonly means: Record<Language, string>;
  readonly todo: Record<Language, string>;
  /** What to type, where something helps to find out. */
  readonly type?: (gateway: Places) => string;
}

/** How the gateway is named in commands. */
interface Places {
  /** `cr.example.com`, `localhost:8443`: as image names begin. */
  readonly name: string;
  /** With a port in any case. */
  readonly hostAndPort: string;
  readonly url: string;
}

/** By what clients print, the most frequent first. */
export const SYMPTOMS: readonly Symptom[] = [
  {
    said: 'x509: certificate signed by unknown authority',
    means: {
      en: 'Your machine does not know who signed this gateway’s certificate, or something between reads the traffic.',
      zh: '您的机器不认识签发本网关证书的机构，或者中间有设备在截取流量。',
    },
    todo: {
      en: 'If this page shows a root certificate, trust it as described there, and restart the client. Otherwise look who signed what you are shown: a company proxy’s own root has to be trusted, or the proxy kept out by NO_PROXY.',
      zh: '如果本页列出了根证书，请按说明信任它，然后重启客户端。否则请看证书是谁签发的：如果是公司代理，要么信任它的根证书，要么用 NO_PROXY 绕过它。',
    },
    type: ({ hostAndPort }) => `openssl s_client -connect ${hostAndPort} </dev/null | grep -E 'issuer|Verif'`,
  },
  {
    said: 'x509: certificate is valid for …, not …',
    means: {
      en: 'The alias has no certificate yet.',
      zh: '这个别名还没有证书。',
    },
    todo: {
      en: 'Pull by the prefix meanwhile, as the form above writes it. The operator sees why with: gateway cert explain HOST.',
      zh: '先用上方表单给出的前缀方式拉取。管理员可用 gateway cert explain HOST 查看原因。',
    },
  },
  {
    said: 'http: server gave HTTP response to HTTPS client',
    means: {
      en: 'This gateway is reached without TLS, and Docker only does that where it is told to.',
      zh: '本网关没有使用 TLS，Docker 需要明确允许才会这样访问。',
    },
    todo: {
      en: 'Add the host to insecure-registries in /etc/docker/daemon.json, as its configuration above does, and restart Docker.',
      zh: '按上方 Docker 配置，把主机加入 /etc/docker/daemon.json 的 insecure-registries，然后重启 Docker。',
    },
  },
  {
    said: '401 Unauthorized · no basic auth credentials',
    means: {
      en: 'Either this gateway wants a login, or the registry does for this image.',
      zh: '可能是本网关需要登录，也可能是上游仓库对该镜像要求登录。',
    },
    todo: {
      en: 'The message says which. For the gateway, log in to the very host that the name begins with. For the registry, check the name first: Docker Hub says 401 of images that do not exist.',
      zh: '错误信息里会说明是哪一种。网关：对镜像名开头的那个主机执行登录。上游：先检查镜像名，Docker Hub 对不存在的镜像也返回 401。',
    },
    type: ({ name }) => `docker login ${name}`,
  },
  {
    said: '403 Forbidden · denied',
    means: {
      en: 'The registry is not in this gateway’s table, your address may not use it, or the image is private.',
      zh: '该仓库不在本网关的列表里，或您的地址不允许使用，或镜像是私有的。',
    },
    todo: {
      en: 'The message names the reason, and what the gateway’s operator can do about it.',
      zh: '错误信息里写有原因，以及管理员可以怎么做。',
    },
  },
  {
    said: '404 · manifest unknown · name unknown',
    means: {
      en: 'The registry has no such image or tag; this gateway never says so by itself.',
      zh: '上游仓库没有这个镜像或标签；本网关不会自行给出这个结论。',
    },
    todo: {
      en: 'Check spelling and tag. Paste the name into the form above: it shows which registry is asked.',
      zh: '检查拼写和标签。把名字粘贴到上方表单，可以看到实际访问的是哪个仓库。',
    },
  },
  {
    said: '429 Too Many Requests · toomanyrequests',
    means: {
      en: 'A limit was reached: the registry’s, for all who pull through here, or this gateway’s, for you.',
      zh: '达到了限额：上游仓库对本网关的限额，或本网关对您的限额。',
    },
    todo: {
      en: 'The message says whose, and the answer’s Retry-After how long to wait. What is kept here can be pulled meanwhile. The operator can give the registry credentials, which raises its limit.',
      zh: '错误信息里说明是哪一方，应答头 Retry-After 写有等待时间。已缓存的内容仍可拉取。管理员为上游配置凭据可以提高限额。',
    },
  },
  {
    said: '502 · 503 · 504',
    means: {
      en: 'The registry failed, was too slow, or this gateway is just starting.',
      zh: '上游仓库出错或太慢，或者本网关正在启动。',
    },
    todo: {
      en: 'Look at the registry’s state above, and pull again: what was fetched already is not fetched twice.',
      zh: '查看上方该仓库的状态，然后重新拉取：已下载的部分不会重复下载。',
    },
  },
  {
    said: 'connection refused · i/o timeout · no such host',
    means: {
      en: 'Your machine does not reach this gateway.',
      zh: '您的机器连不上本网关。',
    },
    todo: {
      en: 'Ask it from the same machine. If this works and the client fails, the client’s own proxy settings differ from your shell’s: give its service this host in NO_PROXY.',
      zh: '在同一台机器上执行下面的命令。如果成功而客户端失败，说明客户端服务的代理设置与终端不同：把本主机加入该服务的 NO_PROXY。',
    },
    type: ({ url }) => `curl -sSI ${url}/v2/`,
  },
  {
    said: {
      en: 'Layers stand still · unexpected EOF · Retrying in …',
      zh: '层下载停住 · unexpected EOF · Retrying in …',
    },
    means: {
      en: 'The first pull of a layer goes at the registry’s pace; the next ones at this gateway’s.',
      zh: '某一层第一次拉取时受上游速度限制，之后由本网关直接提供。',
    },
    todo: {
      en: 'Leave it, or stop it and pull again: the gateway goes on fetching for a while, and resumes where it stopped.',
      zh: '可以等待，也可以停止后重新拉取：网关会继续下载一段时间，并从中断处续传。',
    },
  },
  {
    said: {
      en: 'Nothing fails, but it is slow, or limits are reached all the same',
      zh: '没有报错，但很慢，或仍然触发限额',
    },
    means: {
      en: 'The client may go past this gateway. Docker before 29, and any with the classic image store, mirrors docker.io alone.',
      zh: '客户端可能没有经过本网关。Docker 29 之前的版本，以及使用经典镜像存储的 Docker，只对 docker.io 使用镜像加速。',
    },
    todo: {
      en: 'Pull by the gateway’s own names, as the form above writes them; or look whether the mirror is used. Very old daemons (before 1.10) cannot pull today’s images at all.',
      zh: '改用上方表单给出的、以本网关开头的名字拉取；或检查镜像加速是否生效。非常老的 Docker（1.10 之前）无法拉取现在的镜像。',
    },
    type: () => 'docker info | grep -A3 -E "Mirrors|driver-type"',
  },
];

const HEADS = {
  head: { en: 'When a pull fails', zh: '拉取失败时' },
  lead: { en: 'By what the client says:', zh: '按客户端的提示查找：' },
} as const;

/** One section that opens symptom by symptom, without a script. */
export function symptomsSection(language: Language, gateway: Places): Html {
  return html`<section aria-labelledby="symptoms"><h2 id="symptoms">${HEADS.head[language]}</h2>
<p class="note">${HEADS.lead[language]}</p>
${SYMPTOMS.map(({ said, means, todo, type }) => {
  const summary = typeof said === 'string' ? said : said[language];
  const shown =
    type === undefined ? '' : html`<pre tabindex="0" aria-label="${summary}"><code>${type(gateway)}</code></pre>`;
  return html`<details><summary>${summary}</summary>
<p>${means[language]} ${todo[language]}</p>
${shown}
</details>`;
})}
</section>`;
}
