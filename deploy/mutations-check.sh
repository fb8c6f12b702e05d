#!/usr/bin/env bash
# Checks the mutations of deploy/mutations.sh: each patch still fits the code, each head is complete, and each complaint is
# one that a scenario or the audit can make.
#
#   deploy/mutations-check.sh                    checks all of them
#   deploy/mutations-check.sh --names            their names
#   deploy/mutations-check.sh --head KEY NAME    what the head of one says: Mutation, Scenarios or Complaint
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=tests/mutations

file_of() {
  [[ -f $folder/$1.patch ]] && echo "$folder/$1.patch" || echo "$folder/$1.sql"
}

head_of() {
  sed -nE "s/^(-- )?$1: //p" "$(file_of "$2")" | head -1
}

names() {
  local file
  for file in "$folder"/*.patch "$folder"/*.sql; do basename "${file%.*}"; done | sort -u
}

case ${1:-} in
  --names) names; exit ;;
  --head) head_of "$2" "$3"; exit ;;
esac

wrong=0
complain() {
  echo "$1: $2" >&2
  wrong=1
}

while read -r name; do
  file=$(file_of "$name")
  for key in Mutation Scenarios Complaint; do
    [[ -n $(head_of "$key" "$name") ]] || complain "$file" "the head says no \`$key: \`"
  done
  for scenario in $(head_of Scenarios "$name"); do
    grep -rqE "^async fn [a-z0-9_]*$scenario" tests/tests/faults || complain "$file" "there is no scenario like $scenario"
  done
  grep -rqF "\"$(head_of Complaint "$name")\"" tests/src tests/tests/faults || complain "$file" "nobody complains about that"
  [[ $file == *.sql ]] || git apply --check "$file" || complain "$file" "the patch no longer fits the code"
done < <(names)
exit $wrong
