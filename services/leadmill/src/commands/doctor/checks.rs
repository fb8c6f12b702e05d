//! The checks, in the order in which one would set things up.

use std::time::Duration;

use broker::{Admin, BrokerError};
use collector::config::CollectorConfig;
use enricher::config::EnricherConfig;
use mailer::config::{MailerConfig, TlsMode, TransportKind};
use mailer::transport::{SendOutcome, SmtpTransport};
use service::config::{AmqpConfig, DatabaseConfig, Document};
use store::programs::{self, Directory};
use store::{Db, schema, server};
use vault::Vault;

use super::{Check, analyst};
use crate::{sending, settings};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The RabbitMQ versions that Leadmill is tested with: from 3.10, and 4.
const RABBITMQ: [(u32, u32); 2] = [(3, 10), (4, 0)];

/// Checks everything that can be checked; nothing stops at the first thing that is missing.
pub async fn all(document: &Document) -> Vec<Check> {
    let mut checks = vec![sections(document)];
    let vault = settings::vault(document);
    checks.push(match &vault {
        Ok(vault) => Check::ok("master key", format!("key {}", vault.current_id())),
        Err(error) => Check::missing(
            "master key",
            format!("{error:#}"),
            "leadmill keys generate --out master.key; export LEADMILL_MASTER_KEY_FILE=$PWD/master.key",
        ),
    });
    checks.extend(database(document, vault.ok()).await);
    checks.push(rabbitmq(document).await);
    checks.extend(mail_server(document).await);
    checks.extend(analyst::check(document).await);
    checks
}

fn sections(document: &Document) -> Check {
    let read = || -> anyhow::Result<()> {
        CollectorConfig::read(document)?;
        EnricherConfig::read(document)?;
        MailerConfig::read(document)?;
        Ok(())
    };
    match read() {
        Ok(()) => Check::ok("configuration", "every section can be read"),
        Err(error) => Check::missing("configuration", format!("{error:#}"), "change that value"),
    }
}

async fn database(document: &Document, vault: Option<Vault>) -> Vec<Check> {
    let start = "start PostgreSQL 15 to 18 and set DATABASE_URL (`eval \"$(deploy/local-stack.sh up)\"` does both)";
    let (config, db) = match (document.section::<DatabaseConfig>("database"), settings::database(document)) {
        (Ok(config), Ok(db)) => (config, db),
        (Err(error), _) => return vec![Check::missing("postgresql", error.to_string(), start)],
        (_, Err(error)) => return vec![Check::missing("postgresql", format!("{error:#}"), start)],
    };
    let endpoint = config.url.endpoint();
    let found = async {
        server::reach(config.url.expose()).await?;
        db.transact("server.facts", |tx, _| Box::pin(server::facts(tx))).await
    };
    let facts = match tokio::time::timeout(PATIENCE * 2, found).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => return vec![Check::missing("postgresql", format!("{endpoint}: {}", chain(&error)), start)],
        Err(_) => return vec![Check::missing("postgresql", format!("{endpoint}: no answer"), start)],
    };
    let mut checks = vec![postgresql(endpoint, &facts)];
    match schema::check(&db).await {
        Ok(()) => {
            checks.push(current_schema(&db).await);
            checks.extend(stored_programs(&db, vault).await);
        }
        Err(error) => checks.push(Check::missing("schema", error.to_string(), "leadmill migrate")),
    }
    checks
}

/// A schema that can be used, with the indexes that no query uses.
async fn current_schema(db: &Db) -> Check {
    let found = format!("migration {}", schema::newest_migration());
    match db.transact("schema.invalid_indexes", |tx, _| Box::pin(schema::invalid_indexes(tx))).await {
        Ok(invalid) if invalid.is_empty() => Check::ok("schema", found),
        Ok(invalid) => Check::warning(
            "schema",
            format!("{found}; INVALID indexes, which slow writes down and help no query: {}", invalid.join(", ")),
            "leadmill migrate builds them again; services can run meanwhile",
        ),
        Err(error) => Check::warning("schema", format!("{found}; {}", chain(&error)), "look into the database's log"),
    }
}

fn postgresql(endpoint: &str, facts: &server::Facts) -> Check {
    let found = format!("{endpoint}: version {}", facts.version);
    if facts.standby {
        return Check::missing("postgresql", format!("{found}, a standby"), "point DATABASE_URL at the primary");
    }
    if !server::SUPPORTED_VERSIONS.contains(&facts.major) {
        let supported = "Leadmill is tested with PostgreSQL 15 to 18";
        return Check::warning("postgresql", found, supported);
    }
    if !facts.is_durable() {
        let found = format!("{found}, fsync {}, synchronous_commit {}", facts.fsync, facts.synchronous_commit);
        let advice =
            "set both to on: with less, a crash of the server forgets that a mail was sent, and it is sent again";
        return Check::warning("postgresql", found, advice);
    }
    if !facts.autovacuum {
        let advice = "set autovacuum and track_counts to on, or let something else VACUUM and ANALYZE: without it tables grow \
                      and slow down, and the planner knows nothing of what is in them";
        return Check::warning("postgresql", format!("{found}, autovacuum off"), advice);
    }
    Check::ok("postgresql", format!("{found}; fsync, synchronous_commit and autovacuum on"))
}

/// Whether the master key opens the keys of every program, and whether the programs can send.
async fn stored_programs(db: &Db, vault: Option<Vault>) -> Vec<Check> {
    let all = match db.transact("program.list", |tx, _| Box::pin(programs::list(tx))).await {
        Ok(all) => all,
        Err(error) => return vec![Check::missing("programs", chain(&error), "look into the database's log")],
    };
    if all.is_empty() {
        return vec![Check::warning("programs", "none", "leadmill program create NAME")];
    }
    let mut checks = Vec::new();
    if let Some(vault) = vault {
        let directory = Directory::new(db.clone(), vault);
        let mut closed = Vec::new();
        for program in &all {
            if let Err(error) = directory.by_slug(&program.slug).await {
                closed.push(format!("`{}`: {}", program.slug, chain(&error)));
            }
        }
        checks.push(match closed.as_slice() {
            [] => Check::ok("programs", format!("the master key opens all {}", all.len())),
            [first, ..] => Check::missing(
                "programs",
                format!("the master key does not open {} of {}; {first}", closed.len(), all.len()),
                "give the key that they were made with as LEADMILL_MASTER_KEY, or beside it as LEADMILL_OLD_MASTER_KEYS",
            ),
        });
    }
    let silent: Vec<&str> =
        all.iter().filter(|program| !program.settings.can_send()).map(|program| program.slug.as_str()).collect();
    if !silent.is_empty() {
        checks.push(Check::warning(
            "senders",
            format!("no sender or postal address: {}; their mails are held", silent.join(", ")),
            format!("leadmill program set {} --sender-email ADDRESS --postal-address ADDRESS", silent[0]),
        ));
    }
    match sending::read(db, None).await {
        Ok(all) => checks.extend(all.iter().filter_map(|health| {
            let found = format!("`{}` {}", health.slug, sending::describe(health)?);
            Some(Check::warning("sending", found, sending::advice(health)))
        })),
        Err(error) => checks.push(Check::missing("sending", format!("{error:#}"), "look into the database's log")),
    }
    checks
}

async fn rabbitmq(document: &Document) -> Check {
    let start = "start RabbitMQ 3.10 to 4.x and set AMQP_URL (`eval \"$(deploy/local-stack.sh up)\"` does both)";
    let (config, broker) = match (document.section::<AmqpConfig>("amqp"), settings::broker(document)) {
        (Ok(config), Ok(broker)) => (config, broker),
        (Err(error), _) => return Check::missing("rabbitmq", error.to_string(), start),
        (_, Err(error)) => return Check::missing("rabbitmq", format!("{error:#}"), start),
    };
    let admin = Admin::new(broker);
    let endpoint = config.url.endpoint();
    let version = match tokio::time::timeout(PATIENCE, admin.server_version()).await {
        Ok(Ok(version)) => version.unwrap_or_else(|| "version unknown".to_owned()),
        Ok(Err(error)) => return Check::missing("rabbitmq", format!("{endpoint}: {}", chain(&error)), start),
        Err(_) => return Check::missing("rabbitmq", format!("{endpoint}: no answer"), start),
    };
    let depths = match admin.depths().await {
        Ok(depths) => depths,
        Err(error) => {
            let advice = "check user, password and virtual host in AMQP_URL";
            return Check::missing("rabbitmq", format!("{endpoint}: {version}; {}", chain(&error)), advice);
        }
    };
    let found = format!("{endpoint}: {version}");
    if depths.iter().all(|depth| depth.depth.is_none()) {
        return Check::ok("rabbitmq", format!("{found}; no queues yet, the first service makes them"));
    }
    // The queues are there: the same declaration again changes nothing, and tells when they have other settings.
    match admin.declare_topology().await {
        Err(error @ BrokerError::TopologyMismatch { .. }) => {
            let advice = "stop the services and delete these queues; the reconciler emits again what was in them";
            return Check::missing("rabbitmq", format!("{found}; {}", chain(&error)), advice);
        }
        Err(error) => return Check::missing("rabbitmq", format!("{found}; {}", chain(&error)), start),
        Ok(()) => {}
    }
    let dead: u32 = depths.iter().filter(|depth| depth.dead).filter_map(|depth| depth.depth).map(|d| d.ready).sum();
    if dead > 0 {
        return Check::warning("rabbitmq", format!("{found}; {dead} dead letters"), "leadmill dead list");
    }
    if !is_supported(&version) {
        return Check::warning("rabbitmq", found, "Leadmill is tested with RabbitMQ 3.10 to 4.x");
    }
    Check::ok("rabbitmq", format!("{found}; exchange and queues are as they should be"))
}

/// Whether a version such as `RabbitMQ 3.13.7` is one of those that are tested.
fn is_supported(version: &str) -> bool {
    let mut numbers = version.split_whitespace().last().unwrap_or_default().split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return true };
    RABBITMQ.iter().any(|(supported, least)| major == *supported && minor >= *least)
}

async fn mail_server(document: &Document) -> Option<Check> {
    let (config, links) = MailerConfig::read(document).ok()?;
    if config.transport == TransportKind::Capture {
        return Some(Check::ok("mail", "captured, not sent (mailer.transport)"));
    }
    let smtp = &config.smtp;
    let address = format!("{}:{}", smtp.host, smtp.port);
    let transport = match SmtpTransport::new(smtp.clone()) {
        Ok(transport) => transport,
        Err(error) => return Some(Check::missing("mail", chain(&error), "change that value")),
    };
    let network = "check mailer.smtp.host, port and tls, and that the network lets this machine reach it";
    let (found, advice) = match tokio::time::timeout(PATIENCE, transport.probe()).await {
        Ok(Ok(())) => {
            let done = if smtp.username.is_some() { "takes the login" } else { "takes connections; no login is set" };
            let encrypted = match smtp.tls {
                TlsMode::None => "without TLS",
                TlsMode::Starttls => "by STARTTLS",
                TlsMode::Implicit => "by TLS",
            };
            let found = format!("{address} {done}, {encrypted}");
            return Some(if config.test_sink {
                let advice = "nobody gets these mails; to write to people, set mailer.test_sink to false";
                Check::warning("mail", format!("{found}; a test sink"), advice)
            } else {
                Check::ok("mail", format!("{found}; unsubscribe links lead to {}", links.unsubscribe("…")))
            });
        }
        Ok(Err(SendOutcome::Credentials { reply })) => (
            format!("refuses the login: {} {}", reply.code, reply.text),
            "check mailer.smtp.username, password and auth (LEADMILL_MAILER_SMTP_PASSWORD_FILE)",
        ),
        Ok(Err(SendOutcome::NotStarted { reason } | SendOutcome::Deferred { reason, .. })) => (reason, network),
        Ok(Err(outcome)) => (outcome.name().to_owned(), network),
        Err(_) => (format!("no answer within {} s", PATIENCE.as_secs()), network),
    };
    Some(Check::missing("mail", format!("{address}: {found}"), advice))
}

/// An error with its causes, in one line.
fn chain(error: &(impl std::error::Error + ?Sized)) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_would_do_harm_in_the_long_run_is_a_warning() {
        let facts = server::Facts {
            version: "17.2".to_owned(),
            major: 17,
            fsync: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            standby: false,
            autovacuum: true,
        };
        let warns = |facts: &server::Facts| matches!(postgresql("host:5432", facts).state, State::Warning);
        assert!(!warns(&facts));
        assert!(warns(&server::Facts { autovacuum: false, ..facts.clone() }));
        assert!(warns(&server::Facts { fsync: "off".to_owned(), ..facts.clone() }));
        assert!(warns(&server::Facts { major: 14, ..facts }));
    }

    #[test]
    fn versions_from_3_10_to_4_are_supported() {
        for version in ["RabbitMQ 3.10.0", "RabbitMQ 3.13.7", "RabbitMQ 4.0.2", "RabbitMQ 4.1.0", "version unknown"] {
            assert!(is_supported(version), "{version}");
        }
        for version in ["RabbitMQ 3.9.1", "RabbitMQ 5.0.0"] {
            assert!(!is_supported(version), "{version}");
        }
    }
}
