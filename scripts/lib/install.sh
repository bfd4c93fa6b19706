# Shared by the scripts of the checkout (POSIX sh): what `npm ci` installs, and the runtime pinned among it.
# Nothing here writes to standard output but `runtime`: that belongs to the command that was asked for.

# The oldest Node.js that runs the gateway (package.json, engines).
NODE_MAJOR=22
NODE_MINOR=19

# How long a first run waits for another one that is installing, in seconds; `npm ci` takes some fifteen.
INSTALL_WAIT=600

say() {
  echo "gateway: $*" >&2
}

# installed ROOT: true where the last `npm ci` ran to its end, for this lock file. npm writes the stamp last of all.
installed() {
  stamp="$1/node_modules/.package-lock.json"
  if [ ! -e "$stamp" ]; then
    return 1
  fi
  if [ ! "$1/package-lock.json" -nt "$stamp" ]; then
    return 0
  fi
  # A newer date alone (a fresh clone beside restored packages) is no reason to install again.
  [ "$(cat "$1/node_modules/.installed-for" 2>/dev/null)" = "$(lock_sum "$1")" ]
}

why_not_installed() {
  if [ -e "$1/node_modules/.package-lock.json" ]; then
    echo "this checkout was updated, and its packages are those of the version before"
  else
    echo "the packages of this checkout are not installed"
  fi
}

lock_sum() {
  cksum <"$1/package-lock.json"
}

# What trying again does not help with (sysexits.h, EX_CONFIG): deploy/registry-gateway.service does not start the gateway again after it.
NEEDS_A_PERSON=78

# install_packages ROOT: `npm ci` where it is needed. Of several first runs at once, one installs and the others wait for it.
install_packages() {
  if installed "$1"; then
    return 0
  fi
  # First of all: whoever may not write here (a service's own user, a read-only file system) is not helped by npm either.
  if [ ! -w "$1" ] || { [ -e "$1/node_modules" ] && [ ! -w "$1/node_modules" ]; }; then
    say "$(why_not_installed "$1"), and $(id -un 2>/dev/null || id -u) cannot write to $1"
    say "  run this once as the user who owns it, then start the service again: $1/scripts/gateway --version"
    exit "$NEEDS_A_PERSON"
  fi
  command -v npm >/dev/null 2>&1 || {
    say "npm is needed once, to install the packages of this checkout; install Node.js with npm (https://nodejs.org) and run this again"
    exit "$NEEDS_A_PERSON"
  }
  take_lock "$1"
  installed "$1" || npm_ci "$1"
  release_lock "$1"
}

# The lock is the folder itself, and ends with this process however it ends. Where there is no flock (macOS), a folder is made.
take_lock() {
  if command -v flock >/dev/null 2>&1; then
    exec 9<"$1"
    flock -n 9 || {
      say "another run is installing packages; waiting for it"
      flock -w "$INSTALL_WAIT" 9 || {
        say "another run has been installing packages in $1 for $INSTALL_WAIT seconds; end it and run this again"
        exit 1
      }
    }
    return 0
  fi
  waited=0
  until mkdir "$1/.installing" 2>/dev/null; do
    if [ "$waited" -ge "$INSTALL_WAIT" ]; then
      say "another run has been installing packages for $INSTALL_WAIT seconds; if none is, remove $1/.installing and run this again"
      exit 1
    fi
    [ "$waited" -gt 0 ] || say "another run is installing packages; waiting for it"
    sleep 1
    waited=$((waited + 1))
  done
  trap 'rmdir "$root/.installing" 2>/dev/null' EXIT
}

release_lock() {
  if command -v flock >/dev/null 2>&1; then
    exec 9<&-
  else
    rmdir "$1/.installing"
    trap - EXIT
  fi
}

npm_ci() {
  say "installing packages (npm ci), once"
  (cd "$1" && npm ci --no-fund --no-audit --loglevel=error >&2 9<&-) || {
    say "npm ci failed in $1; what it said is above. It needs the npm registry, or a mirror of it (npm config set registry URL)"
    exit 1
  }
  pinned_runs "$1" || install_runtime "$1"
  lock_sum "$1" >"$1/node_modules/.installed-for"
  touch "$1/node_modules/.package-lock.json"
}

# An npm that runs no install scripts (ignore-scripts) leaves the pinned runtime without its binary: then its step is taken here.
# It may fail: the machine's own Node.js may do.
install_runtime() {
  if [ -f "$1/node_modules/node/installArchSpecificPackage.js" ]; then
    (cd "$1/node_modules/node" && npm_config_ignore_scripts=false node installArchSpecificPackage.js >&2 9<&-) || true
    # npm links no program that was not there when it looked.
    [ -e "$1/node_modules/.bin/node" ] || ln -sf ../node/bin/node "$1/node_modules/.bin/node"
  fi
}

pinned_runs() {
  [ -x "$1/node_modules/.bin/node" ] && "$1/node_modules/.bin/node" --version >/dev/null 2>&1
}

# runtime ROOT: prints the node to run: the pinned one, else the machine's where it is new enough.
runtime() {
  if pinned_runs "$1"; then
    echo "$1/node_modules/.bin/node"
    return 0
  fi
  found=$(command -v node) && version=$("$found" --version 2>/dev/null) || version=none
  major=${version#v}
  minor=${major#*.}
  major=${major%%.*}
  minor=${minor%%.*}
  case "$major$minor" in
    *[!0-9]* | '') major=0 minor=0 ;;
  esac
  if [ "$major" -gt "$NODE_MAJOR" ] || { [ "$major" -eq "$NODE_MAJOR" ] && [ "$minor" -ge "$NODE_MINOR" ]; }; then
    echo "$found"
    return 0
  fi
  say "Node.js $NODE_MAJOR.$NODE_MINOR or newer is needed (found: $version), and the pinned one could not be installed in $1/node_modules; install Node.js 24 from https://nodejs.org and run this again"
  return "$NEEDS_A_PERSON"
}
