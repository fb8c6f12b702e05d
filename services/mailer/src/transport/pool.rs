//! Connections that are kept open and used again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use domain::smtp_reply::Phase;
use lettre::transport::smtp::commands::Quit;
use tokio::sync::Semaphore;

use super::{
    connect::{Dialer, SetupError, step},
    outcome::SendOutcome,
    session::{Connection, Session},
};
use crate::config::SmtpConfig;

/// What sessions share.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) config: SmtpConfig,
    pub(super) dialer: Dialer,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("mails", &self.mails).finish_non_exhaustive()
    }
}

impl Pool {
    /// The connection that was used last, so that the others can grow old and be closed.
    pub(super) fn take(&self) -> Option<Connection> {
        self.close_old();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a connection for the next mail, unless it has had enough of them.
    pub(super) fn keep(&self, mut connection: Connection) {
        if connection.smtp.has_broken() {
            return;
        }
        if connection.mails >= self.config.mails_per_connection.get() {
            self.retire(connection);
            return;
        }
        connection.idle_since = Instant::now();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn close_old(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, fresh) = idle.drain(..).partition(|one| one.idle_since.elapsed() >= self.config.idle_limit);
        *idle = fresh;
        drop(idle);
        let old: Vec<Connection> = old;
        for connection in old {
            self.retire(connection);
        }
    }
}

/// The SMTP transport: at most `connections` transactions at once, over connections that are kept open.
#[derive(Debug, Clone)]
pub struct SmtpTransport {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
}

impl SmtpTransport {
    /// Sets it up; connects to nobody yet.
    pub fn new(config: SmtpConfig) -> Result<Self, SetupError> {
        let permits = Arc::new(Semaphore::new(config.connections.get() as usize));
        let dialer = Dialer::new(config.clone())?;
        Ok(Self { pool: Arc::new(Pool { config, dialer, idle: Mutex::new(Vec::new()) }), permits })
    }

    /// The right to one transaction, in the order of those who wait for one.
    pub async fn session(&self) -> Session {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        Session::new(Arc::clone(&self.pool), permit)
    }

    /// Connects, negotiates TLS and logs in as for a mail, and says goodbye.
    ///
    /// # Errors
    /// What a mail would meet on this way.
    pub async fn probe(&self) -> Result<(), SendOutcome> {
        let mut smtp = self.pool.dialer.connect().await?;
        // Whatever it answers: what was asked is known.
        let _ = step(Phase::Connect, self.pool.config.command_timeout, smtp.command(Quit)).await;
        Ok(())
    }

    /// Opens a connection and keeps it for the next mail; `None` while as many transactions as may be are under way.
    ///
    /// # Errors
    /// What a mail would meet on this way.
    pub async fn reach(&self) -> Option<Result<(), SendOutcome>> {
        let _permit = self.permits.try_acquire().ok()?;
        let connected = self.pool.dialer.connect().await;
        Some(connected.map(|smtp| self.pool.keep(Connection::new(smtp))))
    }

    /// Closes connections that nobody has used for a while; call it now and then.
    pub fn close_idle(&self) {
        self.pool.close_old();
    }
}
