#!/usr/bin/env bash
# Everything that must hold before a change lands, in one command; `make test` is this.
#
#   deploy/test.sh               all steps
#   deploy/test.sh STEP...       some of them: format migrations patches lint docs queries licences build tests
#
# It stops at the first step that fails. TEST_FLAGS goes to `cargo test`, such as TEST_FLAGS='-p store -- outbox'.
# The end-to-end tests find the binaries in TEST_BIN_DIR, a python with a real SMTP server (deploy/smtp_sink.py) in
# TEST_AIOSMTPD_PYTHON, and a PgBouncer in TEST_PGBOUNCER; these two are unset where there is none and none can be
# installed. A test that can't do without counts as skipped, not as passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/cargo-env.sh
source deploy/cargo-env.sh

format() { # rustfmt, as rustfmt.toml has it
  cargo fmt --all --check
}

migrations() { # append-only, and short on locks
  deploy/check-migrations.sh
  deploy/check-migrations-test.sh
}

patches() { # the mutations of `make mutations` still fit the code that they mutate, and name what must be complained about
  deploy/mutations-check.sh
}

lint() { # clippy with warnings denied
  cargo clippy --workspace --all-targets --locked -- -D warnings
}

docs() { # rustdoc with warnings denied
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

queries() { # crates/store/.sqlx/ agrees with the queries and the migrations
  deploy/sqlx-prepare.sh --check
}

licences() { # deny.toml and unused dependencies, where the tools are installed
  if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check bans licenses sources
  else
    echo "cargo-deny is not installed: skipped"
  fi
  if cargo machete --version >/dev/null 2>&1; then
    cargo machete
  else
    echo "cargo-machete is not installed: skipped"
  fi
}

build() { # every test, and with them the binaries that the end-to-end tests run
  # Not `cargo build`: without the tests' features every dependency would be compiled once more.
  cargo test --workspace --no-run --locked
}

tests() { # unit, integration and end-to-end tests
  TEST_BIN_DIR=$(debug_binaries)
  export TEST_BIN_DIR
  if TEST_AIOSMTPD_PYTHON=$(deploy/smtp-sink.sh --python); then
    export TEST_AIOSMTPD_PYTHON
  else
    unset TEST_AIOSMTPD_PYTHON
  fi
  if TEST_PGBOUNCER=$(deploy/pgbouncer.sh); then
    export TEST_PGBOUNCER
  else
    unset TEST_PGBOUNCER
  fi
  # the scenarios of tests/tests/faults write one line each into it
  export TEST_FAULT_TABLE=$records/faults
  # test-support writes one line per test and server into the one, and one per test that was skipped into the other
  export TEST_SERVER_LOG=$records/server-tests TEST_SKIP_LOG=$records/skipped-tests
  : >"$TEST_SERVER_LOG" >"$TEST_SKIP_LOG"
  # Most of a test's time is waiting: for a server, a lease, a process that starts. More than three at a time can need more
  # connections than a PostgreSQL has by default: an end-to-end test has up to 30.
  export RUST_TEST_THREADS=${RUST_TEST_THREADS:-3}
  # shellcheck disable=SC2086 # several flags in one variable
  cargo test --locked --no-fail-fast ${TEST_FLAGS:---workspace} 2>&1 | tee "$records/tests"
}

# The last lines of all: what cargo's own lines add up to.
report_tests() {
  [[ -s $records/tests ]] || return 0
  if [[ -s $records/faults ]]; then
    echo
    deploy/fault-table.sh <"$records/faults"
  fi
  echo
  deploy/local-stack.sh status
  awk -v skipped="$(wc -l <"$records/skipped-tests")" '/^test result: / { passed += $4; failed += $6; ignored += $8 }
    END {
      passed -= skipped
      printf "tests: %d ran: %d passed, %d failed; %d skipped, %d ignored\n", passed + failed, passed, failed, skipped, ignored
    }' "$records/tests"
  awk -F '\t' '{ printf "skipped: %s: %s\n", $2, $3 }' "$records/skipped-tests"
  awk -F '\t' '{ of[$3]++; if (!seen[$1, $2]++) all++ }
    END { printf "tests against real servers: %d (%d PostgreSQL, %d RabbitMQ, %d SMTP)\n", all, of["postgres"], of["rabbitmq"], of["smtp"] }' \
    <(sort -u "$records/server-tests")
}

report_steps() {
  echo
  local line
  for line in "${durations[@]}"; do echo "$line"; done
}

# A step runs in a process of its own: `set -e` would be off in a function that is the condition of an `if`.
if [[ ${1:-} == --step ]]; then
  records=$3
  "$2"
  exit
fi

all=(format migrations patches lint docs queries licences build tests)
steps=("$@")
((${#steps[@]})) || steps=("${all[@]}")
for step in "${steps[@]}"; do
  [[ " ${all[*]} " == *" $step "* ]] || { echo "no such step: $step; there are: ${all[*]}" >&2; exit 2; }
done
if [[ " ${steps[*]} " =~ \ (queries|tests)\  && ( -z ${DATABASE_URL:-} || -z ${AMQP_URL:-} ) ]]; then
  exec deploy/with-stack.sh deploy/test.sh "${steps[@]}"
fi

records=$(mktemp -d)
trap 'rm -rf "$records"' EXIT
durations=()
for step in "${steps[@]}"; do
  printf '\n== %s\n' "$step"
  SECONDS=0
  if deploy/test.sh --step "$step" "$records"; then
    durations+=("$(printf '%-10s %5d s' "$step" $SECONDS)")
  else
    durations+=("$(printf '%-10s %5d s  FAILED' "$step" $SECONDS)")
    report_steps
    report_tests
    exit 1
  fi
done
report_steps
report_tests
