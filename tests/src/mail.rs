//! What comes out: a real SMTP server, and what a lawful mail has.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use mail_parser::{Message, MessageParser, PartType};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{
    smtp::{FakeSmtp, Received},
    witness,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::stack::{POSTAL_ADDRESS, PRIVACY_URL, SENDER};

/// A mail as the server got it.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The return path.
    pub mail_from: String,
    /// The recipients of the envelope.
    pub rcpt_to: Vec<String>,
    /// The message, byte for byte.
    pub data: Vec<u8>,
    /// The client's connection.
    pub connection: u64,
}

impl From<Received> for Mail {
    fn from(message: Received) -> Self {
        Self {
            mail_from: message.mail_from,
            rcpt_to: message.rcpt_to,
            data: message.data,
            connection: message.connection as u64,
        }
    }
}

/// Lets a mailer send to a server that only catches mails; older releases know no such setting.
pub const TEST_SINK: (&str, &str) = ("LEADMILL_MAILER_TEST_SINK", "true");

/// The mailer's settings for a server on this port of the loopback, without encryption.
pub fn settings(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("LEADMILL_MAILER_TRANSPORT", "smtp".to_owned()),
        (TEST_SINK.0, TEST_SINK.1.to_owned()),
        ("LEADMILL_MAILER_SMTP_HOST", "127.0.0.1".to_owned()),
        ("LEADMILL_MAILER_SMTP_PORT", port.to_string()),
        ("LEADMILL_MAILER_SMTP_TLS", "none".to_owned()),
    ]
}

/// The `Message-ID` of a message, with angle brackets.
///
/// # Panics
/// When it has none.
pub fn message_id(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let headers = text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
    let line = headers.lines().find_map(|line| line.strip_prefix("Message-ID:"));
    line.unwrap_or_else(|| panic!("no Message-ID:\n{headers}")).trim().to_owned()
}

/// A server that keeps every mail: aiosmtpd where there is one (`deploy/smtp-sink.sh`), else the stand-in of
/// `test-support`.
pub enum SmtpServer {
    /// aiosmtpd.
    Real(Box<RealSmtp>),
    /// The stand-in.
    StandIn(Box<FakeSmtp>),
}

/// An aiosmtpd of the test's own; killed when dropped.
#[derive(Debug)]
pub struct RealSmtp {
    folder: TempDir,
    port: u16,
    _server: Child,
}

impl SmtpServer {
    /// Starts one.
    pub async fn start() -> Self {
        match python().await {
            Some(python) => Self::Real(Box::new(RealSmtp::start(&python).await)),
            None => Self::StandIn(Box::new(FakeSmtp::start().await)),
        }
    }

    /// The mailer's settings for it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        settings(match self {
            Self::Real(server) => server.port,
            Self::StandIn(server) => server.address().port(),
        })
    }

    /// Every mail so far.
    pub fn mails(&self) -> Vec<Mail> {
        match self {
            Self::Real(server) => server.mails(),
            Self::StandIn(server) => server.messages().into_iter().map(Mail::from).collect(),
        }
    }
}

/// A python that has aiosmtpd. `deploy/test.sh` has looked for one already; by hand, its script is asked.
async fn python() -> Option<PathBuf> {
    if let Some(python) = env::var_os("TEST_AIOSMTPD_PYTHON") {
        return Some(python.into());
    }
    if env::var_os("TEST_BIN_DIR").is_some() {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/smtp-sink.sh");
    let output = Command::new(script).arg("--python").stdin(Stdio::null()).output().await.ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim().into())
}

impl RealSmtp {
    async fn start(python: &Path) -> Self {
        witness::talked_to("smtp");
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/smtp_sink.py");
        let mut server = Command::new(python)
            .arg(script)
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the python that was found runs");
        let mut lines = BufReader::new(server.stdout.take().expect("a pipe was asked for")).lines();
        let line = lines.next_line().await.expect("the server's first line").expect("the server starts");
        let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
        Self { folder, port: port.unwrap_or_else(|| panic!("no port in `{line}`")), _server: server }
    }

    fn mails(&self) -> Vec<Mail> {
        let lines = fs::read_to_string(self.folder.path().join("messages.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
        whole.lines().map(|line| self.mail(&serde_json::from_str(line).expect("each line is JSON"))).collect()
    }

    fn mail(&self, line: &Value) -> Mail {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Mail {
            mail_from: text(&line["mail_from"]),
            rcpt_to: line["rcpt_tos"].as_array().expect("a list").iter().map(text).collect(),
            data: fs::read(self.folder.path().join(text(&line["file"]))).expect("the message was written first"),
            connection: line["peer"].as_u64().expect("a port"),
        }
    }
}

/// What a lawful mail says, besides its text.
#[derive(Debug, Clone)]
pub struct Lawful {
    /// The one recipient.
    pub recipient: String,
    /// The `Message-ID`, with angle brackets.
    pub message_id: String,
    /// The link to object by.
    pub unsubscribe: String,
}

/// Reads a message and asserts that it has everything that every mail must have; see RFC 2369, 2919, 5322, 8058,
/// CAN-SPAM, and GDPR Art. 14 and 21.
///
/// # Panics
/// When something is missing, saying what.
pub fn lawful(data: &[u8]) -> Lawful {
    let message = MessageParser::default().parse(data).expect("the message parses");
    let header = |name: &str| {
        let mut found = message.headers_raw().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let (_, value) = found.next().unwrap_or_else(|| panic!("no {name}:\n{}", String::from_utf8_lossy(data)));
        assert!(found.next().is_none(), "two {name}");
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for name in ["Date", "Reply-To", "Feedback-ID", "List-Id", "Subject", "MIME-Version"] {
        assert!(!header(name).is_empty(), "{name} is empty");
    }
    assert!(message.date().is_some_and(mail_parser::DateTime::is_valid), "the date is no date");
    assert!(header("From").contains(SENDER), "From is {}", header("From"));
    assert_eq!(header("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
    for name in ["Bcc", "Cc", "Resent-To"] {
        assert!(message.header(name).is_none(), "{name} in a mail to one");
    }
    let recipient = recipient(&message);
    let unsubscribe = header("List-Unsubscribe");
    let mut ways = unsubscribe.split(',').map(|way| way.trim().trim_start_matches('<').trim_end_matches('>'));
    let link = ways.next().filter(|link| link.starts_with("http")).expect("the first way to object is a link");
    assert_eq!(ways.next(), None, "another way to object, that nothing keeps: {unsubscribe}");

    let (text, html) = (part(&message, false), part(&message, true));
    for (kind, body) in [("text", &text), ("HTML", &html)] {
        let said = squeezed(body);
        for expected in [POSTAL_ADDRESS, PRIVACY_URL, link] {
            assert!(said.contains(&squeezed(expected)), "no `{expected}` in the {kind} part:\n{body}");
        }
    }
    let message_id = header("Message-ID");
    assert!(message_id.starts_with('<') && message_id.ends_with('>'), "Message-ID is {message_id}");
    Lawful { recipient, message_id, unsubscribe: link.to_owned() }
}

fn recipient(message: &Message<'_>) -> String {
    let addresses: Vec<&str> =
        message.to().into_iter().flat_map(|to| to.iter()).filter_map(|to| to.address()).collect();
    let [address] = addresses[..] else { panic!("a mail goes to one recipient, not to {}", addresses.len()) };
    address.to_owned()
}

/// The body of one kind, which must be there once.
fn part(message: &Message<'_>, html: bool) -> String {
    let bodies: Vec<&str> = message
        .parts
        .iter()
        .filter_map(|part| match &part.body {
            PartType::Html(body) if html => Some(body.as_ref()),
            PartType::Text(body) if !html => Some(body.as_ref()),
            _ => None,
        })
        .collect();
    let [body] = bodies[..] else { panic!("{} parts where one was expected (HTML: {html})", bodies.len()) };
    body.replace("&#x2f;", "/").replace("&amp;", "&")
}

/// Without white space, so that wrapped lines don't matter.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}
