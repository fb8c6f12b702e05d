#!/usr/bin/env bash
# Gives PostgreSQL and RabbitMQ to whoever needs them, and says where they are.
#
#   eval "$(deploy/local-stack.sh up)"      sets DATABASE_URL and AMQP_URL
#
#   up [postgres|rabbitmq]...   makes sure of both servers (or those named); prints `export` lines, logs to stderr
#   env                         prints the `export` lines of what `up` found or started; fails if there is nothing
#   status                      says for each server where it is and whether it answers
#   down                        stops the servers that `up` started, and no others; their data stays
#   stop SERVER [fast|immediate]   stops one of them, in order or as a power cut would; `up` starts it again where it was
#   rabbitmqctl ARGUMENT...     runs RabbitMQ's own tool on the private server
#   clean                       down, and removes their data, and drops the database that `up` made on a server it found
#
# For each server the first that works:
#   1. DATABASE_URL / AMQP_URL, if set (nothing is checked or changed there)
#   2. the private server of an earlier `up`, if it still runs
#   3. a server that answers on localhost and lets us in: PostgreSQL 15+ in a database of its own (`leadmill`), RabbitMQ 3.10+
#   4. a private server from installed binaries: data under .stack/, free ports, loopback only, random passwords; an
#      unprivileged account when run by root
#   5. the same after installing the distribution's packages (Debian, Ubuntu; root or passwordless sudo; no service is
#      started by the installation)
#   6. Docker
# Each server goes its own way. Runs at the same time wait for each other.
#
# STACK_PROBE=0    don't look for servers on localhost
# STACK_PRIVATE=0  don't start private servers from installed binaries
# STACK_INSTALL=0  don't install packages
# STACK_DOCKER=0   don't use Docker
# STACK_DIR        instead of .stack/
# (Not LEADMILL_*: the programs refuse variables of that kind which they don't know.)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stack=${STACK_DIR:-$(dirname "$here")/.stack}

# shellcheck source=deploy/local-stack/common.sh
source "$here/local-stack/common.sh"
# shellcheck source=deploy/local-stack/postgres.sh
source "$here/local-stack/postgres.sh"
# shellcheck source=deploy/local-stack/rabbitmq.sh
source "$here/local-stack/rabbitmq.sh"
# shellcheck source=deploy/local-stack/packages.sh
source "$here/local-stack/packages.sh"
# shellcheck source=deploy/local-stack/docker.sh
source "$here/local-stack/docker.sh"

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

variable_of() {
  case $1 in postgres) echo DATABASE_URL ;; rabbitmq) echo AMQP_URL ;; esac
}

# Finds or starts one server and records it; `up` calls it with the lock held.
provide() {
  local server=$1 variable
  variable=$(variable_of "$server")
  if [[ -n ${!variable:-} ]]; then
    log "$server: $variable is set"
    remember "$server" given "${!variable}"
  elif is_ours "$server" && "${server}_answers" "$(recall "$server" url)"; then
    log "$server: still running at $(shown "$(recall "$server" url)")"
  elif [[ $(recall "$server" how) == docker ]] && docker_start "$server"; then
    log "$server: started again in Docker"
  elif [[ ${STACK_PROBE:-1} != 0 ]] && "${server}_find"; then
    log "$server: found at $(shown "$(recall "$server" url)")"
  elif [[ ${STACK_PRIVATE:-1} != 0 ]] && "${server}_start"; then
    log "$server: private server at $(shown "$(recall "$server" url)")"
  elif [[ ${STACK_PRIVATE:-1} != 0 ]] && packages_install "$server" && "${server}_start"; then
    log "$server: private server at $(shown "$(recall "$server" url)")"
  elif docker_start "$server"; then
    log "$server: in Docker at $(shown "$(recall "$server" url)")"
  else
    return 1
  fi
}

up() {
  local server missing=()
  for server in "$@"; do
    provide "$server" >&2 || missing+=("$server")
  done
  if ((${#missing[@]})); then
    cat >&2 <<MESSAGE

No ${missing[*]} to work with: none is configured, answers on localhost, is installed, could be installed or runs in Docker.
Any one of these helps:
  1. point to running servers:     export DATABASE_URL=postgres://user:password@host/database AMQP_URL=amqp://user:password@host/%2f
  2. install them (no root needed to run them then): PostgreSQL 15 or newer and RabbitMQ 3.10 or newer,
     on Debian and Ubuntu          apt-get install postgresql rabbitmq-server
  3. start Docker (or let this account use it), and run this again
MESSAGE
    return 1
  fi
}

print_env() {
  local server found=1
  for server in "$@"; do
    [[ -n $(recall "$server" url) ]] || continue
    printf 'export %s=%q\n' "$(variable_of "$server")" "$(recall "$server" url)"
    found=0
  done
  return $found
}

status() {
  local server url variable how
  for server in postgres rabbitmq; do
    url=$(recall "$server" url)
    how=$(recall "$server" how)
    variable=$(variable_of "$server")
    if [[ -n ${!variable:-} && ${!variable} != "$url" ]]; then
      url=${!variable}
      how="set by $variable"
    fi
    if [[ -z $url ]]; then
      echo "$server: none"
    elif "${server}_answers" "$url"; then
      echo "$server: $how, $("${server}_version" "$url") answers at $(shown "$url")"
    else
      echo "$server: $how, no answer at $(shown "$url")"
    fi
  done
}

down() {
  local server
  for server in rabbitmq postgres; do
    case $(recall "$server" how) in
      private) "${server}_stop" && log "$server: stopped" ;;
      docker) docker_stop "$server" && log "$server: stopped" ;;
    esac
  done
}

stop() {
  local server=$1 mode=$2
  [[ $(recall "$server" how) == private ]] || { log "$server: no private server to stop"; return 1; }
  "${server}_stop" "$mode" && log "$server: stopped ($mode)"
}

clean() {
  local server
  down
  for server in rabbitmq postgres; do
    [[ $(recall "$server" how) != docker ]] || docker_remove "$server"
  done
  [[ $(recall postgres how) != found ]] || postgres_drop_own
  remove_data
  rm -rf "$stack"
  log "removed $stack"
}

main() {
  local command=${1:-}
  shift || true
  case $command in
    stop)
      [[ -n $(variable_of "${1:-}") && ${2:-fast} =~ ^(fast|immediate)$ ]] || { usage >&2; exit 2; }
      lock
      stop "$1" "${2:-fast}"
      return
      ;;
    rabbitmqctl) rabbitmq_ctl "$@"; return ;;
  esac
  local servers=("$@")
  ((${#servers[@]})) || servers=(postgres rabbitmq)
  local server
  for server in "${servers[@]}"; do
    [[ -n $(variable_of "$server") ]] || { usage >&2; exit 2; }
  done
  case $command in
    up) lock; up "${servers[@]}"; print_env "${servers[@]}" ;;
    env) print_env "${servers[@]}" ;;
    status) status ;;
    down) [[ ! -d $stack ]] || { lock; down; } ;;
    clean) [[ ! -d $stack ]] || { lock; clean; } ;;
    help | --help | -h) usage ;;
    *) usage >&2; exit 2 ;;
  esac
}

main "$@"
