#!/usr/bin/env bash
# Random faults under load, round after round, for MINUTES; then the table of all rounds. Each round's seed is printed: a
# round that fails is repeated with `make soak MINUTES=1 SEED=n`.
#
#   deploy/soak.sh [MINUTES] [SEED]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh
if [[ -z ${DATABASE_URL:-} || -z ${AMQP_URL:-} ]]; then
  exec deploy/with-stack.sh deploy/soak.sh "$@"
fi

# Not `cargo build`: without the features of the tests every dependency would be compiled once more.
cargo test --locked --quiet --workspace --no-run
table=$(mktemp)
trap 'rm -f "$table"' EXIT
status=0
TEST_BIN_DIR=$(debug_binaries)
export TEST_BIN_DIR
TEST_FAULT_TABLE=$table "$TEST_BIN_DIR/soak" "${1:-20}" "${2:-1}" || status=$?
echo
deploy/fault-table.sh <"$table"
exit $status
