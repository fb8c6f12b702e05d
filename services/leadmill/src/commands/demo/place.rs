//! Where a demo takes place: database, queues, master key and addresses, none of them in anybody's way.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use broker::Admin;
use service::config::{AmqpConfig, DatabaseConfig, Document, RuntimeConfig, VaultConfig};
use sha2::{Digest, Sha256};
use store::{programs, schema::MigrationSettings, server};
use vault::MasterKey;

use crate::commands::{is_default, keys, migrate, quiet};
use crate::settings::{self, Override};

/// What the short names of the demo's programs begin with.
pub const SLUG_PREFIX: &str = "demo-";
/// What is added to the name of a database that holds somebody's own programs.
const SIBLING_SUFFIX: &str = "_demo";
/// The key's name in its folder.
const KEY_FILE: &str = "demo.key";
/// What says, in a clone, where the servers of `make demo` are.
const LOCAL_STACK: &str = "deploy/local-stack.sh";
/// The addresses that the demo listens on: where they are taken, it takes free ones.
const LISTENS: [&str; 3] = ["admin.listen", "collector.listen", "mailer.listen"];

/// Where a demo takes place.
pub struct Place {
    /// The configuration, with all of it in.
    pub document: Document,
    /// The database, for people.
    pub database: String,
    /// Where the master key is, for people.
    pub key_told: String,
    /// Whether it isn't the configured one.
    is_sibling: bool,
    key_file: Option<PathBuf>,
    /// Whether the queues are the demo's own.
    own_queues: bool,
}

impl Place {
    /// Finds or makes all of it, and migrates the database.
    pub fn prepare(file: Option<&Path>, folder: Option<&Path>) -> anyhow::Result<Self> {
        let given = settings::load(file, &[])?;
        let mut overrides: Vec<Override> = quiet(&given).into_iter().collect();
        let mut set = |key, value: String| overrides.push(("`leadmill demo`", key, value));
        set("mailer.transport", "capture".to_owned());
        set("enricher.provider", "local".to_owned());
        set("collector.simulate.program", String::new());
        for key in LISTENS {
            if is_default(&given, key) && TcpListener::bind(given.get::<SocketAddr>(key)?).is_err() {
                set(key, "127.0.0.1:0".to_owned());
            }
        }

        let configured_key = given.section::<VaultConfig>("vault")?.master_key.is_some();
        let key_file = if configured_key { None } else { Some(state_folder(folder)?.join(KEY_FILE)) };
        let key_told = match &key_file {
            Some(path) => {
                set("vault.master_key", own_key(path)?);
                format!("its master key is in {}", path.display())
            }
            None => "the configured master key".to_owned(),
        };

        service::tls::install_provider();
        let runtime = service::run::runtime(&given.section::<RuntimeConfig>("runtime")?)?;
        let sibling = runtime.block_on(database(&given))?;
        if let Some(url) = &sibling {
            set("database.url", url.clone());
            set("database.direct_url", url.clone());
        }

        let amqp: AmqpConfig = given.section("amqp")?;
        let own_queues = amqp.namespace.is_empty();
        let loaded = settings::load(file, &overrides)?;
        let endpoint = loaded.section::<DatabaseConfig>("database")?.url.endpoint().to_owned();
        if own_queues {
            // The same for each demo on this database, so that one which was killed leaves nothing that the next wouldn't
            // take up; another for each database, so that two of them can share a RabbitMQ.
            let digest = hex::encode(&Sha256::digest(endpoint.as_bytes())[..4]);
            overrides.push(("`leadmill demo`", "amqp.namespace", format!("demo-{digest}.")));
        }
        let document = settings::load(file, &overrides)?;
        runtime.block_on(async {
            migrate::apply(&document, MigrationSettings::default()).await?;
            declare_queues(&document).await
        })?;
        Ok(Self { document, database: endpoint, key_told, is_sibling: sibling.is_some(), key_file, own_queues })
    }

    /// The lines that make a shell ready for commands that look into the demo's data. They hold no secret.
    pub fn shell_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if Path::new(LOCAL_STACK).exists() {
            lines.push(format!("eval \"$({LOCAL_STACK} up)\""));
        }
        if self.is_sibling {
            lines.push(format!("export DATABASE_URL=\"${{DATABASE_URL}}{SIBLING_SUFFIX}\"   # {}", self.database));
        }
        if let Some(path) = &self.key_file {
            lines.push(format!("export LEADMILL_MASTER_KEY_FILE={}", path.display()));
        }
        lines
    }

    /// Takes the demo's own queues away, unless dead letters are in them.
    pub async fn leave(&self, broker: &Admin) {
        if !self.own_queues {
            return;
        }
        let left = match broker.depths().await {
            Ok(depths) => {
                let dead = depths.iter().any(|depth| depth.dead && depth.depth.is_some_and(|depth| depth.ready > 0));
                if dead { Ok(()) } else { broker.delete_topology().await }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            tracing::warn!(error = &error as &dyn std::error::Error, "the demo's queues could not be deleted");
        }
    }
}

/// The URL of the database beside the configured one, when that holds programs that aren't a demo's.
async fn database(document: &Document) -> anyhow::Result<Option<String>> {
    let config: DatabaseConfig = document.section("database")?;
    let db = settings::database(document)?;
    settings::reach_database(document).await?;
    // A database without our schema holds nothing of anybody's.
    let others = match store::schema::check(&db).await {
        Ok(()) => db
            .transact("program.list", |tx, _| Box::pin(programs::list(tx)))
            .await?
            .iter()
            .any(|program| !program.slug.as_str().starts_with(SLUG_PREFIX)),
        Err(store::schema::SchemaError::Missing) => false,
        // Older or newer than this program: somebody uses it.
        Err(_) => true,
    };
    db.close().await;
    if !others {
        return Ok(None);
    }
    let made = server::sibling_database(config.direct_url().expose(), SIBLING_SUFFIX).await;
    made.map(Some).with_context(|| {
        let endpoint = config.url.endpoint();
        format!(
            "{endpoint} holds programs of somebody's own, and the demo could not make a database for itself beside it: set \
             DATABASE_URL to an empty one"
        )
    })
}

/// Declares the queues: whether RabbitMQ is there is better said now than after a minute of waiting.
async fn declare_queues(document: &Document) -> anyhow::Result<()> {
    let config: AmqpConfig = document.section("amqp")?;
    Admin::new(settings::broker(document)?).declare_topology().await.with_context(|| {
        format!(
            "RabbitMQ at {} does not let this program in: start it, or set AMQP_URL to the right one. `make demo` finds or \
             starts one by itself; `leadmill doctor` checks everything",
            config.url.endpoint()
        )
    })
}

/// The folder for what has to outlive a run.
fn state_folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = match named {
        Some(folder) => folder.to_owned(),
        None if Path::new(".stack").is_dir() => PathBuf::from(".stack"),
        None => env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))
            .map_or_else(|| PathBuf::from(".stack"), |state| state.join("leadmill")),
    };
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    // Shown in commands to be run from anywhere.
    folder.canonicalize().with_context(|| format!("finding the folder {}", folder.display()))
}

/// The demo's own key: made once, and then kept, since the programs of earlier demos are wrapped by it.
fn own_key(path: &Path) -> anyhow::Result<String> {
    if !path.exists() {
        keys::write(path, &MasterKey::generate())?;
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading the demo's master key {}", path.display()))?;
    let key: MasterKey = text.parse().with_context(|| format!("reading the demo's master key {}", path.display()))?;
    Ok(key.to_text().to_string())
}
