# shellcheck shell=bash
# What both servers of the local stack need: the lock, the records of what `up` did, ports, passwords, accounts.
# Sourced by local-stack.sh, which sets $stack.

log() {
  printf 'stack: %s\n' "$*" >&2
}

# Held until the script ends. Servers are started with descriptor 9 closed, or they would hold it as long as they live.
lock() {
  mkdir -p "$stack"
  exec 9>"$stack/lock"
  if command -v flock >/dev/null; then
    flock --nonblock 9 || { log "waiting for another run"; flock 9; }
  fi
}

# One small file per fact: .stack/SERVER/{how,url,…}; `how` is given, found, private or docker.
remember() {
  local server=$1
  mkdir -p "$stack/$server"
  (umask 077 && printf '%s\n' "$3" >"$stack/$server/url")
  printf '%s\n' "$2" >"$stack/$server/how"
}

recall() {
  cat "$stack/$1/$2" 2>/dev/null || true
}

is_ours() {
  [[ $(recall "$1" how) == private || $(recall "$1" how) == docker ]]
}

# A URL without its password.
shown() {
  sed -E 's#(//[^:/@]*):[^@]*@#\1@#' <<<"$1"
}

# host and port of a URL such as postgres://user:password@host:port/name?parameters
host_port() {
  local rest=${1#*://} default=$2
  rest=${rest%%[/?]*}
  rest=${rest##*@}
  [[ $rest == *:* ]] && echo "${rest%:*} ${rest##*:}" || echo "$rest $default"
}

port_open() {
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# free_ports COUNT: prints that many ports, all different. Whoever needs several asks once: two calls may draw the same.
free_ports() {
  local port ports=()
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    [[ " ${ports[*]} " == *" $port "* ]] || port_open 127.0.0.1 "$port" || ports+=("$port")
    ((${#ports[@]} < $1)) || { echo "${ports[*]}"; return; }
  done
  log "no free ports between 20000 and 32000"
  return 1
}

# The port of a private server's last start, if nobody has taken it since: whoever knew it finds the server again.
earlier_port() {
  local port
  [[ $(recall "$1" how) == private ]] || return 1
  read -r _ port <<<"$(host_port "$(recall "$1" url)" "")"
  [[ -n $port ]] && ! port_open 127.0.0.1 "$port" && echo "$port"
}

password() {
  od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

# The account for a private server: ours, or the first of those named that exists, when we are root, since PostgreSQL
# refuses to run as root and RabbitMQ shouldn't.
account() {
  local name
  [[ $(id -u) == 0 ]] || { id -un; return; }
  for name in "$@" nobody; do
    id -u "$name" >/dev/null 2>&1 && { echo "$name"; return; }
  done
  log "run by root, and there is no account among '$* nobody' to run servers with"
  return 1
}

# (as ACCOUNT FOLDER COMMAND…) becomes the command, in the folder (its HOME), as the account, without our lock. Always in
# a subshell: it replaces the shell that calls it.
as() {
  local name=$1 folder=$2
  shift 2
  cd "$folder" || exit 1
  exec 9>&-
  if [[ $(id -un) == "$name" ]]; then
    HOME=$folder exec "$@"
  elif command -v setpriv >/dev/null; then
    HOME=$folder USER=$name exec setpriv --reuid="$(id -u "$name")" --regid="$(id -g "$name")" --clear-groups "$@"
  else
    HOME=$folder USER=$name exec runuser --user "$name" -- "$@"
  fi
}

# Makes the folder for a private server's data and prints it: under .stack/, or under /var/tmp where the account can't
# get into .stack/ (a clone below /root, say) or RabbitMQ wouldn't start (a blank or a quote in the path).
data_folder() {
  local server=$1 name=$2 folder=$stack/$1/data
  mkdir -p "$folder"
  chmod 755 "$stack" "$stack/$server"
  chown "$name" "$folder"
  chmod 700 "$folder"
  if [[ $folder == *[!A-Za-z0-9/._-]* ]] || ! (as "$name" / test -w "$folder"); then
    rmdir "$folder" 2>/dev/null || true
    folder=/var/tmp/leadmill-stack-$(printf '%s' "$stack" | cksum | cut -d' ' -f1)-$server
    mkdir -p "$folder"
    chown "$name" "$folder"
    chmod 700 "$folder"
  fi
  printf '%s\n' "$folder" | tee "$stack/$server/data-folder"
}

remove_data() {
  local server folder
  for server in postgres rabbitmq; do
    folder=$(recall "$server" data-folder)
    [[ -z $folder ]] || rm -rf "$folder"
  done
}

# wait_gone PID SECONDS: whether the process ended in time.
wait_gone() {
  local ticks=$(($2 * 10))
  while kill -0 "$1" 2>/dev/null; do
    ((ticks-- > 0)) || return 1
    sleep 0.1
  done
}

# at_least FOUND WANTED: compares versions such as 15.8 and 3.10.
at_least() {
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1) == "$2" ]]
}
