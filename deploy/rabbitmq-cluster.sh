#!/usr/bin/env bash
# Runs a command beside a RabbitMQ cluster of three nodes on the loopback, and ends the cluster with it.
#
#   deploy/rabbitmq-cluster.sh cargo test -p leadmill-tests --test cluster -- --ignored
#
# The nodes are made from the installed binaries (deploy/local-stack.sh installs them), in a folder of their own, on free
# ports, with a name service and a cookie of their own; no other server is touched. The command gets
#   AMQP_URL       the first node
#   TEST_CLUSTER   a folder: `urls` and `pids` have one line per node, `ctl` is rabbitmqctl of the first node
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
(($#)) || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

stack=$(mktemp -d)
# shellcheck source=deploy/local-stack/common.sh
source "$here/local-stack/common.sh"
# shellcheck source=deploy/local-stack/rabbitmq.sh
source "$here/local-stack/rabbitmq.sh"

scripts=$(rabbitmq_installed) epmd=$(rabbitmq_epmd)
[[ -n $scripts && -n $epmd ]] || { log "no RabbitMQ is installed: deploy/local-stack.sh up rabbitmq"; exit 1; }
name=$(account rabbitmq)
chmod 755 "$stack"
folder=$stack/data
mkdir "$folder"
password >"$folder/.erlang.cookie"
chmod 400 "$folder/.erlang.cookie"
chown -R "$name" "$folder"
pass=$(password)
started=()
command=

# Each was started as a group of its own, and is ended with whatever it has started.
stop() {
  local group
  [[ -z $command ]] || kill "$command" 2>/dev/null || true
  for group in "${started[@]}"; do
    kill -9 -- "-$group" 2>/dev/null || true
  done
  rm -rf "$stack"
}
trap stop EXIT

export ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
# the name service's, and two for each node
read -r -a ports <<<"$(free_ports 7)"
export ERL_EPMD_PORT=${ports[0]}
as "$name" "$folder" setsid "$epmd" </dev/null >"$folder/epmd.log" 2>&1 &
started+=($!)
disown

node() { # NUMBER PORT DISTRIBUTION_PORT
  local own=$folder/$1
  (as "$name" "$folder" mkdir "$own")
  {
    rabbitmq_settings "$2" "$pass"
    echo "cluster_formation.peer_discovery_backend = classic_config"
    for number in 1 2 3; do echo "cluster_formation.classic_config.nodes.$number = node$number@localhost"; done
  } | (as "$name" "$folder" tee "$own/rabbitmq.conf") >/dev/null
  (as "$name" "$folder" tee "$own/enabled_plugins") <<<'[].' >/dev/null
  (as "$name" "$folder" tee "$own/rabbitmq-env.conf") </dev/null >/dev/null
  (
    export RABBITMQ_NODENAME=node$1@localhost RABBITMQ_DIST_PORT=$3
    export RABBITMQ_CONF_ENV_FILE=$own/rabbitmq-env.conf RABBITMQ_CONFIG_FILE=$own/rabbitmq.conf
    export RABBITMQ_ENABLED_PLUGINS_FILE=$own/enabled_plugins RABBITMQ_ADVANCED_CONFIG_FILE=$own/advanced.config
    export RABBITMQ_MNESIA_BASE=$own RABBITMQ_MNESIA_DIR=$own/node RABBITMQ_LOG_BASE=$own/logs
    export RABBITMQ_PID_FILE=$own/pid RABBITMQ_FEATURE_FLAGS_FILE=$own/feature_flags
    as "$name" "$folder" setsid "$scripts/rabbitmq-server" </dev/null >"$own/start.log" 2>&1
  ) &
  started+=($!)
  disown
}

for number in 1 2 3; do
  node "$number" "${ports[number]}" "${ports[number + 3]}"
done
for number in 1 2 3; do
  port=${ports[number]}
  for ((tries = 0; ; tries++)); do
    [[ -z $(rabbitmq_login 127.0.0.1 "$port" leadmill "$pass") ]] || break
    ((tries < 1200)) || { log "node $number didn't start:"; tail -15 "$folder/$number/start.log" >&2; exit 1; }
    sleep 0.1
  done
  echo "amqp://leadmill:$pass@127.0.0.1:$port/%2f" >>"$stack/urls"
  cat "$folder/$number/pid" >>"$stack/pids"
  # so that a pid is a line, whatever wrote the file
  [[ -z $(tail -c1 "$stack/pids") ]] || echo >>"$stack/pids"
done
cat >"$stack/ctl" <<SCRIPT
#!/usr/bin/env bash
cd "$folder" && HOME="$folder" RABBITMQ_CONF_ENV_FILE="$folder/1/rabbitmq-env.conf" \\
  exec "$scripts/rabbitmqctl" --quiet --node node1@localhost "\$@"
SCRIPT
chmod 755 "$stack/ctl"

AMQP_URL=$(head -1 "$stack/urls") TEST_CLUSTER=$stack "$@" &
command=$!
wait "$command"
