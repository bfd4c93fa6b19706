#!/bin/sh
# Makes the secrets of compose.fleet.yaml beside this file, where there are none yet. Keep a copy of secretFile: without it nothing secret in the database
# can be read.
set -eu
cd -- "$(dirname -- "$0")"
umask 077
# Compose mounts files as they are, and containers read them as another user: so it is their directory that others cannot enter.
chmod 700 .
make() {
  if [ ! -e "$1" ]; then
    head -c 32 /dev/urandom | base64 >"$1"
    chmod 644 "$1"
  fi
}
make secretFile
make databasePassword
