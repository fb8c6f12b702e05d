//! What a scenario runs on.

use std::{
    collections::BTreeSet,
    env,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::{
    clock::{Clock, SystemClock},
    id::ProgramId,
    legal::Basis,
    program::{ProgramSettings, Slug},
};
use sqlx::{Executor as _, PgConnection, Row as _};
use store::{Db, DbConfig, api_keys, programs};
use tempfile::TempDir;
use test_support::{amqp::AmqpNamespace, postgres::TestDatabase, transitions};
use vault::{MasterKey, ProgramKeys, Vault};

use crate::{
    cli::{self, Finished},
    process::{self, Process, Starting},
    wait::eventually,
};

/// The short name of the program that a stack comes with.
pub const PROGRAM: &str = "acme";
/// Its postal address, which stands in every mail.
pub const POSTAL_ADDRESS: &str = "Acme Affiliates Ltd, 12 Harbour Street, Cork, Ireland";
/// Its sender.
pub const SENDER: &str = "kim@acme.example";
/// Its privacy notice, which every mail names.
pub const PRIVACY_URL: &str = "https://acme.example/privacy";

/// A database, a queue namespace, a master key and a program of a scenario's own. Nothing of it outlives the scenario.
pub struct Stack {
    database: TestDatabase,
    amqp: AmqpNamespace,
    master_key: String,
    folder: TempDir,
    program: ProgramId,
    binaries: PathBuf,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// Events that wait to be published.
    pub outbox: i64,
    /// Leads whose revision isn't enriched.
    pub unenriched: i64,
    /// Enrichments that nobody decided about.
    pub undecided: i64,
    /// Mails that are neither out nor put off.
    pub sending: i64,
}

impl Stack {
    /// A migrated database with a program that may send.
    pub async fn start() -> Self {
        Self::start_with(settings()).await
    }

    /// The same with a program of one's own.
    pub async fn start_with(settings: ProgramSettings) -> Self {
        Self::on(TestDatabase::create().await, AmqpNamespace::new().await).with_program(&settings).await
    }

    /// The same on other servers than the usual ones, given by their URLs.
    pub async fn start_on(database_url: &str, amqp_url: &str, settings: ProgramSettings) -> Self {
        let database = TestDatabase::create_on(database_url).await;
        Self::on(database, AmqpNamespace::on(amqp_url).await).with_program(&settings).await
    }

    async fn with_program(self, settings: &ProgramSettings) -> Self {
        let mut stack = self;
        transitions::enforce(&mut stack.connect().await).await;
        stack.mutate().await;
        let db = stack.db();
        let vault = stack.vault();
        let slug: Slug = PROGRAM.parse().expect("a short name");
        let program = programs::create(&db, &vault, &slug, settings, SystemClock.now()).await;
        stack.program = program.expect("the program is created").program.id;
        db.close().await;
        stack
    }

    /// Takes a safeguard of the schema away, when `deploy/mutations.sh` asks for it.
    async fn mutate(&self) {
        let Some(file) = env::var_os("TEST_MUTATION_SQL").filter(|file| !file.is_empty()) else { return };
        let statements = std::fs::read_to_string(file).expect("the mutation can be read");
        self.connect().await.execute(statements.as_str()).await.expect("the mutation can be applied");
    }

    /// Without schema and program.
    pub async fn start_empty() -> Self {
        Self::on(TestDatabase::create_empty().await, AmqpNamespace::new().await)
    }

    /// A database and a program that an earlier release has made, whose binaries are in `binaries`; they are run until
    /// [`Stack::use_this_release`].
    pub async fn start_older(binaries: &Path) -> Self {
        let mut stack = Self { binaries: binaries.to_owned(), ..Self::start_empty().await };
        stack.leadmill(&["migrate"]).await.ok();
        let create = ["program", "create", PROGRAM, "--sender-email", SENDER, "--sender-name", "Kim of Acme"];
        let write = ["--postal-address", POSTAL_ADDRESS, "--privacy-url", PRIVACY_URL, "--product", "A kit"];
        let decide = ["--threshold", "0", "--basis", "consent"];
        stack.leadmill(&[&create[..], &write, &decide].concat()).await.ok();
        let id = sqlx::query_scalar("SELECT id FROM programs").fetch_one(&mut stack.connect().await).await;
        stack.program = ProgramId::from_uuid(id.expect("the program has been made"));
        stack
    }

    /// Whether commands and new processes are of this release.
    pub fn is_of_this_release(&self) -> bool {
        self.binaries == binaries()
    }

    /// From now on commands and new processes are of this release.
    pub fn use_this_release(&mut self) {
        self.binaries = binaries();
    }

    fn on(database: TestDatabase, amqp: AmqpNamespace) -> Self {
        service::tls::install_provider();
        Self {
            database,
            amqp,
            master_key: MasterKey::generate().to_text().to_string(),
            folder: tempfile::tempdir().expect("a folder"),
            program: ProgramId::generate(),
            binaries: binaries(),
        }
    }

    /// The program.
    pub fn program(&self) -> ProgramId {
        self.program
    }

    /// The queues.
    pub fn amqp(&self) -> &AmqpNamespace {
        &self.amqp
    }

    /// The database.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// A folder that goes with the stack.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the stack's folder and says where it is.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the stack's folder takes files");
        path
    }

    /// A connection, to look behind the scenes with.
    pub async fn connect(&self) -> PgConnection {
        self.database.connect().await
    }

    /// The program's keys are wrapped by it.
    pub fn vault(&self) -> Vault {
        Vault::new(self.master_key.parse().expect("a key made above"), Vec::new())
    }

    /// The environment of every binary: where the servers are, and ports that nobody else has.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("DATABASE_URL", self.database.url()),
            ("AMQP_URL", self.amqp.url()),
            ("LEADMILL_AMQP_NAMESPACE", self.amqp.prefix()),
            ("LEADMILL_MASTER_KEY", &self.master_key),
            ("LEADMILL_DATABASE_MAX_CONNECTIONS", "4"),
            ("LEADMILL_LOG_FORMAT", "json"),
            ("LEADMILL_ADMIN_LISTEN", "127.0.0.1:0"),
            ("LEADMILL_COLLECTOR_ADMIN_LISTEN", "127.0.0.1:0"),
            ("LEADMILL_COLLECTOR_LISTEN", "127.0.0.1:0"),
            ("LEADMILL_ENRICHER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("LEADMILL_MAILER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("LEADMILL_MAILER_LISTEN", "127.0.0.1:0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// A binary to start, one of `collector`, `enricher`, `mailer` and `leadmill`.
    pub fn service(&self, binary: &str) -> Starting {
        Starting::new(&self.binaries, binary, self.folder.path(), self.env())
    }

    /// Starts `replicas` of each binary, with the same additions to their environment, and waits until all are ready.
    pub async fn fleet(&self, binaries: &[&str], replicas: usize, env: &[(&str, &str)]) -> Vec<Process> {
        let starting: Vec<Process> = binaries
            .iter()
            .flat_map(|binary| std::iter::repeat_n(binary, replicas))
            .map(|binary| self.service(binary).envs(env).spawn())
            .collect();
        for process in &starting {
            process.ready().await;
        }
        starting
    }

    /// Runs the command line to its end.
    pub async fn leadmill(&self, args: &[&str]) -> Finished {
        self.leadmill_with(args, &[]).await
    }

    /// The same of the release whose binaries are in `folder`.
    pub async fn leadmill_of(&self, folder: &Path, args: &[&str]) -> Finished {
        cli::run(folder, args, self.env(), self.folder.path()).await
    }

    /// The same with additions to its environment.
    pub async fn leadmill_with(&self, args: &[&str], env: &[(&str, &str)]) -> Finished {
        let mut all = self.env();
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        cli::run(&self.binaries, args, all, self.folder.path()).await
    }

    /// A key for the program's HTTP ingest.
    pub async fn api_key(&self) -> String {
        let (db, program) = (self.db(), self.program);
        let making = db.transact("test.key", |tx, _| {
            Box::pin(async move { api_keys::create(tx, program, "test", SystemClock.now()).await })
        });
        let key = making.await.expect("a key is made");
        db.close().await;
        key
    }

    /// The program's keys, which name recipients and make the tokens of links.
    pub async fn program_keys(&self) -> ProgramKeys {
        let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped_keys FROM programs WHERE id = $1")
            .bind(self.program.as_uuid())
            .fetch_one(&mut self.connect().await)
            .await
            .expect("a stack comes with a program");
        self.vault().unwrap_program_keys(self.program, &wrapped).expect("they were wrapped by the stack's key")
    }

    /// What is under way.
    pub async fn unfinished(&self) -> Unfinished {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM outbox) AS outbox,
                    (SELECT count(*) FROM leads l LEFT JOIN enriched_leads e
                            ON e.program_id = l.program_id AND e.lead_id = l.id
                     WHERE (e.lead_revision IS NULL OR e.lead_revision < l.revision)
                       -- whoever must not be written to isn't analysed; an older release's table lacks the column
                       AND NOT (EXISTS (SELECT FROM lead_keys k WHERE k.program_id = l.program_id AND k.lead_id = l.id
                                        AND to_jsonb(k) ->> 'awaited_revision' IS NULL)
                                AND EXISTS (SELECT FROM suppressions s WHERE s.program_id = l.program_id
                                            AND s.recipient_index = l.email_index))) AS unenriched,
                    (SELECT count(*) FROM enriched_leads
                     WHERE decided_version IS NULL OR decided_version < enrichment_version) AS undecided,
                    (SELECT count(*) FROM outreach
                     WHERE state IN ('queued', 'connecting', 'transmitting')) AS sending",
        )
        .fetch_one(&mut self.connect().await)
        .await
        .expect("the tables can be counted");
        Unfinished {
            outbox: row.get("outbox"),
            unenriched: row.get("unenriched"),
            undecided: row.get("undecided"),
            sending: row.get("sending"),
        }
    }

    /// Waits until everything has come through.
    pub async fn settle(&self, limit: Duration) {
        self.settle_at(Unfinished::default(), limit).await;
    }

    /// Waits until nothing is under way but what a scenario has stopped on purpose.
    pub async fn settle_at(&self, rest: Unfinished, limit: Duration) {
        eventually("everything has come through", limit, async || {
            let unfinished = self.unfinished().await;
            if unfinished == rest { Ok(()) } else { Err(format!("{unfinished:?}, expected {rest:?}")) }
        })
        .await;
    }

    /// Deletes everything. What is dropped instead is deleted too, only slower.
    pub async fn cleanup(self) {
        self.amqp.cleanup().await;
        self.database.cleanup().await;
    }

    fn db(&self) -> Db {
        Db::new(&DbConfig { max_connections: 1, ..DbConfig::new(self.database.url()) }).expect("a URL made here")
    }
}

/// Settings of a program that may send: a complete sender, no niche wanted more than another, no limit.
pub fn settings() -> ProgramSettings {
    ProgramSettings {
        name: "Acme".to_owned(),
        sender_name: "Kim of Acme".to_owned(),
        sender_email: SENDER.parse().ok(),
        reply_to: "partners@acme.example".parse().ok(),
        postal_address: Some(POSTAL_ADDRESS.to_owned()),
        privacy_url: Some(PRIVACY_URL.to_owned()),
        threshold: 40,
        niches: Vec::new(),
        product: "A kit for people who make things at home".to_owned(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    }
}

/// A port of the loopback that is free, for what must be known before it is bound; nobody else in this process gets the same. It
/// lies below those that the kernel hands out by itself (32768 and up, as a rule), or a connection of somebody else could have it
/// a moment later.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1_000 {
        let port = rand::random_range(10_000..20_000);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && given.insert(port) {
            return address;
        }
    }
    panic!("no free port between 10000 and 20000");
}

/// Where the binaries are.
pub fn binaries() -> PathBuf {
    process::binaries()
}
