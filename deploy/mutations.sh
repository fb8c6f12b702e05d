#!/usr/bin/env bash
# Checks the fault scenarios themselves: takes away one safeguard after the other (tests/mutations/*.patch and *.sql), and
# sees whether a scenario notices. Prints which did; a safeguard whose loss nobody notices is an error. First all of these
# scenarios run with every safeguard in place: one that fails then would seem to notice whatever is taken away.
#
#   deploy/mutations.sh [NAME]...     all of them, or those named, such as `outbox`
#
# A patch changes the programs; an SQL file is run in each scenario's database before its services start. Each says in its
# head what it takes away (Mutation), which scenarios are run against it (Scenarios: parts of their names), and what one of
# them must complain about (Complaint: as the scenarios print it after `complaint: `). A scenario that fails for another
# reason hasn't noticed. The mutated binaries are built apart, in a work tree of their own under target/mutations; yours
# stays as it is.
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
((${#names[@]})) || mapfile -t names < <(deploy/mutations-check.sh --names)
deploy/mutations-check.sh

mkdir -p "$place"
scratch=
cleanup() {
  [[ -z $scratch ]] || DATABASE_URL=$scratch scratch_database drop
  git worktree remove --force "$tree" 2>/dev/null || true
}
trap cleanup EXIT
git worktree remove --force "$tree" 2>/dev/null || true
git worktree prune
git worktree add --quiet --detach "$tree" HEAD
# Some patches change queries, which the compiler checks against a database then.
scratch=$(scratch_database create)
# All of the workspace, as `make test` builds it: for one package alone the dependencies would be compiled once more.
scenarios=$(cargo test --locked --workspace --test faults --no-run --message-format json \
  | grep -o '"executable":"[^"]*/faults-[^"]*"' | cut -d'"' -f4)

head_of() {
  deploy/mutations-check.sh --head "$1" "$2"
}

# run_scenarios NAME FILTER...: builds the tree, and runs the scenarios against it; their output is in $place/NAME.log.
run_scenarios() {
  local name=$1 log=$place/$1.log sql=tests/mutations/$1.sql
  shift
  (cd "$tree" && SQLX_OFFLINE=false DATABASE_URL=$scratch CARGO_TARGET_DIR=$place/target \
    cargo build --locked --quiet --bins) || return
  [[ -f $sql ]] && sql=$PWD/$sql || sql=''
  (cd tests && LEADMILL_FAULT_PATIENCE=${LEADMILL_FAULT_PATIENCE:-150} TEST_BIN_DIR=$place/target/debug TEST_FAULT_TABLE='' \
    TEST_MUTATION_SQL=$sql "$scenarios" --test-threads 3 "$@" >"$log" 2>&1) || true
  grep -q '^test result: ' "$log" || { echo "the scenarios didn't come to an end, see $log" >&2; return 1; }
}

# failed LOG: the scenarios that failed.
failed() {
  sed -n 's/^test \(.*\) \.\.\. FAILED$/    \1/p' "$1"
}

# complaining LOG TEXT: the scenarios that failed with this complaint. What a scenario printed stands below its name.
complaining() {
  awk -v text="complaint: $2" '
    /^---- .* stdout ----$/ { name = $2 }
    name != "" && index($0, text) && !seen[name]++ { print "    " name }' "$1"
}

read -r -a filters <<<"$(for name in "${names[@]}"; do head_of Scenarios "$name"; done | xargs -n1 | sort -u | xargs)"
run_scenarios nothing "${filters[@]}"
if [[ -n $(failed "$place/nothing.log") ]]; then
  printf 'with nothing taken away, these fail (%s):\n%s\n' "$place/nothing.log" "$(failed "$place/nothing.log")"
  exit 1
fi
printf 'nothing taken away: nobody complains\n'

unnoticed=0
for name in "${names[@]}"; do
  git -C "$tree" checkout --quiet .
  patch=$PWD/tests/mutations/$name.patch log=$place/$name.log
  if [[ -f $patch ]] && ! git -C "$tree" apply "$patch"; then
    printf '%s: THE PATCH IS OF AN EARLIER TIME\n' "$name"
    unnoticed=$((unnoticed + 1))
    continue
  fi
  read -r -a filters <<<"$(head_of Scenarios "$name")"
  run_scenarios "$name" "${filters[@]}"
  complaint=$(head_of Complaint "$name")
  noticed=$(complaining "$log" "$complaint")
  printf '%s: %s\n' "$name" "$(head_of Mutation "$name")"
  if [[ -n $noticed ]]; then
    printf '%s\n' "$noticed"
  else
    printf '    NOBODY COMPLAINED: %s (%s)\n' "$complaint" "$log"
    [[ -z $(failed "$log") ]] || printf '    these failed for another reason:\n%s\n' "$(failed "$log")"
    unnoticed=$((unnoticed + 1))
  fi
done
((unnoticed == 0))
