#!/usr/bin/env bash
# Migrations are append-only: a database that has applied one will never see its new text.
#
#   deploy/check-migrations.sh            fails if a recorded migration changed, is gone, or a new one isn't recorded
#   deploy/check-migrations.sh --record   adds new migrations to migrations/checksums.txt; never changes a line
#
# migrations/checksums.txt makes that checkable in a shallow clone. Where the default branch is at hand, its lines must
# all be there too, so that a migration can't be edited together with its checksum.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../migrations"

recorded=checksums.txt
case ${1:-check} in
  check | --record) ;;
  *) echo "usage: deploy/check-migrations.sh [--record]" >&2; exit 2 ;;
esac

failed=0
complain() {
  echo "migrations: $*" >&2
  failed=1
}

touch "$recorded"
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
  elif [[ ${1:-} == --record ]]; then
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
echo "migrations: $(wc -l <"$recorded") recorded and unchanged"
