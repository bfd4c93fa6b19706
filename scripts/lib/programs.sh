# Shared by the scripts of the checkout (POSIX sh): the real programs that the tests use.

POLICY=/usr/sbin/policy-rc.d

# install_programs NODE: on Debian and as root, installs the packages of the missing ones. What cannot be installed is no failure here:
# its tests are skipped by name, or fail where CI=true.
install_programs() {
  packages=$("$1" scripts/missing-programs.ts | tr '\n' ' ')
  if [ -z "$packages" ]; then
    return 0
  fi
  if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    say "not installed here (that takes Debian and root): $packages"
    return 0
  fi
  say "installing Debian packages: $packages"
  keep_services_down
  # One package that this Debian does not have must not cost the others.
  (apt-get update -qq && install_debian $packages) >&2 </dev/null || {
    for package in $packages; do
      install_debian "$package" >&2 </dev/null || say "could not install $package"
    done
  }
  let_services_up
}

# build_go_programs: where Go is present, builds the tools of test/go-programs/go.mod, from public modules under the checksums of its go.sum.
# Some ten seconds at first, one from Go's cache. Without Go their tests are skipped by name; what cannot be built fails them where CI=true.
build_go_programs() {
  if ! command -v go >/dev/null 2>&1; then
    say "Go is not installed: the conformance program of the distribution specification is not run, nor are the manifests for Kubernetes checked"
    return 0
  fi
  (cd test/go-programs && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOBIN="$PWD/bin" go install tool) >&2 </dev/null ||
    say "could not build the programs of test/go-programs"
}

install_debian() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Debian starts the service of a package as it installs it, unless this file says no (101). The tests start their own.
keep_services_down() {
  policy_made=no
  if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    policy_made=yes
    trap 'rm -f "$POLICY"' EXIT INT TERM
  fi
}

let_services_up() {
  if [ "$policy_made" = yes ]; then
    rm -f "$POLICY"
    trap - EXIT INT TERM
  fi
}
