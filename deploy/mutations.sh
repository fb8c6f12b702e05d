#!/usr/bin/env bash
# Checks the fault scenarios themselves: takes away one safeguard after the other (tests/mutations/*.patch), and sees whether
# a scenario notices. Prints which did; a safeguard whose loss nobody notices is an error. First all of these scenarios run
# with every safeguard in place: one that fails then would seem to notice whatever is taken away.
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

# run_scenarios NAME FILTER...: builds the tree, runs the scenarios against it, and prints those that failed.
run_scenarios() {
  local name=$1 log=$place/$1.log
  shift
  (cd "$tree" && SQLX_OFFLINE=false DATABASE_URL=$scratch CARGO_TARGET_DIR=$place/target \
    cargo build --locked --quiet --bins) || return
  (cd tests && LEADMILL_FAULT_PATIENCE=${LEADMILL_FAULT_PATIENCE:-60} TEST_BIN_DIR=$place/target/debug TEST_FAULT_TABLE='' \
    "$scenarios" --test-threads 3 "$@" >"$log" 2>&1) || true
  grep -q '^test result: ' "$log" || { echo "the scenarios didn't come to an end, see $log" >&2; return 1; }
  sed -n 's/^test \(.*\) \.\.\. FAILED$/    \1/p' "$log"
}

read -r -a filters <<<"$(for name in "${names[@]}"; do head_of Scenarios "$name"; done | xargs -n1 | sort -u | xargs)"
failed=$(run_scenarios nothing "${filters[@]}")
if [[ -n $failed ]]; then
  printf 'with nothing taken away, these fail (%s):\n%s\n' "$place/nothing.log" "$failed"
  exit 1
fi
printf 'nothing taken away: nobody complains\n'

unnoticed=0
for name in "${names[@]}"; do
  git -C "$tree" checkout --quiet .
  if ! git -C "$tree" apply "$PWD/tests/mutations/$name.patch"; then
    printf '%s: THE PATCH IS OF AN EARLIER TIME\n' "$name"
    unnoticed=$((unnoticed + 1))
    continue
  fi
  read -r -a filters <<<"$(head_of Scenarios "$name")"
  noticed=$(run_scenarios "$name" "${filters[@]}")
  printf '%s: %s\n' "$name" "$(head_of Mutation "$name")"
  if [[ -n $noticed ]]; then
    printf '%s\n' "$noticed"
  else
    printf '    NOBODY NOTICED (%s)\n' "$place/$name.log"
    unnoticed=$((unnoticed + 1))
  fi
done
((unnoticed == 0))
