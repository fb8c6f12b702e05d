# shellcheck shell=bash
# How cargo builds on a CI machine (CI=true): without incremental data, into a folder that outlives the clone, so that the
# next run finds the dependencies built. Elsewhere nothing is changed. Sourced by the scripts that run cargo.

if [[ ${CI:-} == true ]]; then
  export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/leadmill/target}
fi

# The folder of the debug binaries: what the end-to-end tests run.
debug_binaries() {
  local target
  target=$(cargo metadata --no-deps --format-version 1 | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)
  echo "$target/debug"
}

# scratch_database create|drop: see crates/test-support/examples/scratch_database.rs. It is built as part of the workspace: with
# the features that it has alone, every dependency would be compiled once more. `store` may be what doesn't compile.
scratch_database() {
  local log program
  log=$(SQLX_OFFLINE=true cargo build --quiet --locked --workspace --examples --keep-going 2>&1) || true
  program=$(debug_binaries)/examples/scratch_database
  [[ -x $program ]] || { echo "$log" >&2; return 1; }
  "$program" "$1"
}
