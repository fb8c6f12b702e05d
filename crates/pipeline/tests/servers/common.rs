//! What the tests against a real PostgreSQL and a real RabbitMQ share.

use std::{sync::Arc, time::Duration};

use broker::{BrokerConfig, Publisher};
use domain::{
    event::{Envelope, Event, EventKind, Outgoing, Queue, Route, TraceContext},
    id::{LeadId, ProgramId},
};
use futures_util::future::BoxFuture;
use pipeline::{Effect, Health, Outbox, OutboxConfig, Outcome, RunnerConfig, Stage, StageRunner};
use store::{Connection, Db, DbConfig, StoreError, outbox::Leased};
use test_support::{
    amqp::AmqpNamespace,
    postgres::{TestDatabase, execute, number},
};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A database and queues of the test's own.
pub struct Bench {
    pub database: TestDatabase,
    pub namespace: AmqpNamespace,
    pub db: Db,
    pub broker: BrokerConfig,
}

/// A running outbox.
pub struct Running {
    pub outbox: Outbox,
    pub publisher: Publisher,
    pub cancel: CancellationToken,
    pub ended: JoinHandle<()>,
}

impl Bench {
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        let namespace = AmqpNamespace::new().await;
        let mut connection = database.connect().await;
        for table in [
            "CREATE TABLE effects (lead_id uuid PRIMARY KEY, batch_size integer NOT NULL)",
            // Every application that was committed, also the ones without an effect.
            "CREATE TABLE applications (lead_id uuid NOT NULL)",
        ] {
            execute(&mut connection, table).await.unwrap();
        }
        let db = Db::new(&DbConfig::new(database.url())).unwrap();
        let broker = BrokerConfig {
            confirm_timeout: Duration::from_secs(5),
            ..BrokerConfig::new(namespace.url()).in_namespace(namespace.prefix())
        };
        broker::Admin::new(broker.clone()).declare_topology().await.unwrap();
        Self { database, namespace, db, broker }
    }

    pub fn outbox(&self, config: OutboxConfig) -> Running {
        self.outbox_through(&self.broker, config)
    }

    /// An outbox that reaches RabbitMQ as `broker` says.
    pub fn outbox_through(&self, broker: &BrokerConfig, config: OutboxConfig) -> Running {
        let publisher = Publisher::new(broker.clone(), "test");
        let cancel = CancellationToken::new();
        let (outbox, ended) =
            Outbox::start(self.db.clone(), publisher.clone(), config, Health::unobserved(), cancel.clone());
        Running { outbox, publisher, cancel, ended }
    }

    pub async fn insert(&self, events: Vec<Outgoing>) -> Vec<Leased> {
        let events = &events;
        self.db
            .transact("test.insert", |tx, _| Box::pin(async move { store::outbox::insert(tx, events.clone()).await }))
            .await
            .unwrap()
    }

    /// As if all leases had run out.
    pub async fn end_all_leases(&self) {
        self.execute("UPDATE outbox SET available_at = now()").await;
    }

    pub async fn execute(&self, statement: &str) -> u64 {
        execute(&mut self.database.connect().await, statement).await.unwrap()
    }

    pub async fn number(&self, query: &str) -> i64 {
        number(&mut self.database.connect().await, query).await.unwrap()
    }

    /// Waits until a query answers with this number.
    pub async fn wait_for_number(&self, query: &str, wanted: i64) {
        let mut connection = self.database.connect().await;
        let mut last = 0;
        let waiting = async {
            loop {
                last = number(&mut connection, query).await.unwrap();
                if last == wanted {
                    return;
                }
                // Nobody tells of changes, so there is nothing to wait for but the next look.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(in_time.is_ok(), "`{query}` is {last} instead of {wanted}");
    }

    /// Puts events straight into the queue that they are for.
    pub async fn publish(&self, running: &Running, events: &[Outgoing]) {
        for result in running.publisher.publish(events).await.unwrap() {
            result.unwrap();
        }
    }

    pub fn runner(&self, running: &Running, stage: Plans, config: RunnerConfig) -> Runner {
        self.runner_through(&self.broker, running, stage, config)
    }

    /// A runner that consumes as `broker` says.
    pub fn runner_through(
        &self,
        broker: &BrokerConfig,
        running: &Running,
        stage: Plans,
        config: RunnerConfig,
    ) -> Runner {
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let runner = StageRunner::new(
            Arc::new(stage),
            self.db.clone(),
            broker.clone(),
            running.outbox.clone(),
            running.publisher.clone(),
            config,
        );
        let ended = tokio::spawn(runner.run(soft.clone(), hard.clone()));
        Runner { soft, hard, ended }
    }

    pub async fn cleanup(self) {
        self.db.close().await;
        self.namespace.cleanup().await;
        self.database.cleanup().await;
    }
}

impl Running {
    pub async fn stop(self) {
        self.cancel.cancel();
        soon(self.ended).await.unwrap();
    }
}

/// A running stage.
pub struct Runner {
    pub soft: CancellationToken,
    pub hard: CancellationToken,
    pub ended: JoinHandle<()>,
}

impl Runner {
    pub async fn stop(self) {
        self.soft.cancel();
        soon(self.ended).await.unwrap();
    }
}

/// What the stage under test does with an event.
#[derive(Clone)]
pub enum Plan {
    /// Writes the effect, unless it is there, and tells of it.
    Write,
    /// The same, once the semaphore has a permit for it.
    WriteBehind(Arc<Semaphore>),
    /// The same, but it waits in the transaction, after its statements.
    CommitBehind {
        reached: Arc<Semaphore>,
        gate: Arc<Semaphore>,
    },
    Later(Duration),
    InProgress(Duration),
    Reject(&'static str),
    PanicInPrepare,
    PanicInApply,
    FailInApply,
}

/// A stage whose plan for each event the test decides about.
pub struct Plans(Box<dyn Fn(&Envelope) -> Plan + Send + Sync>);

impl Plans {
    pub fn new(plan: impl Fn(&Envelope) -> Plan + Send + Sync + 'static) -> Self {
        Self(Box::new(plan))
    }

    pub fn always(plan: Plan) -> Self {
        Self::new(move |_| plan.clone())
    }
}

impl Stage for Plans {
    const NAME: &'static str = "test";
    const QUEUE: Queue = Queue::LeadCreated;
    type Prepared = (Envelope, Plan);

    async fn prepare(&self, envelope: &Envelope) -> Outcome<Self::Prepared> {
        let plan = (self.0)(envelope);
        match &plan {
            Plan::Later(after) => return Outcome::RetryLater { after: *after, reason: "not yet".to_owned() },
            Plan::InProgress(after) => {
                return Outcome::InProgress { after: *after, reason: "another has it".to_owned() };
            }
            Plan::Reject(reason) => return Outcome::Reject { reason: (*reason).to_owned() },
            Plan::PanicInPrepare => panic!("planned"),
            Plan::WriteBehind(gate) => gate.acquire().await.unwrap().forget(),
            _ => {}
        }
        Outcome::Apply((envelope.clone(), plan))
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Connection,
        batch: &'a mut [Self::Prepared],
    ) -> BoxFuture<'a, Result<Vec<Effect>, StoreError>> {
        Box::pin(async move {
            let mut effects = Vec::with_capacity(batch.len());
            let size = batch.len();
            for (envelope, plan) in batch {
                let lead = envelope.lead_id;
                execute(&mut *tx, &format!("INSERT INTO applications VALUES ('{lead}')")).await?;
                let insert = format!("INSERT INTO effects VALUES ('{lead}', {size}) ON CONFLICT DO NOTHING");
                let written = execute(&mut *tx, &insert).await? == 1;
                match plan {
                    Plan::FailInApply => drop(number(&mut *tx, "SELECT 1::bigint / 0").await?),
                    Plan::PanicInApply => panic!("planned"),
                    Plan::CommitBehind { reached, gate } => {
                        reached.add_permits(1);
                        gate.acquire().await.unwrap().forget();
                    }
                    _ => {}
                }
                effects.push(if written {
                    let event = Event::LeadEnriched { enrichment_version: 1, score: 50 };
                    let now = OffsetDateTime::UNIX_EPOCH;
                    Effect::telling("written", Envelope::new(envelope.program_id, lead, 1, now, event))
                } else {
                    Effect::silent("stale")
                });
            }
            Ok(effects)
        })
    }
}

pub fn created() -> Outgoing {
    outgoing(Event::LeadCreated {})
}

pub fn outgoing(event: Event) -> Outgoing {
    let envelope = Envelope::new(ProgramId::generate(), LeadId::generate(), 1, OffsetDateTime::UNIX_EPOCH, event);
    assert!(envelope.event.kind() == EventKind::LeadCreated || envelope.event.kind() == EventKind::LeadEnriched);
    Outgoing { envelope, route: Route::Exchange, trace: TraceContext::default() }
}

pub fn many_created(count: usize) -> Vec<Outgoing> {
    (0..count).map(|_| created()).collect()
}

/// A failure makes a dead letter at once.
pub fn without_retries() -> RunnerConfig {
    RunnerConfig { max_attempts: 1, ..RunnerConfig::default() }
}

/// Awaits something that must happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it happens within 30 seconds")
}
