//! Where a benchmark takes place: a database, queues, a master key and a folder of its own, all gone at its end.

use anyhow::{Context, bail};
use broker::Admin;
use ceiling::postgres::{APPLICATION, Database};
use domain::clock::{Clock, SystemClock};
use domain::id::ProgramId;
use domain::legal::Basis;
use domain::program::{ProgramSettings, Slug};
use service::config::{DatabaseConfig, Document};
use store::{Db, api_keys, programs, schema::MigrationSettings, server};
use tempfile::TempDir;
use uuid::Uuid;
use vault::MasterKey;

use super::Bench;
use crate::commands::migrate;
use crate::settings::{self, Override};

/// What the databases and the queue namespaces of benchmarks begin with.
const PREFIX: &str = "leadmill_bench_";
/// Connections of the benchmark itself, which only asks now and then.
const CONNECTIONS: u32 = 4;

/// Where a benchmark takes place.
pub struct Place {
    /// Keys of the configuration with the values that lead here.
    pub settings: Vec<(&'static str, String)>,
    /// The database.
    pub database: Database,
    /// The queues' prefix.
    pub namespace: String,
    /// For files that nobody needs afterwards.
    pub folder: TempDir,
    document: Document,
    db: Db,
    name: String,
    /// A database on the same server, to drop this one from.
    server_url: String,
}

/// A program to collect leads for.
#[derive(Debug, Clone)]
pub struct BenchProgram {
    /// Its id.
    pub id: ProgramId,
    /// Its short name.
    pub slug: Slug,
    /// For its HTTP ingest.
    pub key: String,
}

/// Does `work` in a place of its own, which is gone afterwards, whether the work is done, fails, or is interrupted.
pub async fn within<T>(bench: &Bench<'_>, work: impl AsyncFnOnce(&Place) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let place = Place::make(bench).await?;
    bench.say(&format!("working in {}", place.name));
    let worked = match bench.stop.run_until_cancelled(work(&place)).await {
        Some(worked) => worked,
        None => Err(anyhow::anyhow!("interrupted; its database and queues are gone")),
    };
    let left = place.leave().await;
    let value = worked?;
    left.map(|()| value)
}

impl Place {
    async fn make(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let given: DatabaseConfig = bench.document.section("database")?;
        settings::reach_database(bench.document).await?;
        let id = Uuid::now_v7().simple().to_string();
        // The end of it is random; the beginning would be the same for all that begin in the same minute.
        let name = format!("{PREFIX}{}", &id[id.len() - 10..]);
        let server_url = given.direct_url().expose().clone();
        let endpoint = given.direct_url().endpoint();
        let url = match server::create_database(&server_url, &name).await {
            Ok(url) => url,
            Err(error) if error.is_forbidden() => bail!(
                "the account of DATABASE_URL may not create databases at {endpoint}, and a benchmark works in one of its \
                 own: let a superuser run `ALTER ROLE the_account CREATEDB`, or set DATABASE_URL to a server of your own \
                 (`deploy/local-stack.sh up` starts one)"
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("creating a database for the benchmark at {endpoint}"));
            }
        };
        match Self::furnish(bench, &name, &server_url, url).await {
            Ok(place) => Ok(place),
            Err(error) => {
                // The reason is more important than what could not be cleared away after it.
                let _ = server::drop_database(&server_url, &name).await;
                Err(error)
            }
        }
    }

    async fn furnish(bench: &Bench<'_>, name: &str, server_url: &str, url: String) -> anyhow::Result<Self> {
        let namespace = format!("{}.", name.replace('_', "-"));
        let settings = vec![
            ("database.url", url.clone()),
            ("database.direct_url", url.clone()),
            ("amqp.namespace", namespace.clone()),
            ("vault.master_key", MasterKey::generate().to_text().to_string()),
        ];
        let overrides: Vec<Override> =
            settings.iter().map(|(key, value)| ("`leadmill bench`", *key, value.clone())).collect();
        let document = settings::load(bench.file, &overrides)?;
        migrate::apply(&document, MigrationSettings::default()).await?;
        let broker = settings::broker(&document)?;
        let endpoint = document.section::<service::config::AmqpConfig>("amqp")?.url.endpoint().to_owned();
        Admin::new(broker).declare_topology().await.with_context(|| {
            format!("RabbitMQ at {endpoint} does not let this program in: start it, or set AMQP_URL to the right one")
        })?;
        Ok(Self {
            settings,
            database: Database::new(&url, CONNECTIONS)?,
            namespace,
            folder: tempfile::tempdir().context("making a folder for the benchmark")?,
            db: bootstrap::settings::database(&document, APPLICATION)?,
            document,
            name: name.to_owned(),
            server_url: server_url.to_owned(),
        })
    }

    /// Creates a program. One that writes to everybody whom the law lets it has no threshold.
    pub async fn program(&self, slug: &str, writes_to_everybody: bool) -> anyhow::Result<BenchProgram> {
        let slug: Slug = slug.parse().context("naming the program")?;
        let settings = ProgramSettings {
            name: "Bench Partners".to_owned(),
            sender_name: "Robin of Bench".to_owned(),
            sender_email: Some("partners@bench.example.com".parse().context("the program's sender")?),
            reply_to: None,
            postal_address: Some("Bench Goods, 1 Example Street, Springfield, IL 62701, USA".to_owned()),
            privacy_url: Some("https://bench.example.com/privacy".to_owned()),
            threshold: if writes_to_everybody { 0 } else { 70 },
            niches: Vec::new(),
            product: "Bench makes everyday gear from recycled materials; partners earn 15 % of each sale they bring."
                .to_owned(),
            basis: Basis::LegitimateInterest,
            daily_cap: None,
            paused: false,
        };
        let vault = settings::vault(&self.document)?;
        let id = programs::create(&self.db, &vault, &slug, &settings, SystemClock.now()).await?.program.id;
        let now = SystemClock.now();
        let key = self
            .db
            .transact("api_key.create", |tx, _| {
                Box::pin(async move {
                    // What follows is measured, and this isn't part of it.
                    server::report_statistics(tx).await?;
                    api_keys::create(tx, id, "bench", now).await
                })
            })
            .await?;
        Ok(BenchProgram { id, slug, key })
    }

    /// New queues in the place of the old ones: a message costs RabbitMQ more, the more wait before it.
    pub async fn empty_queues(&self) -> anyhow::Result<()> {
        let admin = Admin::new(settings::broker(&self.document)?);
        admin.delete_topology().await.context("deleting the benchmark's queues")?;
        admin.declare_topology().await.context("declaring the benchmark's queues again")
    }

    /// Clears everything away.
    async fn leave(self) -> anyhow::Result<()> {
        self.database.close().await;
        self.db.close().await;
        let queues = match settings::broker(&self.document) {
            Ok(broker) => Admin::new(broker).delete_topology().await.context("deleting the benchmark's queues"),
            Err(error) => Err(error),
        };
        let dropped = server::drop_database(&self.server_url, &self.name).await;
        let dropped = dropped.with_context(|| format!("dropping the benchmark's database `{}`", self.name));
        queues.and(dropped)
    }

    /// The database's handle with the services' own functions.
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// The configuration that leads here.
    pub const fn document(&self) -> &Document {
        &self.document
    }
}
