//! A database and queues of a test's own, with the service running on them.

use std::time::Duration;

use domain::{
    email::EmailAddress,
    event::{Envelope, Event, Outgoing, Queue, Route, TraceContext},
    handle::Handle,
    id::{LeadId, RunId},
    lead::Profile,
};
use pipeline::{Health, Outbox, OutboxConfig};
use service::{
    config::{Document, Loader},
    readiness::Readiness,
    shutdown::Shutdown,
};
use store::{
    Db, DbConfig,
    intake::{self, Accepted, Dedupe, IntakeBatch},
    programs::{self, OpenProgram},
    runs::{self, RunKind},
    status::{self, Status},
};
use test_support::{amqp::AmqpNamespace, postgres::TestDatabase, profiles};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vault::{MasterKey, Vault};

/// The service and what it runs on.
pub struct Stand {
    pub amqp: AmqpNamespace,
    pub program: OpenProgram,
    pub readiness: Readiness,
    database: TestDatabase,
    pub db: Db,
    vault: Vault,
    outbox: Outbox,
    publisher: broker::Publisher,
    shutdown: Shutdown,
    publishing: CancellationToken,
    variables: Vec<(String, String)>,
}

/// A replica that can be killed.
pub struct Mortal {
    shutdown: Shutdown,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Mortal {
    /// Ends it where it is.
    pub async fn kill(self) {
        self.shutdown.abort();
        let _ = self.service.await;
    }
}

fn now() -> OffsetDateTime {
    domain::clock::Clock::now(&domain::clock::SystemClock)
}

impl Stand {
    /// A stand whose service gets these environment variables, besides those that say where the servers are.
    pub async fn new(variables: &[(&str, &str)]) -> Self {
        service::tls::install_provider();
        let (database, amqp) = tokio::join!(TestDatabase::create(), AmqpNamespace::new());
        let key = MasterKey::generate();
        let own = [
            ("DATABASE_URL", database.url()),
            ("AMQP_URL", amqp.url()),
            ("LEADMILL_AMQP_NAMESPACE", amqp.prefix()),
            ("LEADMILL_MASTER_KEY", &key.to_text()),
        ];
        let variables =
            own.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let vault = Vault::new(key, Vec::new());
        let db = Db::new(&DbConfig { max_connections: 3, ..DbConfig::new(database.url()) }).unwrap();
        let settings = profiles::program(&["fitness"]).settings;
        let program = programs::create(&db, &vault, &"acme".parse().unwrap(), &settings, now()).await.unwrap();
        let broker = broker::BrokerConfig::new(amqp.url()).in_namespace(amqp.prefix());
        broker::Admin::new(broker.clone()).declare_topology().await.unwrap();
        let publishing = CancellationToken::new();
        let publisher = broker::Publisher::new(broker, "test");
        let (outbox, _) = Outbox::start(
            db.clone(),
            publisher.clone(),
            OutboxConfig::default(),
            Health::unobserved(),
            publishing.clone(),
        );
        let shutdown = Shutdown::new(Duration::from_secs(10));
        Self {
            amqp,
            program,
            readiness: Readiness::new(),
            database,
            db,
            vault,
            outbox,
            publisher,
            shutdown,
            publishing,
            variables,
        }
    }

    /// Starts the service, or one more replica of it.
    pub fn start(&self) {
        let service = enricher::process(self.document(), self.shutdown.clone(), self.readiness.clone());
        self.shutdown.spawn("enricher", service);
    }

    /// Starts a replica that can be killed.
    pub fn start_mortal(&self) -> Mortal {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let service = enricher::process(self.document(), shutdown.clone(), Readiness::new());
        Mortal { shutdown, service: tokio::spawn(service) }
    }

    fn document(&self) -> Document {
        Loader::new().defaults(&[enricher::config::DEFAULTS]).env(self.variables.iter().cloned()).load().unwrap()
    }

    /// Waits until a query answers with this number.
    pub async fn wait_for_number(&self, query: &str, wanted: i64) {
        let mut connection = self.database.connect().await;
        let mut last = None;
        let waiting = async {
            while last != Some(wanted) {
                // Nobody tells of changes, so there is nothing to wait for but the next look.
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = Some(test_support::postgres::number(&mut connection, query).await.unwrap());
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(in_time.is_ok(), "`{query}` is {last:?} instead of {wanted}");
    }

    /// Takes leads in and tells of them, as the collector does.
    pub async fn take_in(&self, items: impl Iterator<Item = Profile>) -> Vec<LeadId> {
        let run_id = RunId::generate();
        let program = self.program.program.id;
        self.db
            .transact("test.run", |tx, _| Box::pin(runs::start(tx, program, run_id, RunKind::Simulation, None, now())))
            .await
            .unwrap();
        let batch = IntakeBatch {
            run_id,
            items: items.map(Into::into).collect(),
            rejects: Vec::new(),
            dedupe: Dedupe::Update,
            likely_new: false,
            trace: TraceContext::default(),
            now: now(),
            idempotency: None,
        };
        let answer = |_: &[Accepted]| serde_json::Value::Null;
        let outcome = intake::accept(&self.db, &self.vault, &self.program, &batch, answer).await.unwrap();
        self.outbox.offer(outcome.outbox);
        outcome
            .items
            .into_iter()
            .map(|accepted| match accepted {
                Accepted::New(id) | Accepted::Updated(id) | Accepted::Duplicate(id) => id,
                Accepted::Erased => panic!("nobody was erased"),
            })
            .collect()
    }

    /// Puts an event into the enricher's queue, past the outbox.
    pub async fn publish(&self, envelope: Envelope) {
        let route = Route::Queue(Queue::LeadCreated);
        let outgoing = Outgoing { envelope, route, trace: TraceContext::default() };
        self.publisher.ready().await.unwrap();
        for confirmed in self.publisher.publish(&[outgoing]).await.unwrap() {
            confirmed.unwrap();
        }
    }

    /// The counts.
    pub async fn status(&self) -> Status {
        let program = Some(self.program.program.id);
        self.db.transact("test.status", |tx, _| Box::pin(status::read(tx, program))).await.unwrap()
    }

    /// What the model cost today.
    pub async fn tokens_today(&self) -> u64 {
        let today = now().date();
        self.db.transact("test.tokens", |tx, _| Box::pin(store::model_usage::total(tx, today))).await.unwrap()
    }

    /// The enrichment version of the next `lead.enriched`.
    pub async fn next_enriched(&self) -> i32 {
        let message = self.amqp.get("lead.enriched").await.expect("an event");
        match Envelope::decode(&message.data).unwrap().event {
            Event::LeadEnriched { enrichment_version, .. } => enrichment_version,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the service and deletes everything.
    pub async fn stop(self) {
        self.shutdown.request();
        let ended = self.shutdown.ended().await;
        assert!(ended.is_clean(), "{ended:?}");
        self.publishing.cancel();
        self.db.close().await;
        self.amqp.cleanup().await;
        self.database.cleanup().await;
    }
}

/// A creator of their own for each number.
pub fn profile(number: usize, bio: &str) -> Profile {
    Profile {
        username: Handle::parse(&format!("creator.{number}")).unwrap(),
        email: EmailAddress::parse(&format!("creator.{number}@example.com")).ok(),
        bio: Some(bio.to_owned()),
        ..profiles::profile()
    }
}
