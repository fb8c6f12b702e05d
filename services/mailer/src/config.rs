//! The sections `[mailer]` and `[mailer.smtp]`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use service::config::{ConfigError, Defaults, Document, Secret};

use crate::message::{InvalidLinks, Links};

/// The commented defaults; they also declare which keys there are.
pub const DEFAULTS: Defaults =
    Defaults { name: "mailer", text: include_str!("config.toml"), secrets: &["mailer.smtp.password"] };

/// How mails leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Not at all: they are kept, complete.
    Capture,
    /// By SMTP.
    Smtp,
}

/// `[mailer]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailerConfig {
    /// How mails leave.
    pub transport: TransportKind,
    /// Whether the SMTP server only catches mails.
    pub test_sink: bool,
    /// Where `/healthz`, `/readyz` and `/metrics` listen when the mailer runs alone; the runner reads it.
    pub admin_listen: SocketAddr,
    /// Where the unsubscribe pages listen.
    pub listen: SocketAddr,
    /// Where they are reached from outside.
    pub public_url: String,
    /// The domain to which bounces go.
    pub mail_domain: Option<String>,
    /// Leads that are decided about at once.
    pub concurrency: NonZeroU32,
    /// The most leads of one transaction.
    pub max_batch: NonZeroU32,
    /// How often an event is tried before it becomes a dead letter.
    pub max_attempts: NonZeroU32,
    /// How often due mails are looked for.
    #[serde(with = "service::config::duration")]
    pub poll_interval: Duration,
    /// What a lease is longer than the phase that it is for.
    #[serde(with = "service::config::duration")]
    pub lease_slack: Duration,
    /// How long a mail that was put off by the server waits at first.
    #[serde(with = "service::config::duration")]
    pub retry_first: Duration,
    /// The longest wait between two attempts.
    #[serde(with = "service::config::duration")]
    pub retry_longest: Duration,
    /// The mail server.
    pub smtp: SmtpConfig,
}

/// How a connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Not at all.
    None,
    /// By `STARTTLS`; a server that doesn't offer it gets no mail.
    Starttls,
    /// From the first byte.
    Implicit,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMechanism {
    /// RFC 4616.
    Plain,
    /// Obsolete, but some providers know nothing else.
    Login,
    /// An OAuth 2 access token.
    Xoauth2,
}

/// `[mailer.smtp]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Encryption.
    pub tls: TlsMode,
    /// A file with certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The user; without one nobody logs in.
    pub username: Option<String>,
    /// The password or token.
    pub password: Option<Secret<String>>,
    /// How to log in.
    pub auth: AuthMechanism,
    /// The name for EHLO; the host's own when absent.
    pub helo_name: Option<String>,
    /// Connections kept open.
    pub connections: NonZeroU32,
    /// Mails of one connection before it is replaced.
    pub mails_per_connection: NonZeroU32,
    /// How long an unused connection is kept.
    #[serde(with = "service::config::duration")]
    pub idle_limit: Duration,
    /// The pause between two mails of one connection.
    #[serde(with = "service::config::duration")]
    pub delay_between: Duration,
    /// At most this many mails a minute, of all replicas together; 0 means no limit.
    pub per_minute: u32,
    /// Limit for each step of connecting.
    #[serde(with = "service::config::duration")]
    pub connect_timeout: Duration,
    /// Limit for a command's reply.
    #[serde(with = "service::config::duration")]
    pub command_timeout: Duration,
    /// Limit for the body and its reply.
    #[serde(with = "service::config::duration")]
    pub body_timeout: Duration,
}

/// A value that reads well but can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidConfig {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

const fn invalid(key: &'static str, problem: String) -> InvalidConfig {
    InvalidConfig { key, problem }
}

impl MailerConfig {
    /// Reads the section and checks it as a whole.
    pub fn read(document: &Document) -> Result<(Self, Links), ConfigError> {
        let config: Self = document.section("mailer")?;
        let links = config.check().map_err(|wrong| document.refuse(wrong.key, wrong.problem))?;
        Ok((config, links))
    }

    /// Checks what depends on more than one key, and makes the links.
    pub fn check(&self) -> Result<Links, InvalidConfig> {
        let links = Links::new(&self.public_url, self.mail_domain.as_deref()).map_err(|wrong| {
            let key = if wrong == InvalidLinks::MailDomain { "mailer.mail_domain" } else { "mailer.public_url" };
            invalid(key, wrong.to_string())
        })?;
        if self.transport == TransportKind::Smtp {
            self.smtp.check(self.test_sink)?;
            if !self.test_sink && !links.are_public() {
                let problem = format!(
                    "must be the https address at which recipients reach the unsubscribe pages, since it stands in every \
                     mail; nobody else reaches {:?}. For a server that only catches mails set `mailer.test_sink` to true",
                    self.public_url
                );
                return Err(invalid("mailer.public_url", problem));
            }
        }
        Ok(links)
    }
}

impl SmtpConfig {
    fn check(&self, test_sink: bool) -> Result<(), InvalidConfig> {
        if self.host.trim().is_empty() {
            let problem = "must name the mail server, or `mailer.transport` be \"capture\"".to_owned();
            return Err(invalid("mailer.smtp.host", problem));
        }
        if self.username.is_some() != self.password.is_some() {
            let problem = "a user name and a password must be set both or not at all".to_owned();
            return Err(invalid("mailer.smtp.password", problem));
        }
        let local = self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if self.tls == TlsMode::None && !local && (self.password.is_some() || !test_sink) {
            let problem =
                "must be \"starttls\" or \"implicit\" for a server on another machine: mails and passwords would \
                           be readable on the way"
                    .to_owned();
            return Err(invalid("mailer.smtp.tls", problem));
        }
        Ok(())
    }

    /// The longest that the phase before the body can take: offering the envelope on a kept connection that turns out to be
    /// dead, then connecting and offering it again. A lease must be longer.
    pub fn connect_phase(&self) -> Duration {
        self.connect_timeout * 4 + self.command_timeout * 6
    }

    /// The longest that DATA, the body and its reply can take.
    pub fn data_phase(&self) -> Duration {
        self.command_timeout + self.body_timeout
    }
}

#[cfg(test)]
mod tests {
    use service::config::Loader;

    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<(MailerConfig, Links), ConfigError> {
        let mut loader = Loader::new().defaults(&[DEFAULTS]);
        for (key, value) in values {
            loader = loader.option("--set", key, *value);
        }
        MailerConfig::read(&loader.load().unwrap())
    }

    #[test]
    fn the_defaults_capture_and_are_valid() {
        let (config, _) = read(&[]).unwrap();
        assert_eq!(config.transport, TransportKind::Capture);
        assert_eq!(config.smtp.username, None);
        assert_eq!(config.smtp.ca_file, None);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        let smtp = ("mailer.transport", "smtp");
        let host = ("mailer.smtp.host", "mx.example.com");
        let here = ("mailer.smtp.host", "127.0.0.1");
        let url = ("mailer.public_url", "https://mail.example.com");
        let sink = ("mailer.test_sink", "true");
        let plain = ("mailer.smtp.tls", "none");
        let user = ("mailer.smtp.username", "u");
        let password = ("mailer.smtp.password", "hunter2");
        for (values, expected) in [
            (vec![("mailer.public_url", "http://mail.example.com")], "mailer.public_url"),
            (vec![("mailer.mail_domain", "nodot")], "mailer.mail_domain"),
            (vec![smtp], "mailer.smtp.host"),
            (vec![smtp, host], "mailer.public_url"),
            (vec![smtp, here], "mailer.public_url"),
            (vec![smtp, host, url, user], "mailer.smtp.password"),
            (vec![smtp, host, url, plain], "mailer.smtp.tls"),
            (vec![smtp, host, sink, user, password, plain], "mailer.smtp.tls"),
            (vec![("mailer.transport", "pigeon")], "mailer.transport"),
        ] {
            let error = read(&values).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        read(&[smtp, host, url, user, password]).unwrap();
        read(&[smtp, here, url, user, password, plain]).unwrap();
        read(&[smtp, host, sink, plain]).unwrap();
    }
}
