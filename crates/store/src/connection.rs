//! What the functions of this crate take.

use std::time::Duration;

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Database, Either, Execute, Executor, PgConnection, Postgres, TransactionManager as _,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo},
};
use tokio::{runtime::Handle, time::timeout};

/// A connection inside of a transaction.
///
/// It decides how statements are prepared: as a rule under names that the connection remembers, so that PostgreSQL parses
/// each once; or, for a pooler that gives every transaction another server connection, without names, so that nothing is
/// left behind. (A statement cache of capacity 0 isn't the same: sqlx 0.8 names the statements all the same and never
/// closes them.)
#[derive(Debug)]
pub struct Connection {
    /// There until it is abandoned.
    pooled: Option<PoolConnection<Postgres>>,
    /// Whether a transaction is under way that nobody has ended.
    open: bool,
    cache_statements: bool,
    /// When it counts as dead if nothing is heard on it.
    deadline: Duration,
}

impl Connection {
    pub(crate) const fn new(pooled: PoolConnection<Postgres>, cache_statements: bool, deadline: Duration) -> Self {
        Self { pooled: Some(pooled), open: false, cache_statements, deadline }
    }

    /// Begins a transaction by `statement`; dropped before [`Connection::commit`], it is rolled back.
    pub(crate) async fn begin(&mut self, statement: String) -> Result<(), sqlx::Error> {
        PgTransactionManager::begin(self.live(), Some(statement.into())).await?;
        self.open = true;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::commit(self.live()).await?;
        self.open = false;
        Ok(())
    }

    /// Closes the connection without a word, where nobody seems to listen: back in the pool, it would hang with whoever
    /// takes it next.
    pub(crate) fn abandon(mut self) {
        self.open = false;
        // Closing in order would wait for an answer as well.
        drop(self.pooled.take().map(PoolConnection::detach));
    }

    fn live(&mut self) -> &mut PgConnection {
        self.pooled.as_mut().expect("an abandoned connection is gone")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(pooled) = &mut self.pooled else { return };
        if self.open {
            PgTransactionManager::start_rollback(pooled);
        }
        // On its way back into the pool it is asked for a sign of life, for which sqlx would wait for ever, and the pool
        // would have one place less. Dropped half-way, the connection is closed.
        let returning = pooled.return_to_pool();
        let deadline = self.deadline;
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(deadline, returning).await });
        }
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let keep = self.cache_statements;
        self.live().fetch_many(Prepared { query, keep })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let keep = self.cache_statements;
        self.live().fetch_optional(Prepared { query, keep })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.live().prepare_with(sql, parameters)
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.live().describe(sql)
    }
}

/// A query, and whether its prepared statement may be kept.
struct Prepared<E> {
    query: E,
    keep: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Prepared<E> {
    fn sql(&self) -> &'q str {
        self.query.sql()
    }

    fn statement(&self) -> Option<&<Postgres as Database>::Statement<'q>> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.keep && self.query.persistent()
    }
}
