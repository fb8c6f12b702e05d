#!/usr/bin/env bash
# Writes crates/store/.sqlx/, the data with which the query! macros are checked where no database is at hand.
#
#   deploy/sqlx-prepare.sh            replaces crates/store/.sqlx/
#   deploy/sqlx-prepare.sh --check    fails, with the difference, if crates/store/.sqlx/ isn't what the queries and migrations say
#
# It migrates a throw-away database on the server of DATABASE_URL (the local stack's when unset), lets the compiler ask
# it about every query of crates/store, and drops it. Neither psql nor sqlx-cli is needed. Run it after changing a query
# or adding a migration, and commit the result. Only the library of `store` is covered: tests use the unchecked
# `sqlx::query`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh

mode=${1:-write}
case $mode in
  write | --check) ;;
  *) echo "usage: deploy/sqlx-prepare.sh [--check]" >&2; exit 2 ;;
esac

if [[ -z ${DATABASE_URL:-} ]]; then
  stack=$(deploy/local-stack.sh up postgres)
  eval "$stack"
fi

export RUST_BACKTRACE=0
fresh=$(mktemp -d)
scratch=
cleanup() {
  [[ -z $scratch ]] || DATABASE_URL=$scratch scratch_database drop
  rm -rf "$fresh"
}
trap cleanup EXIT

scratch=$(scratch_database create)

# The made-up cfg differs each time, so that cargo compiles `store` anew (and nothing but `store`), and leaves the
# result of ordinary builds alone: touching the source would make them all start over.
if ! compiled=$(SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh DATABASE_URL=$scratch CARGO_INCREMENTAL=0 \
  cargo rustc --quiet --package store --lib --profile check --message-format json-render-diagnostics \
  -- --cfg "sqlx_prepare=\"$RANDOM$$\"" --cap-lints allow); then
  echo "sqlx-prepare: the queries of crates/store don't compile against the migrations" >&2
  exit 1
fi
# Nothing will ever use what that run has left in the target folder.
grep -oE '"[^"]*/libstore-[0-9a-f]+\.rmeta"' <<<"$compiled" | tr -d '"' | while read -r metadata; do
  hash=${metadata##*-} folder=${metadata%/deps/*}
  rm -rf "$metadata" "$folder/deps/store-${hash%.rmeta}.d" "$folder/.fingerprint/store-${hash%.rmeta}"
done

count=$(find "$fresh" -name 'query-*.json' | wc -l)
if [[ $mode == --check ]]; then
  mkdir -p crates/store/.sqlx
  if ! diff --recursive --brief crates/store/.sqlx "$fresh" >&2; then
    echo "sqlx-prepare: crates/store/.sqlx/ is out of date: run deploy/sqlx-prepare.sh and commit crates/store/.sqlx/" >&2
    exit 1
  fi
  echo "sqlx-prepare: crates/store/.sqlx/ agrees with $count queries"
else
  rm -rf crates/store/.sqlx
  mkdir crates/store/.sqlx
  [[ $count == 0 ]] || cp "$fresh"/query-*.json crates/store/.sqlx/
  echo "sqlx-prepare: crates/store/.sqlx/ has $count queries"
fi
