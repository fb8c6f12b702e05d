//! Limits: how many mails a program may start in a minute and in a day, shared by all replicas.
//!
//! A mail that is claimed takes a token from each limit's current window. A mail of which nothing went out, through no fault
//! of its own, gives them back: to the window that they were taken from, which may have passed.

use domain::id::ProgramId;
use time::OffsetDateTime;

use crate::{Connection, StoreError};

/// The span of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// A minute of the clock.
    Minute,
    /// A day, in UTC.
    Day,
}

impl Span {
    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
        }
    }
}

/// A window of a limit, from which each claimed mail has taken a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Which limit.
    pub span: Span,
    /// When the window began, by PostgreSQL's clock.
    pub start: OffsetDateTime,
}

/// Takes up to `wanted` tokens from a program's budget for the current window, of which `limit` may be used in all; returns
/// the window and how many were granted. Take them in the transaction of the claim, so that all replicas share the limit and
/// a claim that fails gives them back.
pub async fn take(
    connection: &mut Connection,
    program: ProgramId,
    span: Span,
    limit: i32,
    wanted: i32,
) -> Result<(Window, i32), StoreError> {
    let name = span.name();
    sqlx::query!(
        "INSERT INTO send_budgets (program_id, span, window_start, used)
         VALUES ($1, $2, date_trunc($2, now(), 'UTC'), 0) ON CONFLICT DO NOTHING",
        program.as_uuid(),
        name,
    )
    .execute(&mut *connection)
    .await?;
    let budget = sqlx::query!(
        "SELECT window_start, used FROM send_budgets
         WHERE program_id = $1 AND span = $2 AND window_start = date_trunc($2, now(), 'UTC') FOR UPDATE",
        program.as_uuid(),
        name,
    )
    .fetch_one(&mut *connection)
    .await?;
    let granted = wanted.min(limit - budget.used).max(0);
    if granted > 0 {
        sqlx::query!(
            "UPDATE send_budgets SET used = used + $4 WHERE program_id = $1 AND span = $2 AND window_start = $3",
            program.as_uuid(),
            name,
            budget.window_start,
            granted,
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!(
        "DELETE FROM send_budgets WHERE program_id = $1 AND span = $2 AND window_start < now() - interval '2 days'",
        program.as_uuid(),
        name,
    )
    .execute(connection)
    .await?;
    Ok((Window { span, start: budget.window_start }, granted))
}

/// Counts the mails that a program has sent or claimed today, for a daily limit that was set: before, without a limit, no token was
/// taken. No more mails are read than the limit allows. Tokens that were taken stay taken: some are of claims that this doesn't
/// see yet, others of mails that failed. Count once more after the limit is committed, for claims that were under way.
pub async fn recount_day(connection: &mut Connection, program: ProgramId, limit: i32) -> Result<(), StoreError> {
    // Along the indexes of what was sent and of leases: see `claim`.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *connection).await?;
    sqlx::query!(
        "INSERT INTO send_budgets (program_id, span, window_start, used)
         SELECT $1, 'day', date_trunc('day', now(), 'UTC'), count(*)
         FROM (SELECT * FROM (SELECT FROM outreach
                              WHERE program_id = $1 AND sent_at >= date_trunc('day', now(), 'UTC')
                              ORDER BY sent_at LIMIT $2) sent
               UNION ALL
               SELECT * FROM (SELECT FROM outreach
                              WHERE program_id = $1 AND state IN ('connecting', 'transmitting')
                              ORDER BY due_at LIMIT $2) in_hand) begun
         ON CONFLICT (program_id, span, window_start) DO UPDATE SET used = greatest(send_budgets.used, excluded.used)",
        program.as_uuid(),
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives tokens back to the window that they were taken from, in the transaction that took them or later.
pub async fn give_back(
    connection: &mut Connection,
    program: ProgramId,
    window: Window,
    unused: i32,
) -> Result<(), StoreError> {
    if unused <= 0 {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE send_budgets SET used = greatest(used - $4, 0) WHERE program_id = $1 AND span = $2 AND window_start = $3",
        program.as_uuid(),
        window.span.name(),
        window.start,
        unused,
    )
    .execute(connection)
    .await?;
    Ok(())
}
