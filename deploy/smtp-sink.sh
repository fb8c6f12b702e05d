#!/usr/bin/env bash
# A real SMTP server that keeps every message and delivers none: for the end-to-end tests, and for trying by hand.
#
#   deploy/smtp-sink.sh --dir FOLDER [--port N] [--fail PATTERN]   serves until Ctrl-C; its first line says the port
#   deploy/smtp-sink.sh --python                                   prints a python that has aiosmtpd, for the tests
#
# aiosmtpd comes from the system's python if it has it, else from pip into .stack/, else from Debian's package.
# STACK_INSTALL=0 forbids both.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stack=${STACK_DIR:-$(dirname "$here")/.stack}

has_aiosmtpd() {
  [[ -n $1 ]] && "$1" -c 'import aiosmtpd' 2>/dev/null
}

# Prints the python to use; fails if there is none and none can be had.
find_python() {
  local python
  for python in "${TEST_AIOSMTPD_PYTHON:-}" "$stack/aiosmtpd/bin/python" "$(command -v python3 || true)" /usr/bin/python3; do
    ! has_aiosmtpd "$python" || { echo "$python"; return; }
  done
  [[ ${STACK_INSTALL:-1} != 0 ]] || return 1
  if command -v python3 >/dev/null; then
    mkdir -p "$stack"
    if python3 -m venv "$stack/aiosmtpd" >&2 \
      && "$stack/aiosmtpd/bin/python" -m pip install --quiet 'aiosmtpd>=1.4.5,<2' >&2 \
      && has_aiosmtpd "$stack/aiosmtpd/bin/python"; then
      echo "$stack/aiosmtpd/bin/python"
      return
    fi
    rm -rf "$stack/aiosmtpd"
  fi
  if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-aiosmtpd >&2 || return 1
    ! has_aiosmtpd /usr/bin/python3 || { echo /usr/bin/python3; return; }
  fi
  return 1
}

python=$(find_python) || {
  echo "smtp-sink: no python with aiosmtpd, and it could not be installed: pip install aiosmtpd" >&2
  exit 1
}
if [[ ${1:-} == --python ]]; then
  echo "$python"
else
  exec "$python" "$here/smtp_sink.py" "$@"
fi
