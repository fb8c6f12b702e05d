# shellcheck shell=bash
# Installs Debian's or Ubuntu's packages, where that is allowed. Sourced by local-stack.sh and pgbouncer.sh.

packages_install() {
  local server=$1 package=() sudo=()
  [[ ${STACK_INSTALL:-1} != 0 ]] && command -v apt-get >/dev/null || return 1
  # installing again mends nothing
  [[ -z $("${server}_installed") ]] || return 1
  if [[ $(id -u) != 0 ]]; then
    sudo --non-interactive true 2>/dev/null || return 1
    sudo=(sudo --non-interactive)
  fi
  case $server in
    postgres) package=(postgresql) ;;
    rabbitmq) package=(rabbitmq-server) ;;
    pgbouncer) package=(pgbouncer) ;;
  esac
  log "$server: installing ${package[*]}"
  packages_without_services "${sudo[@]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 \
    && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${package[@]}" >&2
  local result=$?
  packages_with_services "${sudo[@]}"
  return $result
}

# Debian asks policy-rc.d before it starts what it installs; 101 forbids it. A policy that is there already is kept.
packages_without_services() {
  packages_policy=
  [[ ! -e /usr/sbin/policy-rc.d ]] || return 0
  packages_policy=ours
  printf '#!/bin/sh\nexit 101\n' | "$@" tee /usr/sbin/policy-rc.d >/dev/null
  "$@" chmod 755 /usr/sbin/policy-rc.d
}

packages_with_services() {
  [[ -z $packages_policy ]] || "$@" rm -f /usr/sbin/policy-rc.d
}
