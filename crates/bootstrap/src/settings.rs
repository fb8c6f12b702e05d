//! What the sections that all processes share become.

use broker::BrokerConfig;
use pipeline::ReconcilerConfig;
use service::config::{AmqpConfig, DatabaseConfig, Document, ReconcilerSection, VaultConfig};
use store::{Db, DbConfig};
use vault::{MasterKey, Vault};

/// The master keys.
///
/// # Errors
/// When there is none, or one isn't a key.
pub fn vault(document: &Document) -> anyhow::Result<Vault> {
    let config: VaultConfig = document.section("vault")?;
    let read = |key: &str, text: &str| {
        text.parse::<MasterKey>()
            .map_err(|_| document.refuse(key, "expected a key as `leadmill keys generate` prints it"))
    };
    let current = read("vault.master_key", config.require_master_key()?.expose())?;
    let older: Result<Vec<MasterKey>, _> =
        config.old_master_keys.iter().map(|key| read("vault.old_master_keys", key.expose())).collect();
    Ok(Vault::new(current, older?))
}

/// The database, under the name by which PostgreSQL shows its connections; opens none yet.
///
/// # Errors
/// When its address isn't one.
pub fn database(document: &Document, application: &str) -> anyhow::Result<Db> {
    let config: DatabaseConfig = document.section("database")?;
    let settings = DbConfig {
        max_connections: config.max_connections.get(),
        acquire_timeout: config.acquire_timeout,
        transaction_timeout: config.transaction_timeout,
        application_name: application.to_owned(),
        cache_statements: config.caches_statements(),
        ..DbConfig::new(config.url.expose())
    };
    // What the parser says may repeat the URL with its password.
    Db::new(&settings).map_err(|_| {
        document.refuse("database.url", "expected a URL such as postgres://user:password@host:5432/database").into()
    })
}

/// How to reach RabbitMQ.
///
/// # Errors
/// When its address isn't one.
pub fn broker(document: &Document) -> anyhow::Result<BrokerConfig> {
    let config: AmqpConfig = document.section("amqp")?;
    let broker = BrokerConfig {
        prefetch: config.prefetch.get(),
        confirm_timeout: config.confirm_timeout,
        connect_timeout: config.connect_timeout,
        ..BrokerConfig::new(config.url.expose()).in_namespace(&config.namespace)
    };
    broker.validate().map_err(|error| document.refuse("amqp.url", error.to_string()))?;
    Ok(broker)
}

/// How eagerly stuck leads are sent again.
///
/// # Errors
/// When a value isn't allowed.
pub fn reconciler(document: &Document) -> anyhow::Result<ReconcilerConfig> {
    let ReconcilerSection { observe_every, rest, grace, again_after } = document.section("reconciler")?;
    Ok(ReconcilerConfig { observe_every, rest, grace, again_after, ..ReconcilerConfig::default() })
}
