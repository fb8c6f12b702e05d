#!/usr/bin/env bash
# Migrations are append-only: a database that has applied one will never see its new text. And services run while they are
# applied, so they must not lock a table for as long as it is large.
#
#   deploy/check-migrations.sh            fails if a recorded migration changed, is gone, or a new one isn't recorded, or breaks
#                                         a rule of deploy/migration-rules.awk
#   deploy/check-migrations.sh --record   adds new migrations to migrations/checksums.txt; never changes a line
#   ... --dir FOLDER                      the migrations in another folder, for deploy/check-migrations-test.sh
#
# migrations/checksums.txt makes that checkable in a shallow clone. Where the default branch is at hand, its lines must
# all be there too, so that a migration can't be edited together with its checksum.
set -euo pipefail
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

mode=check
folder=$deploy/../migrations
while (($#)); do
  case $1 in
    --record) mode=record ;;
    --dir) folder=${2:?--dir needs a folder}; shift ;;
    *) echo "usage: deploy/check-migrations.sh [--record] [--dir FOLDER]" >&2; exit 2 ;;
  esac
  shift
done
cd "$folder"

recorded=checksums.txt
# The last migration from before there were rules about locks.
before_rules=20261123000300

failed=0
complain() {
  echo "migrations: $*" >&2
  failed=1
}

touch "$recorded"
status=0
complaints=$(LC_ALL=C awk -v since="$before_rules" -f "$deploy/migration-rules.awk" ./*.sql) || status=$?
((status < 2)) || exit "$status"
while IFS= read -r complaint; do
  [[ -z $complaint ]] || complain "$complaint"
done <<<"$complaints"
# What is recorded can't be changed any more.
[[ $mode == check ]] || ((failed == 0)) || exit 1

last=
while read -r checksum name; do
  last=$name
  if [[ ! -f $name ]]; then
    complain "$name is gone, but databases have applied it"
  elif [[ $(sha256sum <"$name" | cut -d' ' -f1) != "$checksum" ]]; then
    complain "$name was changed, but databases have applied it: put it back and write a new migration"
  fi
done <"$recorded"

for name in *.sql; do
  ! grep -q " $name\$" "$recorded" || continue
  if [[ ! $name =~ ^[0-9]{14}_[a-z0-9_]+\.sql$ ]]; then
    complain "$name isn't named YYYYMMDDHHMMSS_name.sql"
  elif [[ $name < $last ]]; then
    complain "$name would run before $last, which databases have applied: give it a later time"
  elif [[ $mode == record ]]; then
    printf '%s  %s\n' "$(sha256sum <"$name" | cut -d' ' -f1)" "$name" >>"$recorded"
    last=$name
  else
    complain "$name isn't recorded: run deploy/check-migrations.sh --record and commit migrations/$recorded"
  fi
done

for branch in origin/HEAD origin/main main; do
  landed=$(git show "$branch:./$recorded" 2>/dev/null) || continue
  while IFS= read -r line; do
    [[ -z $line ]] || grep -qxF "$line" "$recorded" || complain "$recorded lost a line that is on $branch: $line"
  done <<<"$landed"
  break
done

((failed == 0)) || exit 1
echo "migrations: $(wc -l <"$recorded") recorded and unchanged; the new ones keep the rules about locks"
