import { type ClientFacts, type Machine, type Plan, together } from './facts.ts';

/** After the other drop-ins of a unit: systemd reads them in the order of their names, and the last value of a variable counts (systemd.exec(5)). */
const DROP_IN = 'zz-registry-gateway.conf';
const UNITS = '/etc/systemd/system';

const PROXY = /^https?_proxy$/i;

/**
 * A daemon that has a proxy would reach the gateway through it, where there may be no way back in. What systemd gives the daemon as `NO_PROXY` gets
 * the gateway's hosts, in a drop-in of its own; there is none where the unit has no proxy.
 */
export function aroundProxy(facts: ClientFacts, machine: Machine, unit: string): Plan {
  const folder = `${UNITS}/${unit}.service.d`;
  const path = `${folder}/${DROP_IN}`;
  if (!machine.known) {
    return together({
      edits: [],
      notes: [
        `Where ${unit} has a proxy (systemctl show -p Environment ${unit}), the gateway is to be reached without it: in
${path}, with what NO_PROXY has already; then
systemctl daemon-reload && systemctl restart ${unit}:
  [Service]
  Environment="NO_PROXY=${ownNames(facts).join(',')}"`,
      ],
    });
  }
  const dropIns = machine.list(folder).filter((name) => name.endsWith('.conf') && name !== DROP_IN);
  const texts = [`${UNITS}/${unit}.service`, ...dropIns.sort().map((name) => `${folder}/${name}`)];
  const variables = new Map(
    texts
      .flatMap((file) => environmentOf(machine.read(file) ?? ''))
      .map(([name, value]) => [name.toLowerCase(), value]),
  );
  const proxied = [...variables].some(([name, value]) => PROXY.test(name) && value !== '');
  const given = (variables.get('no_proxy') ?? '').split(/[\s,]+/).filter((word) => word !== '');
  const missing = ownNames(facts).filter((name) => !given.includes(name));
  if (!proxied || given.includes('*') || missing.length === 0) return { edits: [], notes: [] };
  const words = [...given, ...missing].join(',');
  // Go reads both forms and takes the first one that is set; a unit may have either.
  const content = `[Service]\nEnvironment="NO_PROXY=${words}" "no_proxy=${words}"\n`;
  return {
    edits: [{ path, format: 'whole', content }],
    notes: [],
    restart: ['systemctl daemon-reload', `systemctl restart ${unit}`],
  };
}

/** The words of `NO_PROXY` for every host of the gateway: a name stands for all below it too (golang.org/x/net/http/httpproxy). */
export function ownNames({ domain, aliases }: ClientFacts): string[] {
  const elsewhere = aliases.map(({ host }) => host).filter((host) => !host.endsWith(`.${domain}`));
  return [domain, ...elsewhere];
}

/** The variables that `Environment=` lines of a unit set; an empty line takes back those before it. */
function environmentOf(unit: string): [name: string, value: string][] {
  const found: [string, string][] = [];
  for (const line of unit.replace(/\\\r?\n/g, ' ').split(/\r?\n/)) {
    const value = /^\s*Environment\s*=(.*)$/.exec(line)?.[1]?.trim();
    if (value === undefined) continue;
    if (value === '') found.length = 0;
    for (const [word] of value.matchAll(/"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"']+(?:"[^"]*")?/g)) {
      const text = word.replace(/^["'](.*)["']$/s, '$1');
      const equals = text.indexOf('=');
      if (equals > 0) found.push([text.slice(0, equals), text.slice(equals + 1).replace(/^"(.*)"$/s, '$1')]);
    }
  }
  return found;
}
