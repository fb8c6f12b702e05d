//! A mailer on a database, queues and a mail server of its own.

use std::{sync::Arc, time::Duration};

use bootstrap::Context;
use broker::{Admin, BrokerConfig, Publisher};
use domain::{
    clock::{Clock, SystemClock},
    email::EmailAddress,
    enrichment::{Confidence, Enrichment, Provider, Score},
    event::{Envelope, Event, Outgoing, Route, TraceContext},
    handle::Handle,
    id::{LeadId, RunId},
    lead::{Country, Profile, SourceName},
    legal::Basis,
    program::{ProgramSettings, Slug},
};
use mailer::{
    config::{DEFAULTS, MailerConfig},
    run,
    unsubscribe::Unsubscribe,
};
use pipeline::{Health, Outbox, OutboxConfig};
use service::{config::Loader, readiness::Readiness, shutdown::Shutdown};
use store::{
    Db, DbConfig,
    enrichments::{self, Written},
    intake::{self, Accepted, Dedupe, IntakeBatch},
    leads::{self, Found},
    outbox,
    programs::{self, Directory, OpenProgram},
    runs::{self, RunKind},
};
use test_support::{amqp::AmqpNamespace, postgres::TestDatabase, smtp::FakeSmtp, transitions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vault::{MasterKey, Vault};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test says about a creator.
#[derive(Clone)]
pub struct Creator {
    pub source: &'static str,
    pub username: String,
    pub name: String,
    pub email: Option<String>,
    pub country: Option<&'static str>,
    pub score: i64,
    pub compliant: bool,
    pub message: String,
}

/// A creator who qualifies.
pub fn creator(username: &str) -> Creator {
    Creator {
        source: "instagram",
        username: username.to_owned(),
        name: format!("Name of {username}"),
        email: Some(format!("{username}@creator.example")),
        country: Some("US"),
        score: 85,
        compliant: true,
        message: "Your sourdough series is a joy.".to_owned(),
    }
}

/// One running mailer.
pub struct Replica {
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    /// Waits until its probe says about the mail server that it is, or isn't, ready.
    pub async fn wait_until_mail_server_is(&self, ready: bool) {
        let seen = async {
            while !self
                .readiness
                .report()
                .checks
                .iter()
                .any(|check| check.name == "mailer.smtp" && check.ready == ready)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the probe's answer", seen).await;
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(self) {
        self.shutdown.request();
        within("the mailer's end", self.task).await.expect("the mailer did not panic").expect("the mailer ends well");
    }

    /// Ends it where it is.
    pub async fn kill(self) {
        self.shutdown.abort();
        let _ = within("the mailer's abortion", self.task).await;
    }
}

pub struct World {
    pub database: TestDatabase,
    pub amqp: AmqpNamespace,
    pub db: Db,
    pub vault: Vault,
    pub program: OpenProgram,
    pub outbox: Outbox,
    /// Where the unsubscribe pages are reached.
    pub pages: String,
    broker: BrokerConfig,
    publisher: Publisher,
    stop_outbox: CancellationToken,
}

pub fn settings() -> ProgramSettings {
    ProgramSettings {
        name: "Acme".to_owned(),
        sender_name: "Zoe at Acme".to_owned(),
        sender_email: EmailAddress::parse("zoe@acme.example").ok(),
        reply_to: None,
        postal_address: Some("Acme Inc., 1 Main Street, Springfield".to_owned()),
        privacy_url: None,
        threshold: 70,
        niches: Vec::new(),
        product: "Flour that rises by itself.".to_owned(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: ProgramSettings) -> Self {
        let (database, amqp) = tokio::join!(TestDatabase::create(), AmqpNamespace::new());
        transitions::enforce(&mut database.connect().await).await;
        let db = Db::new(&DbConfig::new(database.url())).unwrap();
        let vault = Vault::new(MasterKey::generate(), Vec::new());
        let slug: Slug = "acme".parse().unwrap();
        let program = programs::create(&db, &vault, &slug, &settings, SystemClock.now()).await.unwrap();
        let broker = BrokerConfig::new(amqp.url()).in_namespace(amqp.prefix());
        Admin::new(broker.clone()).declare_topology().await.unwrap();
        let publisher = Publisher::new(broker.clone(), "test");
        let stop_outbox = CancellationToken::new();
        let (outbox, _) = Outbox::start(
            db.clone(),
            publisher.clone(),
            OutboxConfig::default(),
            Health::unobserved(),
            stop_outbox.clone(),
        );
        let directory = Directory::new(db.clone(), vault.clone());
        let pages = Unsubscribe::new(db.clone(), directory, outbox.clone(), Arc::new(SystemClock));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, pages.router()).await });
        Self { database, amqp, db, vault, program, outbox, pages: address, broker, publisher, stop_outbox }
    }

    /// Starts a mailer with these settings beyond the defaults.
    pub fn start(&self, settings: &[(&str, &str)]) -> Replica {
        let mut loader = Loader::new()
            .defaults(&[DEFAULTS])
            .option("test", "mailer.listen", "127.0.0.1:0")
            .option("test", "mailer.public_url", self.pages.as_str())
            .option("test", "mailer.poll_interval", "100ms");
        for (key, value) in settings {
            loader = loader.option("test", key, *value);
        }
        let (config, links) = MailerConfig::read(&loader.load().unwrap()).unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let readiness = Readiness::new();
        let context = Context {
            db: self.db.clone(),
            // Of its own, as every process has one: what one replica has cached, another has not.
            programs: Directory::new(self.db.clone(), self.vault.clone()),
            broker: self.broker.clone(),
            publisher: self.publisher.clone(),
            outbox: self.outbox.clone(),
            clock: Arc::new(SystemClock),
            health: Health::unobserved(),
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
        };
        Replica { task: tokio::spawn(run(config, links, context)), shutdown, readiness }
    }

    /// Starts a mailer that sends to `server`, with these settings beyond the defaults.
    pub fn start_smtp(&self, server: &FakeSmtp, settings: &[(&str, &str)]) -> Replica {
        let port = server.address().port().to_string();
        let mut all = vec![
            ("mailer.transport", "smtp"),
            ("mailer.test_sink", "true"),
            ("mailer.smtp.host", "127.0.0.1"),
            ("mailer.smtp.port", port.as_str()),
            ("mailer.smtp.tls", "none"),
        ];
        all.extend_from_slice(settings);
        self.start(&all)
    }

    /// Does what collector and enricher do; returns the leads and the events, which are on their way.
    pub async fn enrich(&self, creators: &[Creator]) -> (Vec<LeadId>, Vec<Outgoing>) {
        let mut ids = Vec::new();
        let mut events = Vec::new();
        for chunk in creators.chunks(400) {
            let (more_ids, more_events) = self.enrich_chunk(chunk).await;
            ids.extend(more_ids);
            events.extend(more_events);
        }
        (ids, events)
    }

    async fn enrich_chunk(&self, creators: &[Creator]) -> (Vec<LeadId>, Vec<Outgoing>) {
        let (program, now, run_id) = (self.program.program.id, SystemClock.now(), RunId::generate());
        self.db
            .transact("test.run", |tx, _| {
                Box::pin(async move { runs::start(tx, program, run_id, RunKind::Import, None, now).await })
            })
            .await
            .unwrap();
        let batch = IntakeBatch {
            run_id,
            items: creators.iter().map(|creator| profile(creator).into()).collect(),
            rejects: Vec::new(),
            dedupe: Dedupe::Skip,
            likely_new: false,
            trace: TraceContext::default(),
            now,
            idempotency: None,
        };
        let outcome =
            intake::accept(&self.db, &self.vault, &self.program, &batch, |_| serde_json::Value::Null).await.unwrap();
        let ids: Vec<LeadId> = outcome
            .items
            .iter()
            .map(|item| if let Accepted::New(id) = item { *id } else { panic!("not new: {item:?}") })
            .collect();
        let keys: Vec<_> = ids.iter().map(|id| (program, *id)).collect();
        let found = leads::open(&self.db, &self.vault, &keys).await.unwrap();
        let sealed: Vec<_> = keys
            .iter()
            .zip(creators)
            .map(|(key, creator)| {
                let Found::Lead(lead) = &found[key] else { panic!("no lead") };
                enrichments::seal(lead, &[], enrichment(creator))
            })
            .collect();
        let events: Vec<Outgoing> = ids
            .iter()
            .zip(creators)
            .map(|(id, creator)| Outgoing {
                envelope: Envelope::new(
                    program,
                    *id,
                    1,
                    now,
                    Event::LeadEnriched { enrichment_version: 1, score: creator.score as i16 },
                ),
                route: Route::Exchange,
                trace: TraceContext::default(),
            })
            .collect();
        let (sealed, told) = (&sealed, events.clone());
        let rows = self
            .db
            .transact("test.enrich", |tx, _| {
                let told = told.clone();
                Box::pin(async move {
                    let written = enrichments::write(tx, sealed, now).await?;
                    assert!(written.iter().all(|written| matches!(written, Written::New { version: 1 })));
                    outbox::insert(tx, told).await
                })
            })
            .await
            .unwrap();
        self.outbox.offer(rows);
        (ids, events)
    }

    /// Tells events once more, as a redelivery would.
    pub async fn tell_again(&self, events: &[Outgoing]) {
        for result in self.publisher.publish(events).await.unwrap() {
            result.unwrap();
        }
    }

    /// The states of all outreach rows, counted: `captured=2 held:duplicate_recipient=1`.
    pub async fn states(&self) -> String {
        self.text(
            "SELECT coalesce(string_agg(state || '=' || n, ' ' ORDER BY state), '') FROM (
                 SELECT state || coalesce(':' || reason, '') AS state, count(*) AS n FROM outreach GROUP BY 1) s",
        )
        .await
    }

    pub async fn text(&self, query: &str) -> String {
        test_support::postgres::text(&mut self.database.connect().await, query).await.unwrap()
    }

    pub async fn execute(&self, statement: &str) -> u64 {
        let mut connection = self.database.connect().await;
        test_support::postgres::execute(&mut connection, statement).await.unwrap()
    }

    /// Waits until the query gives this text.
    pub async fn wait_for(&self, query: &str, wanted: &str) {
        let started = std::time::Instant::now();
        loop {
            let found = self.text(query).await;
            if found == wanted {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waiting for {wanted:?}, found {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_for_states(&self, wanted: &str) {
        let started = std::time::Instant::now();
        loop {
            let found = self.states().await;
            if found == wanted {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waiting for {wanted:?}, found {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every enriched lead was decided about.
    pub async fn wait_for_decisions(&self) {
        self.wait_for("SELECT count(*)::text FROM enriched_leads WHERE decision IS NULL", "0").await;
    }

    pub async fn cleanup(self) {
        self.stop_outbox.cancel();
        self.publisher.close().await;
        self.db.close().await;
        self.amqp.cleanup().await;
        self.database.cleanup().await;
    }
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

fn profile(creator: &Creator) -> Profile {
    Profile {
        source: SourceName::parse(creator.source).unwrap(),
        username: Handle::parse(&creator.username).unwrap(),
        name: Some(creator.name.clone()),
        email: creator.email.as_deref().map(|email| EmailAddress::parse(email).unwrap()),
        profile_url: Some(format!("https://example.com/{}", creator.username).parse().unwrap()),
        follower_count: Some(10_000),
        bio: Some("bread".to_owned()),
        verified: false,
        location: None,
        country: creator.country.map(|code| Country::parse(code).unwrap()),
    }
}

fn enrichment(creator: &Creator) -> Enrichment {
    Enrichment {
        niche: "baking".to_owned(),
        score: Score::new(creator.score).unwrap(),
        notes: "fits".to_owned(),
        message: creator.message.clone(),
        compliant: creator.compliant,
        compliance_notes: "nothing found".to_owned(),
        confidence: Confidence::new(0.9).unwrap(),
        provider: Provider::Local,
        fallback_reason: None,
    }
}
