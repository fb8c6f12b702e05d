//! Opens a connection: TCP, TLS, EHLO, AUTH.

use std::{fmt, future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use domain::smtp_reply::Phase;
use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, AsyncTokioStream},
    commands::Auth,
    extension::ClientId,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    outcome::{self, Reply, SendOutcome, broken, classify, of_error},
    stream::Bounded,
};
use crate::config::{AuthMechanism, SmtpConfig, TlsMode};

/// The most bytes of a reply before TLS.
const PLAIN_REPLY_BYTES: usize = 8 * 1_024;

/// The transport can't be set up from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with certificates can't be read.
    #[error("the certificates of `mailer.smtp.ca_file` ({}) can't be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// It holds none.
    #[error("`mailer.smtp.ca_file` ({}) holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// TLS can't be set up.
    #[error("TLS to the mail server can't be set up")]
    Tls(#[from] rustls::Error),
    /// The host's name can't be checked against a certificate.
    #[error("`mailer.smtp.host` is neither a host name nor an address")]
    Host(#[source] rustls::pki_types::InvalidDnsNameError),
}

/// How to reach the server.
pub(super) struct Dialer {
    config: SmtpConfig,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    helo: ClientId,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("host", &self.config.host)
            .field("port", &self.config.port)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(config: SmtpConfig) -> Result<Self, SetupError> {
        let tls = match config.tls {
            TlsMode::None => None,
            TlsMode::Starttls | TlsMode::Implicit => {
                let name = ServerName::try_from(config.host.clone()).map_err(SetupError::Host)?;
                Some((TlsConnector::from(Arc::new(client_config(&config)?)), name))
            }
        };
        let helo = config.helo_name.clone().map_or_else(ClientId::default, ClientId::Domain);
        Ok(Self { config, tls, helo })
    }

    /// Connects and logs in; each step within its own limit.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, SendOutcome> {
        let limit = self.config.connect_timeout;
        let address = (self.config.host.as_str(), self.config.port);
        let tcp = within_io(limit, "smtp_unreachable", TcpStream::connect(address)).await?;
        // Commands are small and each waits for its reply: without this they would wait for each other's ACKs.
        let _ = tcp.set_nodelay(true);
        let peer = tcp.peer_addr().map_err(|error| lost("smtp_unreachable", &error))?;
        let stream: Box<dyn AsyncTokioStream> = match &self.tls {
            None => Box::new(Bounded::new(tcp, peer, b"")),
            Some((tls, name)) => {
                let mut tcp = tcp;
                let mut prelude: &'static [u8] = b"";
                if self.config.tls == TlsMode::Starttls {
                    within(Phase::Connect, limit, starttls(&mut tcp, &self.helo)).await??;
                    // A server greets once, before STARTTLS; lettre wants to read a greeting from what it is given.
                    prelude = b"220 tls\r\n";
                }
                let encrypted = within_io(limit, "smtp_tls", tls.connect(name.clone(), tcp)).await?;
                Box::new(Bounded::new(encrypted, peer, prelude))
            }
        };
        let greeting = AsyncSmtpConnection::connect_with_transport(stream, &self.helo);
        let mut connection = step(Phase::Connect, limit, greeting).await?;
        if let (Some(user), Some(password)) = (&self.config.username, &self.config.password) {
            let credentials = Credentials::new(user.clone(), password.expose().clone());
            let login = log_in(&mut connection, self.config.auth, credentials);
            within(Phase::Login, self.config.command_timeout, login).await??;
        }
        Ok(connection)
    }
}

fn client_config(config: &SmtpConfig) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let broken = |source| SetupError::CaFile { path: path.clone(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(broken)? {
            roots.add(certificate.map_err(broken)?)?;
        }
        if roots.is_empty() {
            return Err(SetupError::NoCertificate { path: path.clone() });
        }
    } else {
        // Certificates of the system that can't be read are skipped, as every other client does.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Greeting, EHLO and STARTTLS on the bare socket, byte by byte: what the peer says beyond its reply to STARTTLS stays
/// unread and makes the handshake fail, instead of being taken for a reply of the encrypted session (CVE-2011-0411).
async fn starttls(tcp: &mut TcpStream, helo: &ClientId) -> Result<(), SendOutcome> {
    expect(tcp, 220).await?;
    write(tcp, &format!("EHLO {helo}\r\n")).await?;
    let offer = expect(tcp, 250).await?;
    if !offer.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        return Err(broken(Phase::Connect, "smtp_no_starttls"));
    }
    write(tcp, "STARTTLS\r\n").await?;
    expect(tcp, 220).await?;
    Ok(())
}

async fn write(tcp: &mut TcpStream, line: &str) -> Result<(), SendOutcome> {
    tcp.write_all(line.as_bytes()).await.map_err(|error| lost("smtp_connection_lost", &error))
}

/// Reads a reply and gives its lines if it has this code.
async fn expect(tcp: &mut TcpStream, code: u16) -> Result<String, SendOutcome> {
    let mut reply = Vec::new();
    let mut line_start = 0;
    loop {
        let byte = tcp.read_u8().await.map_err(|error| lost("smtp_connection_lost", &error))?;
        reply.push(byte);
        if reply.len() > PLAIN_REPLY_BYTES {
            return Err(broken(Phase::Connect, "smtp_unreadable_reply"));
        }
        if byte == b'\n' {
            // `250-` goes on, `250 ` and a bare `250` end the reply.
            if reply.get(line_start + 3) != Some(&b'-') {
                break;
            }
            line_start = reply.len();
        }
    }
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let found: Option<u16> = reply.get(..3).and_then(|code| code.parse().ok());
    match found {
        Some(found) if found == code => Ok(reply),
        Some(found) => Err(classify(Phase::Connect, Reply::new(found, reply.get(4..).unwrap_or_default()))),
        None => Err(broken(Phase::Connect, "smtp_unreadable_reply")),
    }
}

/// AUTH (RFC 4954). lettre's own takes the challenge with which XOAUTH2 explains a refusal for a protocol error.
async fn log_in(
    connection: &mut AsyncSmtpConnection,
    mechanism: AuthMechanism,
    credentials: Credentials,
) -> Result<(), SendOutcome> {
    let mechanism = match mechanism {
        AuthMechanism::Plain => Mechanism::Plain,
        AuthMechanism::Login => Mechanism::Login,
        AuthMechanism::Xoauth2 => Mechanism::Xoauth2,
    };
    let failed = |error: Error| of_error(Phase::Login, &error);
    let command = Auth::new(mechanism, credentials.clone(), None).map_err(failed)?;
    let mut response = connection.command(command).await.map_err(failed)?;
    // LOGIN asks twice, XOAUTH2 says why and wants an empty line before its 535.
    for _ in 0..3 {
        if !response.has_code(334) {
            break;
        }
        response = if mechanism == Mechanism::Xoauth2 {
            connection.command("\r\n").await.map_err(failed)?
        } else {
            let answer = Auth::new_from_response(mechanism, credentials.clone(), &response).map_err(failed)?;
            connection.command(answer).await.map_err(failed)?
        };
    }
    if response.has_code(235) { Ok(()) } else { Err(classify(Phase::Login, outcome::of_response(&response))) }
}

/// Runs one of lettre's steps within a limit.
pub(super) async fn step<T>(
    phase: Phase,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, SendOutcome> {
    within(phase, limit, work).await?.map_err(|error| of_error(phase, &error))
}

async fn within<T>(phase: Phase, limit: Duration, work: impl Future<Output = T>) -> Result<T, SendOutcome> {
    tokio::time::timeout(limit, work).await.map_err(|_| broken(phase, "smtp_timeout"))
}

async fn within_io<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, SendOutcome> {
    within(Phase::Connect, limit, work).await?.map_err(|error| lost(what, &error))
}

/// A connection-level failure with its kind; the text of such an error names hosts and certificates, no people.
fn lost(what: &str, error: &io::Error) -> SendOutcome {
    let detail = domain::text::single_line(&error.to_string(), 150).unwrap_or_default();
    broken(Phase::Connect, &format!("{what}: {detail}"))
}
