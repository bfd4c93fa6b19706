import { clientConfiguration } from './configuration.ts';
import { newFile } from './edits.ts';
import { authority, baseUrl, type ClientFacts, type ClientKind, caFiles } from './facts.ts';
import { CONTAINERD_CERTS } from './kinds/containerd.ts';
import { DOCKER_CERTS } from './kinds/docker.ts';

interface ScriptFile {
  readonly path: string;
  readonly content: string;
}

/** A file that others write too: the script says what it needs, and leaves it alone. */
interface ByHand extends ScriptFile {
  /** Text that the file has once it is done. */
  readonly proof: string;
  /** A shell command that succeeds where the file need not have it. */
  readonly needless?: string;
}

/** Files that nothing but a gateway's configuration is in: folders and drop-ins of its own. */
const WHOLLY_OURS = /\/certs\.d\/|\/registries\.conf\.d\/50-gateway\.conf$|\/gateway-ca\.crt$/;

/** Where each client looks for the root of each host, where that is a folder a host. */
const CERTS: Partial<Record<ClientKind, string>> = {
  docker: DOCKER_CERTS,
  podman: '/etc/containers/certs.d',
  'cri-o': '/etc/containers/certs.d',
};

/**
 * A POSIX script that sets a client up on the machine where it runs: what `gateway client KIND` prints, for machines without the command. It writes files
 * that are wholly ours; of all others it prints what to put into them.
 */
export function clientScript(kind: ClientKind, facts: ClientFacts): string {
  const printed = clientConfiguration(kind, facts).files;
  const certs = CERTS[kind];
  const roots =
    certs === undefined ? [] : caFiles(facts, certs).edits.map((edit) => ({ path: edit.path, content: newFile(edit) }));
  const files = new Map([...printed, ...roots].map(({ path, content }) => [path, content]));
  const ours = [...files].filter(([path]) => WHOLLY_OURS.test(path));
  const others = [...files].filter(([path]) => !WHOLLY_OURS.test(path));
  const byHand = [
    ...others.map(([path, content]) => ({ path, content, ...proofOf(kind, facts) })),
    ...(kind === 'containerd' ? [CONFIG_PATH] : []),
  ];
  const variables = [
    `kind=${quoted(kind)}`,
    `source=${quoted(`${baseUrl(facts)}/client/${kind}`)}`,
    `wants_login=${facts.credentials ? 'yes' : 'no'}`,
    // A user's own files need no root.
    `needs_root=${ours.every(([path]) => path.startsWith('~/')) ? 'no' : 'yes'}`,
  ];
  const calls = (entries: readonly string[]) => entries.map((entry) => `  ${entry}\n`).join('') || '  :\n';
  return [
    HEAD,
    `${variables.join('\n')}\n`,
    `each_file() {\n${calls(ours.map(([path, content]) => `"$1" ${quoted(path)} ${quoted(content)}`))}}\n`,
    `each_by_hand() {\n${calls(byHand.map(handCall))}}\n`,
    BODY,
  ].join('\n');
}

function handCall({ path, content, proof, needless }: ByHand): string {
  const call = `by_hand ${quoted(path)} ${quoted(proof)} ${quoted(content)}`;
  return needless === undefined ? call : `${needless} || ${call}`;
}

/** By what a file that others write too is known to be done. */
function proofOf(kind: ClientKind, facts: ClientFacts): Pick<ByHand, 'proof' | 'needless'> {
  switch (kind) {
    case 'docker':
      // With its containerd store Docker mirrors docker.io by hosts.toml, too.
      return { proof: `"${baseUrl(facts)}"`, needless: 'docker_reads_hosts' };
    case 'kind':
      return { proof: '/etc/registry-gateway/kind/certs.d' };
    case 'buildkit':
      return { proof: `"${authority(facts)}/` };
    default:
      return { proof: baseUrl(facts) };
  }
}

const CONFIG_PATH: ByHand = {
  path: '/etc/containerd/config.toml',
  proof: CONTAINERD_CERTS,
  content: `# version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "${CONTAINERD_CERTS}"
# version = 3
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "${CONTAINERD_CERTS}"
# then: systemctl restart containerd
`,
};

/** As a word of a POSIX shell, whatever it has: between single quotes nothing has a meaning but the quote itself (POSIX, Shell Command Language 2.2.2). */
function quoted(text: string): string {
  return `'${text.replaceAll('\0', '').replaceAll("'", `'\\''`)}'`;
}

/** All is one group, which a shell runs only once it has read its last brace: half a download does nothing. */
const HEAD = `#!/bin/sh
# Sets this machine's client up for a registry gateway. Shows what it would change; --yes changes it, --undo takes it back.
# shellcheck disable=SC2016,SC2088,SC2317,SC2329
{
set -eu
umask 022
`;

const BODY = `root='' yes=no undo=no changed=0 left=0

say() { printf '%s\\n' "$*"; }

fail() {
  printf '%s\\n' "$*" >&2
  exit 1
}

usage() {
  say "usage: sh $kind.sh [--yes] [--undo] [--root DIR]

Without options it shows what would change, and asks where there is a terminal.
  --yes       do it
  --undo      put everything back as it was before the first --yes
  --root DIR  work below DIR in place of /, to try it out
Exit 0: all is in place; 1: something is left to do, or failed; 2: wrong usage."
}

# Where a file is: below DIR, and ~ is the user's home.
place() {
  case $1 in
  \\~/*) printf '%s%s' "$root$HOME" "\${1#\\~}" ;;
  *) printf '%s%s' "$root" "$1" ;;
  esac
}

# What was there before, and what was written, a file each.
records() {
  if [ "$needs_root" = yes ]; then
    printf '%s/var/lib/registry-gateway-client/%s' "$root" "$kind"
  else
    printf '%s/.local/state/registry-gateway-client/%s' "$root$HOME" "$kind"
  fi
}

difference() {
  if command -v diff >/dev/null 2>&1; then
    printf '%s' "$3" | diff -u -L "$1" -L "$1" "$2" - || :
  else
    say "--- $1"
    printf '%s' "$3"
  fi
}

compare() {
  target=$(place "$1")
  if [ -h "$target" ]; then fail "$target is a link: nothing was changed; make it a file, or set it up by hand: $source"; fi
  if [ -f "$target" ] && printf '%s' "$2" | cmp -s - "$target"; then return 0; fi
  changed=$((changed + 1))
  if [ -f "$target" ]; then difference "$1" "$target" "$2"; else difference "$1" /dev/null "$2"; fi
}

# keep_edited TARGET RECORD: what a person changed after it was written.
keep_edited() {
  if [ -f "$1" ] && [ -f "$2.ours" ] && ! cmp -s "$2.ours" "$1"; then
    cp -p "$1" "$1.kept"
    say "$1 was changed since it was written: that is kept in $1.kept"
  fi
}

write() {
  target=$(place "$1")
  if [ -f "$target" ] && printf '%s' "$2" | cmp -s - "$target"; then return 0; fi
  record=$(records)/files/$1
  mkdir -p "\${target%/*}" "\${record%/*}"
  if [ ! -e "$record.was" ] && [ ! -e "$record.none" ]; then
    if [ -e "$target" ]; then
      cp -p "$target" "$record.new"
      mv "$record.new" "$record.was"
    else
      : >"$record.none"
    fi
  fi
  keep_edited "$target" "$record"
  # With the mode of what was there.
  if [ -f "$target" ]; then cp -p "$target" "$target.$$.new"; fi
  printf '%s' "$2" >"$target.$$.new"
  printf '%s' "$2" >"$record.ours"
  mv "$target.$$.new" "$target"
  say "wrote $target"
}

docker_reads_hosts() {
  [ -z "$root" ] && docker info 2>/dev/null | grep -q io.containerd.snapshotter
}

by_hand() {
  target=$(place "$1")
  if [ -f "$target" ] && grep -qF -- "$2" "$target"; then return 0; fi
  left=1
  say; say "Left to you, since $target may hold more than this. It needs:"
  printf '%s' "$3" | sed 's/^/    /'
}

agreed() {
  if [ "$yes" = yes ]; then return 0; fi
  if [ -t 1 ] && (: </dev/tty) 2>/dev/null; then
    printf '%s [y/N] ' "$1"
    read -r answer </dev/tty || answer=
    case $answer in [yY]*) return 0 ;; esac
    fail "nothing was changed"
  fi
  fail "nothing was changed: add --yes to do it (… | sh -s -- --yes)"
}

require_root() {
  if [ "$needs_root" = yes ] && [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
    fail "this writes below /etc: run it as root (… | sudo sh -s -- --yes)"
  fi
}

put_back() {
  base=$(records)/files
  if [ ! -d "$base" ]; then
    say "nothing to undo"
    return 0
  fi
  find "$base" -type f '(' -name '*.was' -o -name '*.none' ')' >"$base/../list"
  while IFS= read -r found; do
    record=\${found%.*}
    path=\${record#"$base/"}
    case $path in \\~/*) ;; *) path=/$path ;; esac
    target=$(place "$path")
    if [ "$1" = show ]; then
      case $found in *.was) say "puts back $target" ;; *) say "removes $target" ;; esac
      continue
    fi
    keep_edited "$target" "$record"
    case $found in
    *.was)
      mkdir -p "\${target%/*}"
      cp -p "$found" "$target.$$.new"
      mv "$target.$$.new" "$target"
      say "put back $target"
      ;;
    *)
      rm -f "$target"
      rmdir "\${target%/*}" 2>/dev/null || :
      say "removed $target"
      ;;
    esac
    rm -f "$found" "$record.ours"
  done <"$base/../list"
  if [ "$1" = really ]; then rm -rf "$(records)"; else rm -f "$base/../list"; fi
}

main() {
  while [ $# -gt 0 ]; do
    case $1 in
    --yes | -y) yes=yes ;;
    --undo) undo=yes ;;
    --root)
      [ $# -gt 1 ] || { usage >&2; exit 2; }
      root=\${2%/}
      shift
      ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
  done
  if [ "$undo" = yes ]; then
    require_root
    put_back show
    if [ -d "$(records)" ]; then agreed "Put this back?" && put_back really; fi
    exit 0
  fi
  each_file compare
  if [ "$changed" -gt 0 ]; then
    require_root
    agreed "Write this?"
    each_file write
  else
    say "every file of the gateway is in place already"
  fi
  each_by_hand
  if [ "$wants_login" = yes ]; then
    left=1
    say
    say "Left to you: this gateway wants a login, and $source says where it goes."
  fi
  say; say "More about it: $source"
  exit "$left"
}

main "$@"
exit
}
`;
