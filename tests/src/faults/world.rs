//! A whole installation to be broken: services on networks of their own, a mail server that keeps a record, leads that go
//! in meanwhile.

use std::{env, net::SocketAddr, path::Path, time::Duration};

use collector::source::{Field, RawProfile};
use domain::program::ProgramSettings;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use test_support::smtp::{Encryption, FakeSmtp};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    audit::{self, queues_are_drained},
    creators,
    faults::{
        clock,
        feed::{Fed, Feed},
        history,
        pages::Pages,
        servers::Servers,
        service::Service,
        verdict::{Complaint, Done, Tally, Verdict, verdict},
    },
    mail::{self, Mail},
    stack::{PROGRAM, Stack, Unfinished, free_address, settings},
    truth,
    wait::within,
};

/// How long everything may take to come through once nothing is broken any more: leases, backoffs and the reconciler's
/// rests have to pass.
/// `LEADMILL_FAULT_PATIENCE`, in seconds, is for who expects it not to.
fn recovery() -> Duration {
    let seconds = env::var("LEADMILL_FAULT_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(240))
}

/// Settings under which a system recovers within seconds, not minutes. What they shorten is patience, not a guarantee.
const IMPATIENT: &[(&str, &str)] = &[
    ("LEADMILL_MAILER_SMTP_CONNECT_TIMEOUT", "1s"),
    ("LEADMILL_MAILER_SMTP_COMMAND_TIMEOUT", "2s"),
    ("LEADMILL_MAILER_SMTP_BODY_TIMEOUT", "5s"),
    ("LEADMILL_MAILER_LEASE_SLACK", "3s"),
    ("LEADMILL_MAILER_RETRY_FIRST", "1s"),
    ("LEADMILL_MAILER_RETRY_LONGEST", "3s"),
    ("LEADMILL_DATABASE_ACQUIRE_TIMEOUT", "5s"),
    ("LEADMILL_DATABASE_TRANSACTION_TIMEOUT", "5s"),
    ("LEADMILL_AMQP_CONNECT_TIMEOUT", "2s"),
    ("LEADMILL_AMQP_CONFIRM_TIMEOUT", "3s"),
];

/// A reconciler that brings everything through within seconds, whatever the rest of the system forgets.
const EAGER_RECONCILER: &[(&str, &str)] = &[
    ("LEADMILL_RECONCILER_OBSERVE_EVERY", "500ms"),
    ("LEADMILL_RECONCILER_REST", "1s"),
    ("LEADMILL_RECONCILER_GRACE", "4s"),
    ("LEADMILL_RECONCILER_AGAIN_AFTER", "5s"),
];
/// One that does nothing while a scenario lasts, so that it can't hide what others have lost.
const IDLE_RECONCILER: &[(&str, &str)] = &[("LEADMILL_RECONCILER_GRACE", "24h")];

/// Settings that have enrichers ask the model at `base_url`.
pub fn asking_model(base_url: &str) -> Vec<(&str, &str)> {
    vec![
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_NAME", "stand-in"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", base_url),
    ]
}

/// The installation.
pub struct World {
    /// The services: collectors, enrichers, mailers. First, so that they end, and show their logs, while the stack's folder
    /// is there.
    pub services: Vec<Service>,
    /// What it stands on.
    pub stack: Stack,
    /// The mail server.
    pub mailbox: FakeSmtp,
    /// Where leads go in.
    pub feed: Feed,
    /// Where people object.
    pub pages: Pages,
    seed: u64,
    /// Its own servers; last, so that they end last.
    servers: Option<Servers>,
}

/// How big it is, and what is special about it.
#[derive(Debug, Clone, Default)]
pub struct Plan<'a> {
    /// Which leads there are, and all chance.
    pub seed: u64,
    /// Replicas of each service; 0 counts as 1.
    pub replicas: usize,
    /// Further settings of all services.
    pub env: &'a [(&'a str, &'a str)],
    /// Whether leads that lost their message are told of again. Only where queues are deleted: everywhere else nothing may
    /// need it.
    pub reconciling: bool,
    /// What the mail server offers. The mailers speak without encryption unless `env` says otherwise.
    pub encryption: Encryption,
    /// The user and the password that the mail server wants, if any; the mailers log in so.
    pub login: Option<(&'a str, &'a str)>,
    /// The program's limit of mails a day.
    pub daily_cap: Option<i32>,
    /// How far the clock of the last replica of each service is ahead.
    pub clock_ahead: Duration,
}

impl World {
    /// Starts one on the machine's servers, and waits until it is ready.
    pub async fn start(plan: Plan<'_>) -> Self {
        Self::on(Stack::start_with(everybody_qualifies(&plan)).await, None, plan).await
    }

    /// Starts one on servers of its own.
    pub async fn start_on(servers: Servers, plan: Plan<'_>) -> Self {
        let stack = Stack::start_on(&servers.database_url, &servers.amqp_url, everybody_qualifies(&plan)).await;
        Self::on(stack, Some(servers), plan).await
    }

    /// Starts one whose database and services are an earlier release's, with its binaries in `binaries`, until they are
    /// replaced.
    pub async fn start_older(binaries: &Path, plan: Plan<'_>) -> Self {
        Self::on(Stack::start_older(binaries).await, None, plan).await
    }

    async fn on(stack: Stack, servers: Option<Servers>, plan: Plan<'_>) -> Self {
        history::record(&stack).await;
        let mut mailbox = FakeSmtp::builder().encryption(plan.encryption);
        if let Some((user, password)) = plan.login {
            mailbox = mailbox.login(user, password);
        }
        let mailbox = mailbox.start().await;
        let mail_settings = mail::settings(mailbox.address().port());
        let mut env: Vec<(&str, &str)> = IMPATIENT.to_vec();
        env.extend(mail_settings.iter().map(|(name, value)| (*name, value.as_str())));
        env.retain(|setting| *setting != mail::TEST_SINK || stack.is_of_this_release());
        env.extend(if plan.reconciling { EAGER_RECONCILER } else { IDLE_RECONCILER });
        if let Some((user, password)) = plan.login {
            env.extend([("LEADMILL_MAILER_SMTP_USERNAME", user), ("LEADMILL_MAILER_SMTP_PASSWORD", password)]);
        }
        env.extend(plan.env);
        let replicas = plan.replicas.max(1);
        let ingests: Vec<SocketAddr> = (0..replicas).map(|_| free_address()).collect();
        let pages: Vec<SocketAddr> = (0..replicas).map(|_| free_address()).collect();
        let ahead = if plan.clock_ahead.is_zero() { None } else { Some(clock::ahead(&stack, plan.clock_ahead).await) };
        let mut services = Vec::new();
        for binary in ["collector", "enricher", "mailer"] {
            for (replica, (ingest, page)) in ingests.iter().zip(&pages).enumerate() {
                let (ingest, page) = (ingest.to_string(), page.to_string());
                let mut env = env.clone();
                env.extend([("LEADMILL_COLLECTOR_LISTEN", ingest.as_str()), ("LEADMILL_MAILER_LISTEN", page.as_str())]);
                if let Some(library) = ahead.as_deref().filter(|_| replica + 1 == replicas) {
                    env.push(("LD_PRELOAD", library));
                }
                services.push(Service::start(&stack, mailbox.address(), binary, &env).await);
            }
        }
        for service in &services {
            service.ready().await;
        }
        let feed = Feed { ingests, key: stack.api_key().await, page: 50, pause: Duration::from_millis(20) };
        Self { services, stack, mailbox, feed, pages: Pages::at(pages), seed: plan.seed, servers }
    }

    /// Chance, by the world's seed.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }

    /// The same for one of several that take chances at the same time.
    pub fn rng_for(&self, lane: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed << 8 | lane)
    }

    /// Its own servers.
    pub fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("a world on servers of its own")
    }

    /// The replicas of one service.
    pub fn replicas(&self, binary: &str) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(move |service| service.binary() == binary)
    }

    /// Lets `count` leads in, in pages with pauses between them that last about `over` in all, however often it takes. Who
    /// has an address has agreed to be written to. Every tenth has the address of the one before it, as people have who are on two
    /// networks.
    pub async fn feed(&self, count: u64, over: Duration) -> Fed {
        let mut profiles = creators::creators(self.seed, count);
        creators::agree(&mut profiles);
        for index in (9..profiles.len()).step_by(10) {
            let (before, rest) = profiles.split_at_mut(index);
            // With what shows that they may be written to there.
            rest[0].email.clone_from(&before[index - 1].email);
            rest[0].forget_evidence();
            for field in Field::EVIDENCE.into_iter().filter(|_| before[index - 1].email.is_some()) {
                *rest[0].slot(field) = before[index - 1].get(field).map(str::to_owned);
            }
        }
        self.post(&profiles, over).await
    }

    /// Ends every fault: everything is up, every network and the mail server are well.
    pub async fn calm(&self) {
        self.mailbox.set_script(|_| test_support::smtp::Action::Proceed);
        for service in &self.services {
            service.network().calm();
            service.signal("CONT").await;
            service.revive().await;
        }
        for service in &self.services {
            service.ready().await;
        }
    }

    /// Lets these leads in, in pages with pauses between them that last about `over` in all.
    pub async fn post(&self, profiles: &[RawProfile], over: Duration) -> Fed {
        let pages = profiles.len().div_ceil(self.feed.page).max(1);
        let feed = Feed { pause: over / u32::try_from(pages).unwrap_or(u32::MAX), ..self.feed.clone() };
        feed.post(profiles).await
    }

    /// Takes over what these profiles say of known leads, by the command line, as an operator does with a newer list.
    pub async fn update(&self, profiles: &[RawProfile]) {
        let lines: Vec<String> = profiles.iter().map(|profile| creators::item(profile).to_string()).collect();
        let name = format!("update-{}.jsonl", Uuid::now_v7());
        let file = self.stack.file(&name, lines.join("\n"));
        let file = file.to_str().expect("a path of ours");
        self.stack.leadmill(&["import", file, "--program", PROGRAM, "--dedupe", "update", "--json"]).await.ok();
    }

    /// Kills the replicas of a service in turn, `kills` times in all, `pause` before each time.
    pub async fn kill_in_turn(&self, binary: &str, kills: u32, pause: Duration) {
        let replicas: Vec<&Service> = self.replicas(binary).collect();
        for replica in replicas.iter().cycle().take(kills as usize) {
            sleep(pause).await;
            replica.kill().await;
        }
    }

    /// Waits until everything has come through, what was put off included; says what hasn't, within the time that recovery
    /// may take.
    pub async fn settle(&self) -> Result<(), String> {
        within(recovery(), async || {
            let unfinished = self.stack.unfinished().await;
            if unfinished != Unfinished::default() {
                return Err(format!("{unfinished:?}"));
            }
            match self.due().await {
                0 => Ok(()),
                rest => Err(format!("{rest} mails are still due")),
            }
        })
        .await
    }

    /// How many mails go out sooner or later, unless something stops them.
    async fn due(&self) -> i64 {
        let due = "SELECT count(*) FROM outreach WHERE state IN ('queued', 'connecting', 'transmitting', 'deferred')";
        truth::count(&self.stack, due).await
    }

    /// Where the mail server's certificate authority is to be found, for who is to trust it.
    pub fn authority_file(&self) -> String {
        let path = self.stack.file("authority.pem", self.mailbox.authority_pem());
        path.to_str().expect("a path of ours").to_owned()
    }

    /// What the mail server got.
    pub fn mails(&self) -> Vec<Mail> {
        self.mailbox.messages().into_iter().map(Mail::from).collect()
    }

    /// Ends the faults, waits, and judges.
    ///
    /// # Panics
    /// When anything is lost, doubled, stranded, or uncertain without a reason, naming an example.
    pub async fn judge(&self, done: Done<'_>) -> Tally {
        let tally = self.verdict(done).await.assert();
        queues_are_drained(&self.stack, done.planted).await;
        tally
    }

    /// The same, for a scenario that has complaints of its own.
    pub async fn verdict(&self, done: Done<'_>) -> Verdict {
        self.calm().await;
        let mut complaints = Vec::new();
        let broken = loop {
            if let Err(rest) = self.settle().await {
                complaints.push(Complaint::new("something never comes through", rest));
                break audit::lasting(&self.stack, done.planted, Duration::ZERO).await;
            }
            let broken = audit::lasting(&self.stack, done.planted, recovery()).await;
            // What a job has found meanwhile is yet to be sent: the rows and the server's record are compared at rest.
            if self.due().await == 0 {
                break broken;
            }
        };
        verdict(&self.stack, &self.mails(), done, complaints, &broken).await
    }

    /// Ends everything in order.
    pub async fn end(self) {
        drop(self.services);
        self.stack.cleanup().await;
    }
}

/// Everybody with an address gets a mail: more mails, more that can go wrong.
fn everybody_qualifies(plan: &Plan<'_>) -> ProgramSettings {
    ProgramSettings { threshold: 0, daily_cap: plan.daily_cap, ..settings() }
}
