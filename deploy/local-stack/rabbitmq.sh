# shellcheck shell=bash
# RabbitMQ of the local stack: find one on localhost, or start a private one. Sourced by local-stack.sh.

rabbitmq_oldest=3.10

# An AMQP 0-9-1 handshake by hand (there may be no client at hand): prints the server's version once it has let us in.
# connection.start (10, 10) names product and version; start-ok (10, 11) brings PLAIN credentials; a server that accepts
# them answers with tune (10, 30).
rabbitmq_login() {
  local host=$1 port=$2 user=$3 pass=$4 start version arguments size reply
  (
    exec 3<>"/dev/tcp/$host/$port" || exit 1
    printf 'AMQP\x00\x00\x09\x01' >&3
    start=$(rabbitmq_frame)
    version=$(grep -aoE 'versionS.{0,8}[0-9]+\.[0-9]+\.[0-9]+' <<<"$start" | grep -aoE '[0-9]+\.[0-9]+\.[0-9]+' | head -1)
    [[ $start == *RabbitMQ* && -n $version ]] || exit 1
    # class, method, an empty table, the mechanism, the credentials (a NUL before each), the locale
    size=$((${#user} + ${#pass} + 2))
    arguments="\\x00\\x0a\\x00\\x0b\\x00\\x00\\x00\\x00\\x05PLAIN\\x00\\x00\\x00$(printf '\\x%02x' "$size")\\x00$user\\x00$pass\\x05en_US"
    size=$((2 + 2 + 4 + 6 + 4 + size + 6))
    # shellcheck disable=SC2059 # the frame is the format: it is made of escapes
    printf "\\x01\\x00\\x00\\x00\\x00\\x00$(printf '\\x%02x' "$size")$arguments\\xce" >&3
    reply=$(rabbitmq_frame hex)
    [[ $reply == 000a001e* ]] || exit 1
    printf '%s\n' "$version"
  ) 2>/dev/null
}

# Reads one method frame from descriptor 3 and prints its payload: NULs left out, or as hex.
rabbitmq_frame() {
  local size
  size=$((16#$(timeout 5 head -c 7 <&3 | od -An -tx1 | tr -d ' \n' | cut -c7-14)))
  if [[ ${1:-} == hex ]]; then
    timeout 5 head -c $((size + 1)) <&3 | od -An -v -tx1 | tr -d ' \n'
  else
    timeout 5 head -c $((size + 1)) <&3 | tr -d '\0'
  fi
}

rabbitmq_answers() {
  [[ -n $(rabbitmq_version "$1") ]]
}

# The version of the server at a URL, if it lets us in.
rabbitmq_version() {
  local address user pass rest=${1#*://}
  read -r -a address <<<"$(host_port "$1" 5672)"
  rest=${rest%%@*} user=${rest%%:*} pass=${rest#*:}
  rabbitmq_login "${address[@]}" "$user" "$pass"
}

rabbitmq_find() {
  local version
  port_open 127.0.0.1 5672 || return 1
  version=$(rabbitmq_login 127.0.0.1 5672 guest guest) || true
  if [[ -z $version ]]; then
    log "rabbitmq: something answers on port 5672, but it isn't a RabbitMQ that lets guest in (set AMQP_URL to use it)"
    return 1
  elif ! at_least "$version" "$rabbitmq_oldest"; then
    log "rabbitmq: the server on localhost is $version, older than $rabbitmq_oldest"
    return 1
  fi
  remember rabbitmq found "amqp://guest:guest@127.0.0.1:5672/%2f"
}

# Prints the folder of the real start scripts: the ones in PATH insist on the system's own account and folders.
rabbitmq_installed() {
  local folder version
  for folder in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin /usr/lib/rabbitmq/bin /opt/rabbitmq/sbin \
    /opt/homebrew/opt/rabbitmq/sbin "$(dirname "$(readlink -f "$(command -v rabbitmq-server || echo /)")")"; do
    [[ -x $folder/rabbitmq-server && -f $folder/rabbitmq-env ]] || continue
    version=$(basename "$(dirname "$folder")" | grep -oE '[0-9]+\.[0-9.]+$' || true)
    [[ -z $version ]] || at_least "$version" "$rabbitmq_oldest" || continue
    echo "$folder"
    return
  done
}

rabbitmq_epmd() {
  local found
  for found in "$(command -v epmd || true)" /usr/lib/erlang/bin/epmd /usr/lib/erlang/erts-*/bin/epmd /usr/local/lib/erlang/bin/epmd; do
    [[ -x $found ]] && { echo "$found"; return; }
  done
}

rabbitmq_start() {
  local scripts epmd name folder pass
  scripts=$(rabbitmq_installed) epmd=$(rabbitmq_epmd)
  [[ -n $scripts && -n $epmd ]] || return 1
  name=$(account rabbitmq) || return 1
  folder=$(data_folder rabbitmq "$name") || return 1
  rabbitmq_stop
  pass=$(recall rabbitmq password)
  if [[ -z $pass ]]; then
    pass=$(password)
    (umask 077 && printf '%s\n' "$pass" >"$stack/rabbitmq/password")
  fi
  printf '%s\n' "$name" >"$stack/rabbitmq/account"
  for _ in 1 2 3; do
    rabbitmq_launch && return
    # Somebody may have taken a port since it was found free.
    grep -qE 'already_used|eaddrinuse' "$folder/start.log" "$folder/epmd.log" || break
  done
  log "rabbitmq: the private server didn't start; the end of $folder/start.log:"
  tail -15 "$folder/start.log" >&2
  return 1
}

# Starts name service and node with what rabbitmq_start has found, and waits until the node lets us in.
rabbitmq_launch() {
  local ports port distribution_port epmd_port
  ports=$(free_ports 3) || return 1
  read -r distribution_port epmd_port port <<<"$ports"
  port=$(earlier_port rabbitmq || echo "$port")
  printf '%s\n' "$epmd_port" >"$stack/rabbitmq/epmd-port"
  rabbitmq_settings "$port" "$pass" | (as "$name" "$folder" tee "$folder/rabbitmq.conf") >/dev/null
  (as "$name" "$folder" tee "$folder/enabled_plugins") <<<'[].' >/dev/null
  (as "$name" "$folder" tee "$folder/rabbitmq-env.conf") </dev/null >/dev/null

  # A name service of its own: the system's belongs to another account, which may refuse us or go away.
  (
    export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1
    as "$name" "$folder" setsid "$epmd" </dev/null >"$folder/epmd.log" 2>&1 &
    echo $! >"$stack/rabbitmq/epmd-pid"
  )
  (
    export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_NODENAME=leadmill@localhost RABBITMQ_DIST_PORT=$distribution_port
    export RABBITMQ_CONF_ENV_FILE=$folder/rabbitmq-env.conf RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf
    export RABBITMQ_ENABLED_PLUGINS_FILE=$folder/enabled_plugins RABBITMQ_ADVANCED_CONFIG_FILE=$folder/advanced.config
    export RABBITMQ_MNESIA_BASE=$folder RABBITMQ_MNESIA_DIR=$folder/node RABBITMQ_LOG_BASE=$folder/logs
    export RABBITMQ_PID_FILE=$folder/pid RABBITMQ_FEATURE_FLAGS_FILE=$folder/feature_flags
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    rm -f "$folder/pid"
    as "$name" "$folder" setsid "$scripts/rabbitmq-server" </dev/null >"$folder/start.log" 2>&1 &
    echo $! >"$stack/rabbitmq/script-pid"
  )
  for _ in {1..600}; do
    if [[ -n $(rabbitmq_login 127.0.0.1 "$port" leadmill "$pass") ]]; then
      cp "$folder/pid" "$stack/rabbitmq/pid"
      remember rabbitmq private "amqp://leadmill:$pass@127.0.0.1:$port/%2f"
      return
    fi
    kill -0 "$(recall rabbitmq script-pid)" 2>/dev/null || break
    sleep 0.1
  done
  rabbitmq_stop
  return 1
}

rabbitmq_settings() {
  cat <<SETTINGS
listeners.tcp.local = 127.0.0.1:$1
default_user = leadmill
default_pass = $2
disk_free_limit.absolute = 200MB
log.file.level = info
SETTINGS
}

# RabbitMQ's own tool, talking to the private server.
rabbitmq_ctl() {
  local folder name
  folder=$(recall rabbitmq data-folder) name=$(recall rabbitmq account)
  [[ $(recall rabbitmq how) == private ]] || { log "rabbitmq: no private server to talk to"; return 1; }
  (
    export ERL_EPMD_PORT ERL_EPMD_ADDRESS=127.0.0.1
    ERL_EPMD_PORT=$(recall rabbitmq epmd-port)
    export RABBITMQ_CONF_ENV_FILE=$folder/rabbitmq-env.conf
    as "$name" "$folder" "$(rabbitmq_installed)/rabbitmqctl" --node leadmill@localhost "$@" </dev/null
  )
}

# The node ends in order on SIGTERM; the name service has nothing to lose.
rabbitmq_stop() {
  local mode=${1:-fast} pid epmd
  pid=$(recall rabbitmq pid) epmd=$(recall rabbitmq epmd-pid)
  [[ -n $pid ]] || pid=$(recall rabbitmq script-pid)
  if [[ $mode == immediate ]] && rabbitmq_is "$pid" rabbit; then
    kill -9 "$pid"
    wait_gone "$pid" 30
  elif rabbitmq_is "$pid" rabbit; then
    kill "$pid"
    wait_gone "$pid" 30 || { log "rabbitmq: didn't stop in 30 s, killed"; kill -9 "$pid"; }
  fi
  ! rabbitmq_is "$epmd" epmd || kill "$epmd"
  rm -f "$stack/rabbitmq/pid" "$stack/rabbitmq/script-pid" "$stack/rabbitmq/epmd-pid"
}

# Whether the process is still the one that was recorded: pids are used again.
rabbitmq_is() {
  [[ -n $1 ]] || return 1
  if [[ -d /proc/self ]]; then
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q "$2"
  else
    ps -o args= -p "$1" 2>/dev/null | grep -q "$2"
  fi
}
