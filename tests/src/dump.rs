//! Everything that the database holds, as text, and a search through it.

use std::{collections::BTreeSet, process::Stdio};

use regex::bytes::RegexBuilder;
use tokio::process::Command;

use crate::stack::Stack;

/// A dump of the whole database, followed by the bytes of all its binary columns: by `pg_dump` where it is installed and
/// not older than the server, else every row of every table as PostgreSQL writes it.
pub async fn everything(stack: &Stack) -> Vec<u8> {
    let mut dump = match by_pg_dump(stack).await {
        Some(dump) => dump,
        None => by_select(stack).await,
    };
    let binary = binary_columns(&dump);
    dump.extend_from_slice(&binary);
    dump
}

/// The texts that stand in `haystack`, whatever their case; `needles` are in lower case.
pub fn found(haystack: &[u8], needles: &BTreeSet<String>) -> Vec<String> {
    let lower = String::from_utf8_lossy(haystack).to_lowercase();
    let any = needles.iter().map(|needle| regex::escape(needle)).collect::<Vec<_>>().join("|");
    let any = RegexBuilder::new(&any).size_limit(1 << 28).build().expect("escaped texts are a regular expression");
    let found: BTreeSet<_> = any.find_iter(lower.as_bytes()).map(|found| found.as_bytes().to_vec()).collect();
    found.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
}

async fn by_pg_dump(stack: &Stack) -> Option<Vec<u8>> {
    let output =
        Command::new("pg_dump").args(["--dbname", stack.database().url()]).stdin(Stdio::null()).output().await.ok()?;
    output.status.success().then_some(output.stdout)
}

async fn by_select(stack: &Stack) -> Vec<u8> {
    let mut connection = stack.connect().await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&mut connection)
        .await
        .expect("the tables can be listed");
    let mut dump = Vec::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(&format!(r#"SELECT t::text FROM "{table}" t"#))
            .fetch_all(&mut connection)
            .await
            .expect("every table can be read");
        for row in rows {
            dump.extend_from_slice(row.as_bytes());
            dump.push(b'\n');
        }
    }
    dump
}

/// What stands behind each `\x` of a dump, one value a line.
fn binary_columns(dump: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(dump.len() / 2);
    let mut rest = dump;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\\x") {
        rest = &rest[at + 2..];
        let length = rest.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(rest.len());
        bytes.extend(rest[..length].chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
        bytes.push(b'\n');
        rest = &rest[length..];
    }
    bytes
}

fn digit(hex: u8) -> u8 {
    char::from(hex).to_digit(16).map_or(0, |digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_text_and_in_binary_columns() {
        let dump = b"1\tplain Ann.B here\t\\\\x416e6e204c6565\n2\t\\x00ff\n".to_vec();
        let all = [dump.clone(), binary_columns(&dump)].concat();
        let needles = ["ann.b", "ann lee", "nobody"].map(str::to_owned).into();
        assert_eq!(found(&all, &needles), ["ann lee", "ann.b"]);
    }
}
