#!/usr/bin/env bash
# Runs a command with DATABASE_URL and AMQP_URL set, from deploy/local-stack.sh.
#
#   deploy/with-stack.sh cargo test -p store
#
# On a CI machine (CI=true) private servers are stopped afterwards. Elsewhere they keep running for the next command;
# `make clean-stack` ends and removes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh

stack=$(deploy/local-stack.sh up)
eval "$stack"

[[ ${CI:-} == true ]] || exec "$@"
trap 'deploy/local-stack.sh down' EXIT
"$@"
