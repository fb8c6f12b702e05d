//! Where mails go that are sent while something is measured: nowhere, but over real connections on this machine.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, bail, ensure};
use mailer::config::MailerConfig;
use service::config::Document;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::pipeline::Transport;
use super::place::Place;
use crate::settings::WrongUsage;

/// Postfix's sink, which counts nothing and is hard to beat.
const SMTP_SINK: &str = "smtp-sink";
/// Where it is on systems that keep it out of the way of ordinary users.
const SYSTEM_FOLDER: &str = "/usr/sbin";
/// How many connections may wait to be taken.
const BACKLOG: &str = "1000";
/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The name in the built-in sink's certificate.
const HOST: &str = "localhost";

/// Which sink, and how it is talked to.
#[derive(Debug, Clone, clap::Args)]
pub struct SinkArgs {
    /// Send to this address of the loopback [default: postfix's smtp-sink where it is installed, else a built-in sink]
    #[arg(long, value_name = "HOST:PORT", value_parser = loopback)]
    sink: Option<SocketAddr>,
    /// Connections to the sink, of each mailer [default: as configured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: Option<u32>,
}

impl SinkArgs {
    /// Connections to the sink.
    pub fn connections(&self, document: &Document) -> anyhow::Result<u32> {
        match self.connections {
            Some(connections) => Ok(connections),
            None => Ok(MailerConfig::read(document)?.0.smtp.connections.get()),
        }
    }
}

/// Load is for this machine alone.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .replace("localhost:", "127.0.0.1:")
        .parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:2525".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{address} is not on this machine: a benchmark sends its mails to the loopback only"))
    }
}

/// A running sink; it ends when dropped.
pub struct Sink {
    address: SocketAddr,
    kind: Kind,
    connections: Option<u32>,
    /// The authority of its certificate, where it has one.
    ca_file: Option<PathBuf>,
}

enum Kind {
    /// Somebody else's.
    Given,
    /// Postfix's.
    Postfix(std::process::Child),
    /// In this process.
    BuiltIn { accepting: JoinHandle<()>, taken: Arc<AtomicU64> },
}

impl Sink {
    /// One without TLS, if mails are sent at all.
    pub fn for_transport(transport: Transport, args: &SinkArgs, place: &Place) -> anyhow::Result<Option<Self>> {
        match transport {
            Transport::Capture if args.sink.is_some() => {
                Err(WrongUsage("--sink is for --transport smtp: with capture nothing is sent".to_owned()).into())
            }
            Transport::Capture => Ok(None),
            Transport::Smtp => Self::plain(args, place).map(Some),
        }
    }

    /// The one that was named, or postfix's, or a built-in one.
    pub fn plain(args: &SinkArgs, place: &Place) -> anyhow::Result<Self> {
        let connections = args.connections;
        if let Some(address) = args.sink {
            return Ok(Self { address, kind: Kind::Given, connections, ca_file: None });
        }
        match smtp_sink() {
            Some(program) => {
                let (address, child) = start_postfix(&program, place)?;
                Ok(Self { address, kind: Kind::Postfix(child), connections, ca_file: None })
            }
            None => Self::built_in(None, connections, None),
        }
    }

    /// A built-in one that speaks STARTTLS.
    pub fn with_tls(args: &SinkArgs, place: &Place) -> anyhow::Result<Self> {
        let (acceptor, certificate) = certificate()?;
        let ca_file = place.folder.path().join("sink.pem");
        fs::write(&ca_file, certificate).with_context(|| format!("writing {}", ca_file.display()))?;
        Self::built_in(Some(acceptor), args.connections, Some(ca_file))
    }

    fn built_in(
        acceptor: Option<TlsAcceptor>,
        connections: Option<u32>,
        ca_file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let listener = StdListener::bind("127.0.0.1:0").context("binding the mail sink's port")?;
        listener.set_nonblocking(true).context("preparing the mail sink's socket")?;
        let address = listener.local_addr().context("asking for the mail sink's port")?;
        let listener = TcpListener::from_std(listener).context("preparing the mail sink's socket")?;
        let taken = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&taken)));
        Ok(Self { address, kind: Kind::BuiltIn { accepting, taken }, connections, ca_file })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is, for people.
    pub fn told(&self) -> String {
        match &self.kind {
            Kind::Given => format!("the sink at {}", self.address),
            Kind::Postfix(_) => "postfix's smtp-sink".to_owned(),
            Kind::BuiltIn { .. } if self.is_encrypted() => "the built-in sink, by STARTTLS".to_owned(),
            Kind::BuiltIn { .. } => "the built-in sink (postfix's smtp-sink is not installed)".to_owned(),
        }
    }

    /// Whether mails to it go by TLS.
    pub const fn is_encrypted(&self) -> bool {
        self.ca_file.is_some()
    }

    /// The mailer's settings that lead to it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let host = if self.is_encrypted() { HOST.to_owned() } else { self.address.ip().to_string() };
        let mut settings = vec![
            ("mailer.transport", "smtp".to_owned()),
            ("mailer.test_sink", "true".to_owned()),
            ("mailer.smtp.host", host),
            ("mailer.smtp.port", self.address.port().to_string()),
            ("mailer.smtp.tls", if self.is_encrypted() { "starttls" } else { "none" }.to_owned()),
        ];
        if let Some(ca_file) = &self.ca_file {
            settings.push(("mailer.smtp.ca_file", ca_file.display().to_string()));
        }
        if let Some(connections) = self.connections {
            settings.push(("mailer.smtp.connections", connections.to_string()));
        }
        settings
    }

    /// How many mails it has taken, if it counts them.
    pub fn taken(&self) -> Option<u64> {
        match &self.kind {
            Kind::BuiltIn { taken, .. } => Some(taken.load(Ordering::Relaxed)),
            Kind::Given | Kind::Postfix(_) => None,
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Given => {}
            Kind::Postfix(child) => {
                // It has ended already, or ends now.
                let _ = child.kill();
                let _ = child.wait();
            }
            Kind::BuiltIn { accepting, .. } => accepting.abort(),
        }
    }
}

/// Postfix's sink, if it is installed.
fn smtp_sink() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain([PathBuf::from(SYSTEM_FOLDER)]).collect();
    folders.into_iter().map(|folder| folder.join(SMTP_SINK)).find(|program| program.is_file())
}

fn start_postfix(program: &PathBuf, place: &Place) -> anyhow::Result<(SocketAddr, std::process::Child)> {
    let address = StdListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .context("looking for a free port for the mail sink")?;
    let mut command = Command::new(program);
    // It refuses to run as root.
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.args(["-u", "nobody"]);
    }
    command.arg(address.to_string()).arg(BACKLOG);
    command.current_dir(place.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait().context("looking for the mail sink")? {
            bail!("{} ended at once ({status}); --sink names another", program.display());
        }
        ensure!(started.elapsed() < START_LIMIT, "{} does not listen; --sink names another", program.display());
        thread::sleep(Duration::from_millis(10));
    }
    Ok((address, child))
}

/// A certificate that nobody else trusts, and the server's side of it.
fn certificate() -> anyhow::Result<(TlsAcceptor, String)> {
    let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).context("making a certificate")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .context("preparing TLS for the mail sink")?;
    Ok((TlsAcceptor::from(Arc::new(config)), made.cert.pem()))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, taken: Arc<AtomicU64>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, taken) = (acceptor.clone(), Arc::clone(&taken));
        // Who breaks a connection off loses nothing here.
        sessions.spawn(async move { serve(stream, acceptor, &taken).await.ok() });
        while sessions.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, acceptor: Option<TlsAcceptor>, taken: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink.example ESMTP\r\n").await?;
    let ended = Session { offers_tls: acceptor.is_some(), taken, input: Vec::new() }.run(&mut stream).await?;
    if let (End::StartTls, Some(acceptor)) = (ended, acceptor) {
        let mut stream = acceptor.accept(stream).await?;
        Session { offers_tls: false, taken, input: Vec::new() }.run(&mut stream).await?;
    }
    Ok(())
}

/// One SMTP conversation (RFC 5321) that says yes to everything.
struct Session<'a> {
    offers_tls: bool,
    taken: &'a AtomicU64,
    input: Vec<u8>,
}

/// How a conversation ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Quit,
    StartTls,
}

impl Session<'_> {
    async fn run(mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<End> {
        loop {
            let Some(line) = self.until(stream, b"\r\n").await? else { return Ok(End::Quit) };
            let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            let answer: &[u8] = match verb.as_slice() {
                b"EHLO" if self.offers_tls => b"250-sink.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 STARTTLS\r\n",
                b"EHLO" => b"250-sink.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
                b"STAR" if self.offers_tls => {
                    stream.write_all(b"220 go ahead\r\n").await?;
                    return Ok(End::StartTls);
                }
                b"DATA" => {
                    stream.write_all(b"354 go ahead\r\n").await?;
                    if self.until(stream, b"\r\n.\r\n").await?.is_none() {
                        return Ok(End::Quit);
                    }
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    b"250 2.0.0 taken\r\n"
                }
                b"QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(End::Quit);
                }
                _ => b"250 2.0.0 fine\r\n",
            };
            stream.write_all(answer).await?;
            stream.flush().await?;
        }
    }

    /// What comes up to `mark`; `None` when the other side has hung up.
    async fn until(&mut self, stream: &mut (impl AsyncRead + Unpin), mark: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.input[searched..].windows(mark.len()).position(|window| window == mark) {
                let rest = self.input.split_off(searched + at + mark.len());
                return Ok(Some(std::mem::replace(&mut self.input, rest)));
            }
            searched = self.input.len().saturating_sub(mark.len() - 1);
            if stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_go_to_the_loopback_only() {
        for (text, is_allowed) in [
            ("127.0.0.1:25", true),
            ("[::1]:25", true),
            ("localhost:2525", true),
            ("10.0.0.1:25", false),
            ("mx.example.com:25", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(loopback(text).is_ok(), is_allowed, "{text}");
        }
    }

    #[tokio::test]
    async fn the_built_in_sink_takes_mails_one_after_the_other() {
        let sink = Sink::built_in(None, None, None).unwrap();
        let bare = ceiling::bare::MailSink { address: sink.address(), connections: 3, mails_per_connection: 4 };
        bare.send(25).await.unwrap();
        assert_eq!(sink.taken(), Some(25));
    }
}
