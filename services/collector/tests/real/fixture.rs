//! A database of a test's own with a program in it.

use std::{path::PathBuf, sync::Arc};

use collector::intake::Intake;
use domain::{
    clock::SystemClock,
    legal::Basis,
    program::{ProgramSettings, Slug},
};
use store::{
    Db, DbConfig,
    programs::{self, Directory, OpenProgram},
    status::{self, Status},
};
use test_support::postgres::TestDatabase;
use vault::{MasterKey, Vault};

pub(crate) struct Fixture {
    pub(crate) db: Db,
    pub(crate) intake: Intake,
    pub(crate) directory: Directory,
    pub(crate) program: Arc<OpenProgram>,
    files: tempfile::TempDir,
    database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let db = Db::new(&DbConfig::new(database.url())).unwrap();
        let vault = Vault::new(MasterKey::generate(), Vec::new());
        let program = program(&db, &vault, "acme").await;
        let clock = Arc::new(SystemClock);
        Self {
            intake: Intake { db: db.clone(), vault: vault.clone(), clock, outbox: None },
            directory: Directory::new(db.clone(), vault),
            program,
            db,
            files: tempfile::tempdir().unwrap(),
            database,
        }
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// One text out of the database.
    pub(crate) async fn text(&self, sql: &str) -> String {
        test_support::postgres::text(&mut self.database.connect().await, sql).await.unwrap()
    }

    pub(crate) async fn status(&self) -> Status {
        self.db.transact("test.status", |tx, _| Box::pin(async move { status::read(tx, None).await })).await.unwrap()
    }
}

pub(crate) async fn program(db: &Db, vault: &Vault, slug: &str) -> Arc<OpenProgram> {
    let settings = ProgramSettings {
        name: "Acme".to_owned(),
        sender_name: "Acme".to_owned(),
        sender_email: None,
        reply_to: None,
        postal_address: None,
        privacy_url: None,
        threshold: 70,
        niches: Vec::new(),
        product: String::new(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    };
    let slug: Slug = slug.parse().unwrap();
    let now = domain::clock::Clock::now(&SystemClock);
    Arc::new(programs::create(db, vault, &slug, &settings, now).await.unwrap())
}
