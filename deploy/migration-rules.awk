# What a new migration may do, beside services that run: nothing that keeps a table locked for as long as it is large. For
# deploy/check-migrations.sh.
#
#   awk -v since=VERSION -f deploy/migration-rules.awk FILE...
#
# Migrations up to the version `since` are from before there were rules. Prints a line for each complaint; the exit status is 1
# if there was one. An existing table is one that the file itself doesn't create. The text is cut into words, not parsed: write
# statements plainly.

FNR == 1 { finish(); file = FILENAME; sub(/^\.\//, "", file); text = "" }
{ text = text $0 "\n" }
END { finish(); exit failed }

# Checks the file that has been read.
function finish(   first, plain, count, statements, i) {
  if (file == "") return
  split("", own)
  first = text; sub(/\n.*/, "", first)
  uncommented = without_comments(text)
  plain = words_of(without_strings(uncommented))
  count = split_statements(plain, statements)
  for (i = 1; i <= count; i++) note_table(statements[i])
  if (substr(file, 1, 14) > since) {
    check_file(first, plain, statements, count)
    for (i = 1; i <= count; i++) check_statement(statements[i], count)
  }
}

function complain(what) {
  print file ": " what
  failed = 1
}

# -- reading --

function without_comments(sql,   at, rest, out) {
  out = ""
  while (length(sql)) {
    at = match(sql, /--|\/\*|'/)
    if (!at) return out sql
    out = out substr(sql, 1, at - 1)
    rest = substr(sql, at)
    if (substr(rest, 1, 1) == "'") { # a string may hold what looks like a comment
      match(rest, /^'[^']*'?/)
      out = out substr(rest, 1, RLENGTH)
      sql = substr(rest, RLENGTH + 1)
    } else if (substr(rest, 1, 2) == "--") {
      at = index(rest, "\n")
      sql = at ? substr(rest, at) : ""
    } else {
      at = index(rest, "*/")
      out = out " "
      sql = at ? substr(rest, at + 2) : ""
    }
  }
  return out
}

function without_strings(sql) {
  gsub(/'[^']*'/, "''", sql)
  # What is quoted by dollars is code: its statements are looked at like all others.
  gsub(/\$[A-Za-z_]*\$/, " ; ", sql)
  return sql
}

# Lower case, one space between words; parentheses, commas and semicolons are words.
function words_of(sql) {
  sql = tolower(sql)
  gsub(/"/, "", sql)
  gsub(/[(),;]/, " & ", sql)
  gsub(/[ \t\r\n]+/, " ", sql)
  return " " sql " "
}

function split_statements(plain, statements,   n, parts, i, count) {
  count = 0
  n = split(plain, parts, ";")
  for (i = 1; i <= n; i++) {
    gsub(/^ +| +$/, "", parts[i])
    if (parts[i] != "") statements[++count] = parts[i]
  }
  return count
}

function table_name(word) {
  sub(/^public\./, "", word)
  return word
}

# What comes after `pattern`, a string; empty where it doesn't match.
function after(sql, pattern) {
  return match(sql, pattern) ? substr(sql, RSTART + RLENGTH) : ""
}

function first_word(sql) {
  sub(/^ +/, "", sql)
  sub(/ .*/, "", sql)
  return sql
}

function note_table(statement,   rest) {
  rest = after(statement, "(^| )create (unlogged |temporary |temp )?table (if not exists )?")
  if (rest != "") own[table_name(first_word(rest))] = 1
}

# -- rules --

function check_file(first, plain, statements, count,   allowed) {
  if (uncommented ~ /lock_timeout|statement_timeout/)
    complain("sets a timeout of its own: remove it, `leadmill migrate` sets lock_timeout for every migration")
  allowed = "^(create (unique )?index concurrently if not exists [^ ]+ on |drop index concurrently if exists )"
  if (plain ~ / concurrently /) {
    if (first != "-- no-transaction")
      complain("CONCURRENTLY cannot run in a transaction: make `-- no-transaction` its first line")
    if (count != 1)
      complain("has " count " statements beside CONCURRENTLY: put each concurrent statement into a file of its own")
  }
  if (first ~ /^-- no-transaction/ && (count != 1 || statements[1] !~ allowed))
    complain("runs outside of a transaction, so it must be able to run again after a crash: exactly one CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name, or DROP INDEX CONCURRENTLY IF EXISTS name")
}

function check_statement(statement, count,   rest, table) {
  if (statement ~ /^lock /)
    complain("LOCK TABLE keeps everybody out until the end of the migration: remove it, each statement takes the lock that it needs")
  rest = after(statement, "(^| )create (unique )?index ")
  if (rest != "" && rest !~ /^concurrently /) {
    table = after(rest, "(^| )on (only )?")
    table = table_name(first_word(table))
    if (!(table in own))
      complain("CREATE INDEX on the existing table " table " lets nobody write until it is built: use CREATE INDEX CONCURRENTLY IF NOT EXISTS, in a file of its own that begins with `-- no-transaction`")
  }
  rest = after(statement, "(^| )alter table (if exists )?(only )?")
  if (rest != "") {
    table = table_name(first_word(rest))
    sub(/^[^ ]+ /, "", rest)
    if (!(table in own)) check_actions(table, rest, count)
  }
}

# The actions of an ALTER TABLE, which are separated by commas outside of parentheses.
function check_actions(table, actions, count,   n, words, i, depth, action) {
  n = split(actions, words, " ")
  depth = 0
  action = ""
  for (i = 1; i <= n; i++) {
    if (words[i] == "(") depth++
    if (words[i] == ")") depth--
    if (words[i] == "," && depth == 0) {
      check_action(table, action, count)
      action = ""
    } else {
      action = action (action == "" ? "" : " ") words[i]
    }
  }
  check_action(table, action, count)
}

function check_action(table, action, count,   constraint) {
  if (action ~ /^alter (column )?[^ ]+ (set data )?type /)
    complain("changes the type of a column of " table ", which rewrites the table: add a column, fill it in batches, and move over to it")
  if (action ~ /^alter (column )?[^ ]+ set not null/)
    complain("SET NOT NULL reads all of " table " while nobody can use it: ADD CONSTRAINT name CHECK (column IS NOT NULL) NOT VALID, and VALIDATE CONSTRAINT in a file of its own")
  if (action ~ /^validate constraint / && count != 1)
    complain("VALIDATE CONSTRAINT reads all of " table " and keeps every lock of the file until then: put it into a file of its own")
  constraint = "^add (constraint [^ ]+ )?(primary key|unique|check|foreign key|exclude)( |$)"
  if (action ~ constraint) {
    if (action !~ / not valid$/ && action !~ / using index /)
      complain("adds a constraint to the existing table " table ", and reads all of it while nobody can write: for CHECK and FOREIGN KEY add NOT VALID, and VALIDATE CONSTRAINT in a file of its own; for UNIQUE and PRIMARY KEY build a unique index concurrently first, and add USING INDEX")
  } else if (action ~ /^add /) {
    check_column(table, action)
  }
}

function check_column(table, action,   type, volatile) {
  type = action
  sub(/^add (column )?(if not exists )?[^ ]+ /, "", type)
  if (action ~ / generated (always|by default) as /)
    complain("adds a generated column to " table ", which rewrites the table: add a plain column that the application writes")
  else if (first_word(type) ~ /^(small|big)?serial[248]?$/)
    complain("adds a serial column to " table ", which rewrites the table: add a plain column that the application writes")
  else if ((volatile = volatile_call(action)) != "")
    complain("adds a column to " table " with the default " volatile "(), which rewrites the table unless it is the same for all rows: add it without a default, and fill it in batches")
  if (action ~ / (check|unique|primary key)( |$)/)
    complain("adds a column with a constraint to " table ", and reads all of it while nobody can use it: add the column alone, then ADD CONSTRAINT ... NOT VALID")
  if (action ~ / references / && action ~ / default /)
    complain("adds a column with a default and a foreign key to " table ", and checks each row while nobody can write: add the column alone, then ADD CONSTRAINT ... NOT VALID")
  if (action ~ / not null( |$)/ && action !~ / default /)
    complain("adds a column without a default that is NOT NULL to " table ", which fails when there are rows, and for an older service that doesn't know it: give it a DEFAULT or leave NOT NULL out")
}

# The first function in a column's default that isn't known to give one value for all rows.
function volatile_call(action,   n, words, i) {
  n = split(after(action, " default "), words, " ")
  for (i = 1; i <= n; i++) {
    if (words[i] ~ /^(check|references|constraint|not|null|unique|primary|collate)$/) return ""
    if (i < n && words[i + 1] == "(" && words[i] !~ /::/ && words[i] ~ /^[a-z_][a-z0-9_.]*$/ &&
        words[i] !~ /^(now|transaction_timestamp|statement_timestamp|current_timestamp|row|array|interval|make_interval)$/)
      return words[i]
  }
  return ""
}
