//! The way of one process to its servers, through proxies that can be told to misbehave.

use std::net::SocketAddr;

use test_support::proxy::TcpProxy;

use crate::stack::Stack;

/// A process's own way to PostgreSQL, RabbitMQ and the mail server.
#[derive(Debug)]
pub struct Network {
    /// To PostgreSQL.
    pub postgres: TcpProxy,
    /// To RabbitMQ.
    pub rabbitmq: TcpProxy,
    /// To the mail server; only a mailer goes there.
    pub mail: TcpProxy,
    database_url: String,
    amqp_url: String,
    mail_port: String,
}

impl Network {
    /// A healthy way to the servers of `stack` and to the mail server at `mailbox`.
    pub async fn to(stack: &Stack, mailbox: SocketAddr) -> Self {
        let (postgres, database_url) = proxied(stack.database().url(), "5432").await;
        let (rabbitmq, amqp_url) = proxied(stack.amqp().url(), "5672").await;
        let mail = TcpProxy::start(mailbox.to_string()).await.expect("a loopback port is free");
        let mail_port = mail.address().port().to_string();
        Self { postgres, rabbitmq, mail, database_url, amqp_url, mail_port }
    }

    /// What sends a process this way.
    pub fn env(&self) -> [(&str, &str); 3] {
        [
            ("DATABASE_URL", &self.database_url),
            ("AMQP_URL", &self.amqp_url),
            ("LEADMILL_MAILER_SMTP_PORT", &self.mail_port),
        ]
    }

    /// The proxy to one of them.
    pub fn way_to(&self, server: Server) -> &TcpProxy {
        match server {
            Server::Postgres => &self.postgres,
            Server::RabbitMq => &self.rabbitmq,
            Server::Mail => &self.mail,
        }
    }

    /// Ends every misbehaviour.
    pub fn calm(&self) {
        self.postgres.calm();
        self.rabbitmq.calm();
        self.mail.calm();
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ.
    RabbitMq,
    /// The mail server.
    Mail,
}

/// A proxy in front of the server in `url`, and the URL that leads through it.
async fn proxied(url: &str, default_port: &str) -> (TcpProxy, String) {
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = &url[scheme..];
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    assert!(!url.contains("host="), "faults need a server on a TCP port, not on a socket: {url}");
    let upstream = if host.contains(':') { host.to_owned() } else { format!("{host}:{default_port}") };
    let proxy = TcpProxy::start(upstream).await.expect("a loopback port is free");
    // In the authority alone: a password, or the namespace in the path, may be the same text.
    let at = scheme + authority.len() - host.len();
    let through = format!("{}{}{}", &url[..at], proxy.address(), &url[at + host.len()..]);
    (proxy, through)
}
