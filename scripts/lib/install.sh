# Shared by the scripts of the checkout: what `npm ci` installs, and the pinned runtime among it.

# install_packages ROOT: `npm ci` where node_modules is missing or older than the lock file.
install_packages() {
  stamp="$1/node_modules/.package-lock.json"
  if [ -e "$stamp" ] && [ ! "$1/package-lock.json" -nt "$stamp" ]; then
    return 0
  fi
  command -v npm >/dev/null 2>&1 || {
    echo "gateway: npm is needed to install the packages of this checkout; install Node.js (https://nodejs.org) and run this again" >&2
    exit 1
  }
  echo "gateway: installing packages (npm ci), once" >&2
  # Standard output belongs to the command that was asked for.
  (cd "$1" && npm ci --no-fund --no-audit --loglevel=error >&2) || {
    echo "gateway: npm ci failed in $1; see above" >&2
    exit 1
  }
  touch "$stamp"
}

# runtime ROOT: prints the node to run: the pinned one, else the machine's.
runtime() {
  if [ -x "$1/node_modules/.bin/node" ] && "$1/node_modules/.bin/node" --version >/dev/null 2>&1; then
    echo "$1/node_modules/.bin/node"
  else
    command -v node
  fi
}
