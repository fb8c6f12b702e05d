# shellcheck shell=bash
# The local stack's servers in Docker, published on a free port of the loopback. Sourced by local-stack.sh.

docker_name() {
  echo "leadmill-stack-$(printf '%s' "$stack" | cksum | cut -d' ' -f1)-$1"
}

# Starts the container, or makes it first; waits until the server lets us in.
docker_start() {
  local server=$1 name pass port url
  [[ ${STACK_DOCKER:-1} != 0 ]] && command -v docker >/dev/null && docker info >/dev/null 2>&1 || return 1
  name=$(docker_name "$server")
  mkdir -p "$stack/$server"
  if ! docker container inspect "$name" >/dev/null 2>&1; then
    pass=$(password)
    (umask 077 && printf '%s\n' "$pass" >"$stack/$server/password")
    docker_create "$server" "$name" "$pass" >/dev/null || return 1
  fi
  docker start "$name" >/dev/null || return 1
  pass=$(recall "$server" password)
  case $server in
    postgres)
      port=$(docker port "$name" 5432 | head -1) || return 1
      url="postgres://leadmill:$pass@127.0.0.1:${port##*:}/leadmill"
      ;;
    rabbitmq)
      port=$(docker port "$name" 5672 | head -1) || return 1
      url="amqp://leadmill:$pass@127.0.0.1:${port##*:}/%2f"
      ;;
  esac
  for _ in {1..120}; do
    if docker_ready "$server" "$name" && "${server}_answers" "$url"; then
      remember "$server" docker "$url"
      return
    fi
    sleep 0.5
  done
  log "$server: the container $name didn't become ready: docker logs $name"
  return 1
}

docker_create() {
  local server=$1 name=$2 pass=$3
  case $server in
    postgres)
      docker create --name "$name" --publish 127.0.0.1::5432 --env POSTGRES_USER=leadmill --env POSTGRES_DB=leadmill \
        --env POSTGRES_PASSWORD="$pass" --shm-size 256m postgres:17 postgres -c max_connections=300 -c shared_buffers=512MB \
        -c max_wal_size=4GB -c checkpoint_timeout=15min -c wal_compression=lz4
      ;;
    rabbitmq)
      docker create --name "$name" --hostname "$name" --publish 127.0.0.1::5672 --env RABBITMQ_DEFAULT_USER=leadmill \
        --env RABBITMQ_DEFAULT_PASS="$pass" rabbitmq:4-management
      ;;
  esac
}

# The published port answers before the server behind it does, and PostgreSQL's first start has a server in between.
docker_ready() {
  case $1 in
    postgres) docker exec "$2" pg_isready --quiet --host 127.0.0.1 --username leadmill ;;
    rabbitmq) docker exec "$2" rabbitmq-diagnostics --quiet check_port_connectivity >/dev/null 2>&1 ;;
  esac
}

docker_stop() {
  docker stop "$(docker_name "$1")" >/dev/null
}

docker_remove() {
  docker rm --force --volumes "$(docker_name "$1")" >/dev/null
}
