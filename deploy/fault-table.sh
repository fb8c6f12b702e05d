#!/usr/bin/env bash
# Prints the lines that the fault scenarios have noted (TEST_FAULT_TABLE), from standard input, as a table: by the number of
# the fault, then by its name; a fault that ran more than once is summed up.
set -euo pipefail

sort -t $'\t' -k1,1n -k2,2 | awk -F '\t' '
  BEGIN {
    format = "%3s  %-66s %6s %9s %9s %5s %8s %10s %9s\n"
    printf format, "#", "fault", "runs", "leads in", "mails", "lost", "doubled", "uncertain", "stranded"
  }
  function flush() { if (key != "") printf format, row, fault, sum[3], sum[4], sum[5], sum[6], sum[7], sum[8], sum[9] }
  $1 FS $2 != key {
    flush()
    key = $1 FS $2; row = $1; fault = $2
    for (column = 3; column <= 9; column++) sum[column] = 0
  }
  { for (column = 3; column <= 9; column++) sum[column] += $column; for (column = 3; column <= 9; column++) all[column] += $column }
  END { flush(); printf format, "", "all", all[3], all[4], all[5], all[6], all[7], all[8], all[9] }'
