//! A scriptable SMTP server (RFC 5321) over real TCP, for tests of whoever sends mail.
//!
//! It records every envelope and every complete message, speaks STARTTLS and implicit TLS with a certificate of its own
//! authority, and AUTH PLAIN, LOGIN and XOAUTH2. A script decides what happens at each step:
//!
//! ```
//! use test_support::smtp::{Action, FakeSmtp, Step};
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let server = FakeSmtp::builder()
//!     .script(|event| match event.step {
//!         Step::Rcpt if event.argument.contains("full@") => Action::reply("452 4.2.2 mailbox full"),
//!         _ => Action::Proceed,
//!     })
//!     .start()
//!     .await;
//! assert!(server.messages().is_empty());
//! # });
//! ```
//!
//! To add a misbehaviour, add an [`Action`] and handle it in `session.rs`.

mod session;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use tls::CertificateAuthority;

/// Where a session stands when the script is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A client connected; the greeting is due.
    Connect,
    /// `EHLO` or `HELO`.
    Ehlo,
    /// `STARTTLS`.
    StartTls,
    /// `AUTH`.
    Auth,
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Rcpt,
    /// `DATA`; the 354 is due.
    Data,
    /// The first line of the body arrived.
    Body,
    /// The whole message arrived; its reply is due.
    Dot,
    /// `RSET`.
    Rset,
    /// `NOOP`.
    Noop,
    /// `QUIT`.
    Quit,
}

/// What the script is told.
#[derive(Debug, Clone, Copy)]
pub struct StepEvent<'a> {
    /// The step.
    pub step: Step,
    /// The command's line, without its line break; for [`Step::Dot`] the recipients, separated by commas.
    pub argument: &'a str,
    /// Counts the server's connections, from 0.
    pub connection: usize,
    /// Counts the connection's `MAIL` commands, from 1; 0 before the first.
    pub transaction: usize,
}

/// What the server does at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// What a healthy server does.
    Proceed,
    /// Sends these bytes (a `CRLF` is added) and goes on; the step has no effect (a message isn't recorded).
    Reply(String),
    /// Waits, then does as [`Action::Reply`].
    DelayedReply(Duration, String),
    /// Sends these bytes (a `CRLF` is added), then closes.
    ReplyAndClose(String),
    /// Sends these bytes as they are, again and again, until the client hangs up.
    Flood(Vec<u8>),
    /// Sends these bytes (a `CRLF` is added), one a second, and goes on; the step has no effect.
    Drip(String),
    /// Says nothing more and keeps the connection open until the client hangs up.
    Hang,
    /// Closes at once; at [`Step::Dot`] the message is not recorded.
    Close,
    /// Takes what came (at [`Step::Dot`], records the message) and closes without a reply.
    TakeAndClose,
    /// Takes what came (at [`Step::Dot`], records the message) and says nothing more.
    TakeAndHang,
    /// Takes what came (at [`Step::Dot`], records the message), waits, then says so.
    TakeAndDelay(Duration),
    /// Waits, then proceeds.
    Delay(Duration),
}

impl Action {
    /// Sends `line` and goes on.
    pub fn reply(line: &str) -> Self {
        Self::Reply(line.to_owned())
    }
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// On request, by `STARTTLS` (RFC 3207).
    StartTls,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// A message that the server took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The return path.
    pub mail_from: String,
    /// The recipients.
    pub rcpt_to: Vec<String>,
    /// The complete message, dot-stuffing undone.
    pub data: Vec<u8>,
    /// The connection that it came on, from 0.
    pub connection: usize,
    /// The user who logged in, if any.
    pub user: Option<String>,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
}

type Script = dyn Fn(&StepEvent<'_>) -> Action + Send + Sync;

/// What sessions share.
struct Shared {
    script: Mutex<Arc<Script>>,
    encryption: Encryption,
    acceptor: tokio_rustls::TlsAcceptor,
    login: Option<(String, String)>,
    /// Further extensions that EHLO offers.
    extensions: Vec<String>,
    messages: Mutex<Vec<Received>>,
    taken: watch::Sender<usize>,
    connections: AtomicUsize,
    commands: Mutex<Vec<String>>,
}

impl Shared {
    fn action(&self, event: &StepEvent<'_>) -> Action {
        let script = Arc::clone(&self.script.lock().unwrap_or_else(PoisonError::into_inner));
        script(event)
    }

    fn take(&self, message: Received) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        self.taken.send_replace(messages.len());
    }
}

/// Sets up a [`FakeSmtp`].
pub struct Builder {
    script: Arc<Script>,
    encryption: Encryption,
    login: Option<(String, String)>,
    extensions: Vec<String>,
}

impl Builder {
    /// Asks `script` at every step.
    pub fn script(mut self, script: impl Fn(&StepEvent<'_>) -> Action + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// Encrypts connections.
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// Wants this user and this password (or token) before `MAIL`.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Offers one more extension, such as `SIZE 1000`.
    pub fn extension(mut self, line: &str) -> Self {
        self.extensions.push(line.to_owned());
        self
    }

    /// Listens on a free port of 127.0.0.1; it ends when the returned value is dropped.
    pub async fn start(self) -> FakeSmtp {
        let authority = CertificateAuthority::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            script: Mutex::new(self.script),
            encryption: self.encryption,
            acceptor: authority.acceptor("localhost"),
            login: self.login,
            extensions: self.extensions,
            messages: Mutex::new(Vec::new()),
            taken: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            commands: Mutex::new(Vec::new()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        FakeSmtp { address, authority, shared, task }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The set's end aborts the sessions with the server.
    let mut sessions = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
        sessions.spawn(session::serve(socket, connection, Arc::clone(&shared)));
    }
}

/// The server; see the module's page.
pub struct FakeSmtp {
    address: SocketAddr,
    authority: CertificateAuthority,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FakeSmtp {
    /// A healthy server without encryption or login, until told otherwise.
    pub fn builder() -> Builder {
        Builder {
            script: Arc::new(|_| Action::Proceed),
            encryption: Encryption::None,
            login: None,
            extensions: Vec::new(),
        }
    }

    /// Starts a healthy server without encryption or login.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate (PEM) of the authority that signed the server's, which is for `localhost`.
    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// Replaces the script from the next step on.
    pub fn set_script(&self, script: impl Fn(&StepEvent<'_>) -> Action + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    /// What it took so far.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every command line so far, in the order they came.
    pub fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has taken at least `count` messages, for at most a minute.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut taken = self.shared.taken.subscribe();
        let waiting = taken.wait_for(|taken| *taken >= count);
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .unwrap_or_else(|_| panic!("only {} of {count} messages arrived within a minute", self.messages().len()))
            .expect("the server holds the sender");
        self.messages()
    }
}

impl Drop for FakeSmtp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
