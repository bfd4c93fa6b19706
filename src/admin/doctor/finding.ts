import type { Check } from '../contract.ts';

/** What one look found, before findings of one cause become one. */
export interface Finding extends Check {
  /** Why, as a word by which findings of one cause know each other: `name`, `connect`, `proxy 10.0.0.1:3128`, `disk full` … */
  readonly because?: string;
  /** It asked a host outside this machine, so that all of them together tell whether there is a network. */
  readonly outward?: boolean;
}

/** The first words of findings' names, in the order in which faults are put right: a cause stands before what it can cause. */
const ORDER = [
  'gateway',
  'disk',
  'inodes',
  'data',
  'keys',
  'network',
  'resolver',
  'proxy',
  'interception',
  'clock',
  'database',
  'nodes',
  'files',
  'memory',
  'processors',
  'socket',
  'port',
  'table',
  'aliases',
  'dns',
  'wildcard',
  'ipv6',
  'publicUrl',
  'authority',
  'store',
  'ca',
  'certificate',
  'certificates',
  'users',
  'policy',
  'registry',
];

const LEVELS: readonly Check['level'][] = ['fail', 'warn', 'ok'];

/** Reasons that there is no way to a host. */
const NO_WAY = new Set(['connect', 'connect timeout', 'timeout']);
/** One host, or two that are down, are their own faults. */
const FEW = 3;
/** So many hosts whose certificates nobody trusts are no accident of each. */
const INTERCEPTED = 2;

/** What is wrong first, worst first, causes before symptoms; what is well last. Findings that have one cause are one. */
export function judge(found: readonly Finding[]): Check[] {
  return fold(found)
    .map((finding, index) => ({ finding, index }))
    .sort(
      (a, b) =>
        LEVELS.indexOf(a.finding.level) - LEVELS.indexOf(b.finding.level) ||
        rank(a.finding.name) - rank(b.finding.name) ||
        a.index - b.index,
    )
    .map(({ finding: { because: _, outward: __, ...check } }) => check);
}

function rank(name: string): number {
  const at = ORDER.indexOf(name.split(' ')[0] ?? '');
  return at < 0 ? ORDER.length : at;
}

function fold(found: readonly Finding[]): Finding[] {
  let left = wrongClock(found);
  left = under(left, 'disk', ({ because }) => because === 'disk full');
  left = under(left, 'clock', ({ because }) => because === 'certificate dates');
  const network = noRoute(left) ?? noWayOut(left);
  if (network !== null) {
    left = [network, ...left.filter((finding) => finding.name !== 'network')];
    const nameless = left.some(({ name, level }) => name === 'resolver' && level === 'fail');
    left = under(left, 'network', ({ name, because = '', outward }) => {
      if (name === 'resolver' || (because === 'name' && nameless)) return true;
      return outward === true && (because === 'name' || because === 'no answer' || NO_WAY.has(because));
    });
  }
  left = noNames(left);
  left = under(
    left,
    'resolver',
    ({ name, because }) => because === 'name' || (name === 'clock' && because === 'no answer'),
  );
  left = proxies(left);
  // The port of HTTPS waits for its certificate, and that for its CA, or for its name to lead here.
  left = underEach(
    left,
    (name) => name.startsWith('certificate '),
    (name) => name,
  );
  left = underEach(
    left,
    (name) => name.startsWith('ca '),
    () => 'ca',
  );
  left = underEach(
    left,
    (name) => /^(dns|ipv6) /.test(name),
    (name) => name.replace(/^ipv6/, 'dns'),
  );
  left = interception(left);
  return alike(left);
}

/** Puts findings that have a cause under it: the cause names them, and they are not told by themselves. */
function under(found: readonly Finding[], cause: string, isSymptom: (finding: Finding) => boolean): Finding[] {
  const main = found.find(({ name, level }) => name === cause && level === 'fail');
  if (main === undefined) return [...found];
  const symptoms = found.filter((finding) => finding !== main && finding.level !== 'ok' && isSymptom(finding));
  if (symptoms.length === 0) return [...found];
  const explained = { ...main, explains: [...(main.explains ?? []), ...symptoms.flatMap(namesOf)] };
  return found
    .filter((finding) => !symptoms.includes(finding))
    .map((finding) => (finding === main ? explained : finding));
}

/** Puts findings under each of those that fail and are named so, by the word of their reason; a reason that two have is put under the first. */
function underEach(
  found: readonly Finding[],
  isCause: (name: string) => boolean,
  wordOf: (name: string) => string,
): Finding[] {
  const causes = found.filter(({ name, level }) => level === 'fail' && isCause(name));
  return causes.reduce((left, { name }) => under(left, name, ({ because }) => because === wordOf(name)), [...found]);
}

function namesOf({ name, explains = [] }: Finding): string[] {
  return [name, ...explains];
}

/** Where hosts that have nothing else in common show certificates out of their time, it is this machine's clock that is wrong. */
function wrongClock(found: readonly Finding[]): Finding[] {
  const dated = found.filter(({ because, outward }) => because === 'certificate dates' && outward === true);
  const clock = found.find(({ name }) => name === 'clock');
  if (clock === undefined || clock.level === 'fail' || dated.length < FEW) return [...found];
  const cause: Finding = {
    name: 'clock',
    level: 'fail',
    message: `is wrong, as it seems: by it, the certificates of ${dated.length} hosts are over or not valid yet`,
    next: 'compare it (date -u), and let chrony or systemd-timesyncd set it (timedatectl set-ntp true)',
  };
  return found.map((finding) => (finding === clock ? cause : finding));
}

/** A DNS server that answers, and yet knows no name outside: it has no way out itself, or is for inside names alone. */
function noNames(found: readonly Finding[]): Finding[] {
  const outward = found.filter(({ outward }) => outward === true);
  const unknown = outward.filter(({ because }) => because === 'name');
  const resolver = found.find(({ name }) => name === 'resolver');
  if (resolver === undefined || resolver.level === 'fail') return [...found];
  if (unknown.length < FEW || outward.some(({ level }) => level === 'ok')) return [...found];
  const cause: Finding = {
    ...resolver,
    level: 'fail',
    message: `${resolver.message}, but none of ${unknown.length} names outside is known to it`,
    next: 'let it ask public DNS, or name another one in /etc/resolv.conf; where only a proxy leads out, name that: upstream.proxy',
  };
  return found.map((finding) => (finding === resolver ? cause : finding));
}

/** A machine without a default route is cut off where something outside was to be reached, and nothing was. */
function noRoute(found: readonly Finding[]): Finding | null {
  const outward = found.filter((finding) => finding.outward === true);
  const noRoute = found.find(({ name }) => name === 'network');
  if (noRoute === undefined || outward.length === 0 || outward.some(({ level }) => level === 'ok')) return null;
  return { ...noRoute, level: 'fail' };
}

/** Where names resolve and yet nothing outside could be connected to. */
function noWayOut(found: readonly Finding[]): Finding | null {
  const outward = found.filter((finding) => finding.outward === true && !finding.because?.startsWith('proxy '));
  const cut = outward.filter(({ because = '' }) => NO_WAY.has(because));
  const resolver = found.find(({ name }) => name === 'resolver');
  const isDead = resolver?.level === 'fail';
  if (cut.length < FEW || outward.some(({ level }) => level === 'ok')) return null;
  if (!isDead && cut.length < outward.length / 2) return null;
  return {
    name: 'network',
    level: 'fail',
    message: `none of ${cut.length} hosts outside can be connected to from here, ${isDead ? 'and no DNS server answers' : 'though their names resolve'}`,
    next: 'let this machine out to port 443 (firewall, security group, route), or name the proxy that leads out: upstream.proxy',
  };
}

/** One finding for each proxy that fails, in place of one for each registry behind it. */
function proxies(found: readonly Finding[]): Finding[] {
  const keys = new Set(found.flatMap(({ because = '' }) => (because.startsWith('proxy ') ? [because] : [])));
  let left = [...found];
  for (const key of keys) {
    const failed = left.filter(({ because, level }) => because === key && level !== 'ok');
    const [first] = failed;
    if (first === undefined) continue;
    const cause: Finding = {
      name: key,
      level: 'fail',
      message: first.message.replace(/^.* cannot be reached: /, ''),
      next: 'start that proxy, correct its address or credentials (upstream.proxy, gateway registry set HOST --proxy URL, or HTTPS_PROXY in the environment of the gateway), or take it out',
      explains: failed.flatMap(namesOf),
    };
    left = [cause, ...left.filter((finding) => !failed.includes(finding))];
  }
  return left;
}

/** Several registries with certificates of a stranger: something between here and them answers in their place. */
function interception(found: readonly Finding[]): Finding[] {
  const failed = found.filter(({ because = '' }) => because.startsWith('certificate of '));
  const by = new Map<string, Finding[]>();
  for (const finding of failed) by.set(finding.because ?? '', [...(by.get(finding.because ?? '') ?? []), finding]);
  let left = [...found];
  for (const [key, group] of by) {
    if (group.length < INTERCEPTED) continue;
    const issuer = key.slice('certificate of '.length);
    const cause: Finding = {
      name: 'interception',
      level: 'fail',
      message: `${group.length} hosts answer with certificates of one stranger (${issuer}): a proxy between here and the internet opens TLS, a captive portal wants a login, or names lead elsewhere`,
      next: "if it is your company's, trust its root: upstream.caFile FILE; a portal wants its login first; else ask another resolver",
      explains: group.flatMap(namesOf),
    };
    left = [cause, ...left.filter((finding) => !group.includes(finding))];
  }
  return left;
}

/** Faults that are told in the same words of several names become one. */
function alike(found: readonly Finding[]): Finding[] {
  const left: Finding[] = [];
  for (const finding of found) {
    const key = finding.because?.startsWith('same: ') === true && finding.level !== 'ok' ? finding.because : null;
    const at = key === null ? -1 : left.findIndex(({ because, level }) => because === key && level === finding.level);
    const first = left[at];
    if (first === undefined) left.push(finding);
    else left[at] = { ...first, explains: [...(first.explains ?? []), ...namesOf(finding)] };
  }
  return left;
}
