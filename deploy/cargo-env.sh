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
