import { formatSpan } from '../kit/time.ts';

export type Language = 'en' | 'zh';

const EN = {
  title: 'Registry gateway',
  gateway: 'Gateway',
  uptime: 'Uptime',
  version: 'Version',
  domain: 'Domain',
  workers: 'Processes',
  cache: 'Cache',
  hits: 'Hits',
  saved: 'Saved',
  sent: 'Sent',
  fetched: 'Fetched',
  requests: 'Requests',
  failed: 'Failed',
  refused: 'Refused',
  warnings: 'Warnings',
  fills: 'Being fetched',
  noFills: 'Nothing is being fetched.',
  troubles: 'What went wrong lately',
  noTroubles: 'Nothing went wrong since the start.',
  overTime: 'Over time',
  traffic: 'Traffic a minute',
  hitRatio: 'Hit ratio',
  cacheSize: 'Cache size',
  byRegistry: 'By registry',
  byClient: 'By client',
  nobody: 'Nobody has pulled since the start.',
  registry: 'Registry',
  client: 'Client',
  today: 'Today',
  lastSeen: 'Last seen',
  certificates: 'Certificates',
  noCertificates: 'No certificates: tls.mode is off.',
  host: 'Host',
  state: 'State',
  ends: 'Ends',
  issuer: 'Issuer',
  error: 'Last error',
  endpoints: 'Endpoints',
  endpoint: 'Endpoint',
  blob: 'Blob',
  progress: 'Progress',
  speed: 'Speed',
  readers: 'Readers',
  connections: 'Connections',
  when: 'When',
  times: 'Times',
  what: 'What',
  reason: 'Reason',
  limits: 'Limits',
  perDay: 'Bytes a day of one client',
  perMonth: 'Bytes this month of all',
  perMinute: 'Requests a minute of one client',
  ago: (span: string) => `${span} ago`,
  in: (span: string) => `in ${span}`,
  never: 'never',
  of: (done: string, total: string) => `${done} of ${total}`,
  rests: 'rests',
  closed: 'no trouble',
  again: (when: string) => `tried again ${when}`,
  open: 'out of reach',
  'half-open': 'being tried',
  valid: 'valid',
  pending: 'pending',
  expired: 'expired',
  stale: 'kept answer',
  cut: 'short body',
  lost: 'The gateway does not answer. What is shown is the last that it said.',
  other: '中文',
};

export type Words = typeof EN;

const ZH: Words = {
  title: '镜像网关',
  gateway: '网关',
  uptime: '已运行',
  version: '版本',
  domain: '域名',
  workers: '进程数',
  cache: '缓存',
  hits: '命中率',
  saved: '节省',
  sent: '已发送',
  fetched: '已拉取',
  requests: '请求数',
  failed: '失败',
  refused: '拒绝',
  warnings: '提醒',
  fills: '正在拉取',
  noFills: '当前没有正在拉取的内容。',
  troubles: '最近的问题',
  noTroubles: '启动以来没有出现问题。',
  overTime: '变化趋势',
  traffic: '每分钟流量',
  hitRatio: '命中率',
  cacheSize: '缓存大小',
  byRegistry: '按镜像仓库',
  byClient: '按客户端',
  nobody: '启动以来还没有拉取请求。',
  registry: '镜像仓库',
  client: '客户端',
  today: '今日',
  lastSeen: '最近出现',
  certificates: '证书',
  noCertificates: '没有证书：tls.mode 为 off。',
  host: '主机',
  state: '状态',
  ends: '到期',
  issuer: '签发者',
  error: '最近的错误',
  endpoints: '上游端点',
  endpoint: '端点',
  blob: '层',
  progress: '进度',
  speed: '速度',
  readers: '读取者',
  connections: '连接数',
  when: '时间',
  times: '次数',
  what: '内容',
  reason: '原因',
  limits: '限额',
  perDay: '单个客户端每天字节数',
  perMonth: '所有客户端本月字节数',
  perMinute: '单个客户端每分钟请求数',
  ago: (span) => `${span}前`,
  in: (span) => `${span}后`,
  never: '从未',
  of: (done, total) => `${done} / ${total}`,
  rests: '暂停',
  closed: '无异常',
  again: (when) => `${when}重试`,
  open: '无法连接',
  'half-open': '正在尝试',
  valid: '有效',
  pending: '等待签发',
  expired: '已过期',
  stale: '缓存的旧答复',
  cut: '内容中断',
  lost: '网关没有响应。这里显示的是它最后一次的状态。',
  other: 'English',
};

export const WORDS: Readonly<Record<Language, Words>> = { en: EN, zh: ZH };

/** `zh` where `?lang=` says so, or else where the browser prefers it to English. */
export function languageOf(asked: string | undefined, accepted: string | undefined): Language {
  if (asked === 'en' || asked === 'zh') return asked;
  const first = /\b(en|zh)\b/i.exec(accepted ?? '')?.[1]?.toLowerCase();
  return first === 'zh' ? 'zh' : 'en';
}

const UNITS: Readonly<Record<string, string>> = { d: '天', h: '小时', min: '分钟', s: '秒' };

export function spanText(ms: number, language: Language): string {
  const span = formatSpan(ms);
  return language === 'en' ? span : span.replace(/\b(d|h|min|s)\b/g, (unit) => UNITS[unit] ?? unit);
}

/** `in 3 d` or `2 h ago`, seen from `now`. */
export function whenText(iso: string | null, language: Language, now: number): string {
  const words = WORDS[language];
  if (iso === null) return words.never;
  const distance = Date.parse(iso) - now;
  const span = spanText(Math.abs(distance), language);
  return distance > 0 ? words.in(span) : words.ago(span);
}
