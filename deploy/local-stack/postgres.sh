# shellcheck shell=bash
# PostgreSQL of the local stack: find one on localhost, or start a private one. Sourced by local-stack.sh.

postgres_oldest=15

postgres_psql() {
  PGCONNECT_TIMEOUT=3 psql --no-psqlrc --no-password --tuples-only --no-align --set ON_ERROR_STOP=1 "$@" 2>/dev/null
}

postgres_answers() {
  local address
  if command -v psql >/dev/null; then
    [[ $(postgres_psql --dbname "$1" --command 'SELECT 1') == 1 ]]
  else
    read -r -a address <<<"$(host_port "$1" 5432)"
    port_open "${address[@]}"
  fi
}

# The version of the server at a URL, as far as psql can tell.
postgres_version() {
  command -v psql >/dev/null || { echo "of unknown version"; return; }
  postgres_psql --dbname "$1" --command 'SHOW server_version' | cut -d' ' -f1
}

# Tries the usual ways in, over TCP and over the usual sockets; PGPASSWORD and ~/.pgpass are psql's own business, so
# that a password which only psql knows is no use to us: it must be in the URL or in PGPASSWORD.
postgres_find() {
  local port=${PGPORT:-5432} user place server credentials
  if ! command -v psql >/dev/null; then
    ! port_open 127.0.0.1 "$port" || log "postgres: something answers on port $port, but without psql there is no way in"
    return 1
  fi
  for user in ${PGUSER:+"$PGUSER"} postgres "$(id -un)"; do
    credentials=$user${PGPASSWORD:+:$(percent_encode "$PGPASSWORD")}
    for place in 127.0.0.1 /var/run/postgresql /tmp; do
      if [[ $place == /* ]]; then
        [[ -S $place/.s.PGSQL.$port ]] || continue
        server="postgres://$credentials@localhost:$port/%s?host=$(percent_encode "$place")"
      else
        port_open "$place" "$port" || continue
        server="postgres://$credentials@$place:$port/%s"
      fi
      postgres_take "$server" && return
    done
  done
  ! port_open 127.0.0.1 "$port" || log "postgres: one answers on port $port, but lets none of ${PGUSER:+$PGUSER, }postgres, $(id -un) make databases (set DATABASE_URL to use it)"
  return 1
}

# Takes a server whose URL has %s for the database's name, if it is new enough and lets us make databases.
postgres_take() {
  # shellcheck disable=SC2059 # the URL is the format
  local maintenance own version
  maintenance=$(printf "$1" postgres) own=$(printf "$1" leadmill)
  version=$(postgres_psql --dbname "$maintenance" --command 'SHOW server_version_num') || return 1
  if ((version < postgres_oldest * 10000)); then
    log "postgres: the server at $(shown "$maintenance") is older than $postgres_oldest"
    return 1
  fi
  [[ $(postgres_psql --dbname "$maintenance" --command 'SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user') == t ]] || return 1
  if [[ $(postgres_psql --dbname "$maintenance" --command "SELECT count(*) FROM pg_database WHERE datname = 'leadmill'") == 0 ]]; then
    postgres_psql --quiet --dbname "$maintenance" --command 'CREATE DATABASE leadmill' || return 1
    mkdir -p "$stack/postgres"
    (umask 077 && printf '%s\n' "$maintenance" >"$stack/postgres/made-database-through")
  fi
  postgres_answers "$own" || return 1
  remember postgres found "$own"
}

# Drops the database that postgres_take made, and only if it made it and nobody (another clone, say) is using it.
postgres_drop_own() {
  local maintenance
  maintenance=$(recall postgres made-database-through)
  [[ -n $maintenance ]] || return 0
  postgres_psql --quiet --dbname "$maintenance" --command 'DROP DATABASE IF EXISTS leadmill' \
    && log "postgres: dropped the database leadmill" || log "postgres: the database leadmill is in use: not dropped"
}

# Prints the folder of the newest installed binaries that are new enough.
postgres_installed() {
  local folder version
  {
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/pgsql/bin
    ! command -v pg_config >/dev/null || pg_config --bindir
    ! command -v initdb >/dev/null || dirname "$(readlink -f "$(command -v initdb)")"
  } | while read -r folder; do
    [[ -x $folder/initdb && -x $folder/pg_ctl && -x $folder/postgres ]] || continue
    version=$("$folder/postgres" --version | grep -oE '[0-9]+' | head -1) || continue
    ((version < postgres_oldest)) || printf '%s\t%s\n' "$version" "$folder"
  done | sort -rn | head -1 | cut -f2
}

postgres_start() {
  local binaries name folder port pass
  binaries=$(postgres_installed)
  [[ -n $binaries ]] || return 1
  name=$(account postgres) || return 1
  folder=$(data_folder postgres "$name") || return 1
  (as "$name" "$folder" test -f "$folder/pg/PG_VERSION") || postgres_init "$binaries" "$name" "$folder" || return 1
  pass=$(recall postgres password)
  postgres_stop
  for _ in 1 2 3; do
    port=$(earlier_port postgres) || port=$(free_ports 1) || return 1
    postgres_settings "$port" "$(postgres_compression "$binaries" "$name" "$folder")" | (as "$name" "$folder" tee "$folder/pg/leadmill.conf") >/dev/null
    if (as "$name" "$folder" "$binaries/pg_ctl" --pgdata "$folder/pg" --log "$folder/log" --wait --timeout 60 --silent start) >&2 </dev/null; then
      printf '%s\n' "$binaries" >"$stack/postgres/binaries"
      printf '%s\n' "$name" >"$stack/postgres/account"
      remember postgres private "postgres://leadmill:$pass@127.0.0.1:$port/leadmill"
      return
    fi
  done
  log "postgres: the private server didn't start; the end of $folder/log:"
  tail -5 "$folder/log" >&2
  return 1
}

postgres_init() {
  local binaries=$1 name=$2 folder=$3 pass
  pass=$(password)
  rm -rf "$folder/pg" "$folder/new"
  (umask 077 && printf '%s\n' "$pass" >"$stack/postgres/password")
  (umask 077 && as "$name" "$folder" tee "$folder/password") <<<"$pass" >/dev/null
  (as "$name" "$folder" "$binaries/initdb" --pgdata "$folder/new" --username leadmill --pwfile "$folder/password" \
    --auth scram-sha-256 --encoding UTF8 --no-locale --no-instructions) >/dev/null || return 1
  rm -f "$folder/password"
  (as "$name" "$folder" tee -a "$folder/new/postgresql.conf") <<<"include_if_exists 'leadmill.conf'" >/dev/null
  # single-user mode: no server and no client needed
  (as "$name" "$folder" "$binaries/postgres" --single -D "$folder/new" postgres) <<<'CREATE DATABASE leadmill' >"$stack/postgres/init.log" 2>&1 || return 1
  mv "$folder/new" "$folder/pg"
}

# How whole pages in the log are compressed: with LZ4, or with PostgreSQL's own, slower method where it is built without.
postgres_compression() {
  local binaries=$1 name=$2 folder=$3
  if (as "$name" "$folder" "$binaries/postgres" -C wal_compression -c wal_compression=lz4 -D "$folder/pg") >/dev/null 2>&1; then
    echo lz4
  else
    echo on
  fi
}

# Room for batches and fewer, larger checkpoints. What was acknowledged must survive a crash, so fsync and
# synchronous_commit stay on.
postgres_settings() {
  cat <<SETTINGS
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = ''
max_connections = 300
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = $2
fsync = on
synchronous_commit = on
SETTINGS
}

postgres_stop() {
  local mode=${1:-fast} folder binaries name
  folder=$(recall postgres data-folder) binaries=$(recall postgres binaries) name=$(recall postgres account)
  [[ -n $folder && -n $binaries && -f $folder/pg/postmaster.pid ]] || return 0
  (as "$name" "$folder" "$binaries/pg_ctl" --pgdata "$folder/pg" --mode "$mode" --wait --silent stop) >&2
}

percent_encode() {
  local text=$1 i char
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1}
    case $char in
      [A-Za-z0-9._~-]) printf '%s' "$char" ;;
      *) printf '%s' "$char" | od -An -tx1 | tr -d '\n' | tr ' ' '%' ;;
    esac
  done
}
