//! Mails into a sink: SMTP (RFC 5321) over bare TCP, step by step as the mailer does it, with no more than a sink needs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use crate::CeilingError;

/// The bytes of a typical mail: what the mailer composes for a made-up creator.
const MAIL_BYTES: usize = 7_500;
/// The length of a line of it.
const LINE_BYTES: usize = 74;

/// A mail sink on this machine.
#[derive(Debug, Clone, Copy)]
pub struct MailSink {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections that are kept open; as many mails are on their way at once.
    pub connections: u32,
    /// Mails of one connection before it is replaced.
    pub mails_per_connection: u32,
}

impl MailSink {
    /// Sends so many mails, and tells how long it took.
    pub async fn send(&self, count: u64) -> Result<Duration, CeilingError> {
        let body: Arc<str> = body().into();
        let sent = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let (sink, body, sent) = (*self, Arc::clone(&body), Arc::clone(&sent));
            connections.spawn(async move {
                let mut session = None;
                loop {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let mut open = match session.take() {
                        Some(open) => open,
                        None => Session::open(sink.address).await?,
                    };
                    open.send(number, &body).await?;
                    if open.mails < sink.mails_per_connection {
                        session = Some(open);
                    } else {
                        open.command("QUIT", "QUIT\r\n", '2').await?;
                    }
                }
                if let Some(mut open) = session {
                    open.command("QUIT", "QUIT\r\n", '2').await?;
                }
                Ok(())
            });
        }
        while let Some(ended) = connections.join_next().await {
            ended.map_err(|_| CeilingError::Panicked)??;
        }
        Ok(started.elapsed())
    }
}

/// A connection to the sink.
struct Session {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    mails: u32,
}

impl Session {
    async fn open(address: SocketAddr) -> Result<Self, CeilingError> {
        let failed = |source| CeilingError::Sink { address, source };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut session = Self { address, stream: BufReader::new(stream), mails: 0 };
        session.command("the connection", "", '2').await?;
        session.command("EHLO", "EHLO bench.example.com\r\n", '2').await?;
        Ok(session)
    }

    async fn send(&mut self, number: u64, body: &str) -> Result<(), CeilingError> {
        self.mails += 1;
        self.command("MAIL", "MAIL FROM:<partners@bench.example.com>\r\n", '2').await?;
        self.command("RCPT", &format!("RCPT TO:<creator{number}@studio.example.com>\r\n"), '2').await?;
        self.command("DATA", "DATA\r\n", '3').await?;
        self.command("a mail", body, '2').await
    }

    /// Sends something and reads the answer, whose code has to begin with `expected`.
    async fn command(&mut self, name: &'static str, text: &str, expected: char) -> Result<(), CeilingError> {
        let address = self.address;
        let failed = |source| CeilingError::Sink { address, source };
        self.stream.get_mut().write_all(text.as_bytes()).await.map_err(failed)?;
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.map_err(failed)?;
            // An answer of several lines has a hyphen after the code of all but the last.
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        if line.starts_with(expected) {
            Ok(())
        } else {
            Err(CeilingError::Refused { command: name, answer: line.trim_end().to_owned() })
        }
    }
}

/// A message of typical size with the dot at its end.
fn body() -> String {
    let mut body = String::from("From: <partners@bench.example.com>\r\nSubject: Bench\r\n\r\n");
    while body.len() < MAIL_BYTES {
        body.extend(std::iter::repeat_n('x', LINE_BYTES));
        body.push_str("\r\n");
    }
    body.push_str(".\r\n");
    body
}
