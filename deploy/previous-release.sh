#!/usr/bin/env bash
# Builds the release before this one, for the test of an upgrade (`make upgrade`), and prints the folder of its binaries.
# Nothing is built again while they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh

# The last commit whose schema and services were in use; moved on with each release.
previous=10b03436ede247d36e84dc33a1fe731a9d32f443

place=$(dirname "$(debug_binaries)")/previous
tree=$place/tree binaries=$place/$previous
if [[ ! -d $binaries ]]; then
  git cat-file -e "$previous^{commit}" 2>/dev/null || {
    echo "this clone lacks the commit $previous of the previous release: git fetch --unshallow" >&2
    exit 1
  }
  echo "building the previous release ($previous)" >&2
  trap 'git worktree remove --force "$tree" 2>/dev/null || true' EXIT
  git worktree remove --force "$tree" 2>/dev/null || true
  git worktree prune
  git worktree add --quiet --detach "$tree" "$previous"
  (cd "$tree" && SQLX_OFFLINE=true CARGO_TARGET_DIR=$place/target cargo build --locked --quiet --bins)
  mkdir -p "$binaries.new"
  for binary in collector enricher mailer leadmill; do cp "$place/target/debug/$binary" "$binaries.new/"; done
  mv "$binaries.new" "$binaries"
fi
echo "$binaries"
