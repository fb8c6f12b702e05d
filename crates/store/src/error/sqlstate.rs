//! Which answers of PostgreSQL say that the same work may succeed a moment later.
//!
//! Read off <https://www.postgresql.org/docs/current/errcodes-appendix.html>. Being wrong in one direction drops work that
//! would have succeeded; in the other it repeats for ever what can't succeed. So a code is listed only if whatever caused it
//! lies outside of the work: other transactions, the server, its operator, the connection.

/// Codes and whole classes (their first two characters) that pass, with the reason.
const TRANSIENT: &[(&str, &str)] = &[
    ("08", "connection exception: the connection broke; PgBouncer reports its own troubles as 08P01"),
    ("25006", "read-only transaction: this server is a standby, or became one in a failover"),
    ("25P03", "idle_in_transaction_session_timeout: this process was slow, and PostgreSQL rolled back"),
    ("25P04", "transaction_timeout: the same for the transaction as a whole"),
    ("40", "transaction rollback: another transaction won, or the outcome is unknown (40003)"),
    ("53", "insufficient resources: connections, memory, disk"),
    ("55006", "object in use: another session has it"),
    ("55P03", "lock not available: lock_timeout, another transaction has it"),
    ("57", "operator intervention: shutdown, start, statement_timeout, idle_session_timeout, a cancelled query"),
    ("58", "system error: the server's own trouble with its files"),
    ("72000", "snapshot too old: a new transaction takes a new one"),
];

/// Exceptions to a class above: the same work would fail again.
const PERMANENT: &[(&str, &str)] =
    &[("40002", "an integrity constraint rolled it back: a repetition violates it again")];

/// Whether the same work may succeed a moment later. What isn't listed is a defect of the data or of the program, or a
/// wrong configuration. In particular:
///
/// - 0A000 (feature not supported, and a cached plan whose result type changed) and 25P02 (a transaction that went on after
///   a failed statement) are defects of the program;
/// - 28xxx, 3D000 and 42501 say that an account or a database is configured wrongly, which an operator has to see at once;
/// - 26000 and 42P05 are a pooler's, see `StoreError::StatementsLost`;
/// - 54xxx (program limit exceeded) and XXxxx (internal error, corruption) come again with the same work.
pub(super) fn is_transient(code: &str) -> bool {
    let listed = |list: &[(&str, &str)]| list.iter().any(|(prefix, _)| code.starts_with(prefix));
    listed(TRANSIENT) && !listed(PERMANENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_or_another_transaction_caused_is_transient() {
        for code in [
            "08000", "08003", "08006", "08P01", "25006", "25P03", "25P04", "40000", "40001", "40003", "40P01", "53000",
            "53100", "53200", "53300", "53400", "55006", "55P03", "57000", "57014", "57P01", "57P02", "57P03", "57P04",
            "57P05", "58000", "58030", "58P01", "72000",
        ] {
            assert!(is_transient(code), "{code}");
        }
    }

    #[test]
    fn what_the_work_itself_caused_is_not_transient() {
        for code in [
            "03000", "0A000", "21000", "22001", "22012", "22P02", "23502", "23503", "23505", "23514", "25000", "25001",
            "25P01", "25P02", "26000", "28000", "28P01", "2D000", "3D000", "3F000", "40002", "42501", "42601", "42703",
            "42P01", "42P05", "44000", "54000", "54001", "55000", "55P02", "55P04", "P0001", "XX000", "XX001", "XX002",
        ] {
            assert!(!is_transient(code), "{code}");
        }
    }

    #[test]
    fn every_listed_code_has_the_form_of_one() {
        for (code, reason) in TRANSIENT.iter().chain(PERMANENT) {
            assert!(matches!(code.len(), 2 | 5) && !reason.is_empty(), "{code}");
            assert!(code.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase()), "{code}");
        }
    }
}
