#!/usr/bin/env bash
# Prints where a PgBouncer is, for the end-to-end test that puts one between the services and PostgreSQL.
#
#   deploy/pgbouncer.sh
#
# It is the system's if there is one, else it is installed from the distribution's packages in the manner of
# deploy/local-stack.sh: by root or with passwordless sudo, and its service is not started. STACK_INSTALL=0 forbids that.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# shellcheck source=deploy/local-stack/packages.sh
source "$here/local-stack/packages.sh"

log() {
  printf 'pgbouncer: %s\n' "$*" >&2
}

pgbouncer_installed() {
  local found
  for found in "${TEST_PGBOUNCER:-}" "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer; do
    [[ ! -x $found ]] || { echo "$found"; return; }
  done
}

found=$(pgbouncer_installed)
if [[ -z $found ]]; then
  packages_install pgbouncer || true
  found=$(pgbouncer_installed)
fi
[[ -n $found ]] || { log "there is none, and it could not be installed: apt-get install pgbouncer"; exit 1; }
echo "$found"
