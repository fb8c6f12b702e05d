#!/usr/bin/env bash
# Checks the fault scenarios themselves: takes away one safeguard after the other (tests/mutations/*.patch), and sees whether
# a scenario notices. Prints which did; a safeguard whose loss nobody notices is an error.
#
#   deploy/mutations.sh [NAME]...     all of them, or those named, such as `outbox`
#
# Each patch says in its head what it takes away, and which scenarios are run against it (parts of their names). The
# mutated binaries are built apart, in a work tree of their own under target/mutations; yours stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh
if [[ -z ${DATABASE_URL:-} || -z ${AMQP_URL:-} ]]; then
  exec deploy/with-stack.sh deploy/mutations.sh "$@"
fi

place=$(dirname "$(debug_binaries)")/mutations
tree=$place/tree
names=("$@")
((${#names[@]})) || mapfile -t names < <(basename -s .patch -a tests/mutations/*.patch)

mkdir -p "$place"
scratch=
cleanup() {
  [[ -z $scratch ]] || DATABASE_URL=$scratch cargo run --quiet --package test-support --example scratch_database -- drop
  git worktree remove --force "$tree" 2>/dev/null || true
}
trap cleanup EXIT
git worktree remove --force "$tree" 2>/dev/null || true
git worktree prune
git worktree add --quiet --detach "$tree" HEAD
# Some patches change queries, which the compiler checks against a database then.
scratch=$(cargo run --quiet --package test-support --example scratch_database -- create)
# All of the workspace, as `make test` builds it: for one package alone the dependencies would be compiled once more.
scenarios=$(cargo test --locked --workspace --test faults --no-run --message-format json \
  | grep -o '"executable":"[^"]*/faults-[^"]*"' | cut -d'"' -f4)

head_of() {
  sed -n "s/^$1: //p" "tests/mutations/$2.patch"
}

unnoticed=0
for name in "${names[@]}"; do
  git -C "$tree" checkout --quiet .
  if ! git -C "$tree" apply "$PWD/tests/mutations/$name.patch"; then
    printf '%s: THE PATCH IS OF AN EARLIER TIME\n' "$name"
    unnoticed=$((unnoticed + 1))
    continue
  fi
  (cd "$tree" && SQLX_OFFLINE=false DATABASE_URL=$scratch CARGO_TARGET_DIR=$place/target \
    cargo build --locked --quiet --bins)
  read -r -a filters <<<"$(head_of Scenarios "$name")"
  log=$place/$name.log
  (cd tests && LEADMILL_FAULT_PATIENCE=${LEADMILL_FAULT_PATIENCE:-60} TEST_BIN_DIR=$place/target/debug TEST_FAULT_TABLE='' \
    "$scenarios" --test-threads 3 "${filters[@]}" >"$log" 2>&1) || true
  noticed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/    \1/p' "$log")
  printf '%s: %s\n' "$name" "$(head_of Mutation "$name")"
  if [[ -n $noticed ]]; then
    printf '%s\n' "$noticed"
  else
    printf '    NOBODY NOTICED (%s)\n' "$log"
    unnoticed=$((unnoticed + 1))
  fi
done
((unnoticed == 0))
