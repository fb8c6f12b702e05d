//! A pooler between the services and PostgreSQL: PgBouncer in transaction mode, where there is one
//! (`deploy/pgbouncer.sh`).

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use tempfile::TempDir;
use test_support::{postgres::TestDatabase, witness};
use tokio::process::{Child, Command};

use crate::{
    stack::free_address,
    wait::{PATIENCE, eventually},
};

/// What a PgBouncer does with prepared statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statements {
    /// It passes them on to whichever server connection comes next: all that versions before 1.21 can do.
    Ignored,
    /// It keeps them for each client.
    Tracked,
}

/// A PgBouncer of the test's own, in transaction mode and otherwise as it comes; killed when dropped.
#[derive(Debug)]
pub struct Pooler {
    address: SocketAddr,
    database: String,
    folder: TempDir,
    _server: Child,
}

/// Connections of a pooler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// From the services.
    pub clients: usize,
    /// To PostgreSQL.
    pub servers: usize,
}

impl Pooler {
    /// Starts one in front of `database`, with at most `size` connections to it. `None` where no PgBouncer can do that;
    /// the test then counts as skipped.
    pub async fn start(database: &TestDatabase, size: u32, statements: Statements) -> Option<Self> {
        let Some(program) = program().await else {
            witness::skipped("there is no PgBouncer, and none could be installed");
            return None;
        };
        // An older one refuses a setting that it doesn't know.
        let tracking = match (statements, can_track(&program).await) {
            (Statements::Tracked, false) => {
                witness::skipped("this PgBouncer is older than 1.21 and tracks no prepared statements");
                return None;
            }
            (Statements::Tracked, true) => "max_prepared_statements = 200",
            (Statements::Ignored, true) => "max_prepared_statements = 0",
            (Statements::Ignored, false) => "",
        };
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let settings = format!(
            "[databases]\n{} = {}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 200\n{tracking}\n",
            database.name(),
            target(database.url()),
            address.ip(),
            address.port(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("the folder takes files");
        let log = fs::File::create(folder.path().join("log")).expect("the folder takes files");
        let mut command = Command::new(program);
        if fs::metadata(folder.path()).expect("a folder of ours").uid() == 0 {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let server = command
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the PgBouncer that was found runs");
        let pooler = Self { address, database: database.name().to_owned(), folder, _server: server };
        eventually("PgBouncer answers", PATIENCE, async || {
            let asked = pooler.console().await;
            asked.map(drop).map_err(|error| format!("{error}\n{}", pooler.log()))
        })
        .await;
        Some(pooler)
    }

    /// The database, through the pooler.
    pub fn url(&self) -> String {
        format!("postgres://anybody@{}/{}", self.address, self.database)
    }

    /// How many connections there are at present.
    pub async fn shared(&self) -> Shared {
        let mut console = self.console().await.expect("PgBouncer answers");
        let mut count = async |what: &'static str| {
            let rows = sqlx::raw_sql(what).fetch_all(&mut console).await.expect("a list");
            rows.iter().filter(|row| row.get::<String, _>("database") == self.database).count()
        };
        Shared { clients: count("SHOW CLIENTS").await, servers: count("SHOW SERVERS").await }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its own console, which understands nothing but plain text.
    async fn console(&self) -> Result<PgConnection, sqlx::Error> {
        let url = format!("postgres://anybody@{}/pgbouncer", self.address);
        PgConnection::connect_with(&url.parse::<PgConnectOptions>()?.extra_float_digits(None)).await
    }
}

/// A PgBouncer. `deploy/test.sh` has looked for one already; by hand, its script is asked.
async fn program() -> Option<PathBuf> {
    if let Some(program) = env::var_os("TEST_PGBOUNCER") {
        return Some(program.into());
    }
    if env::var_os("TEST_BIN_DIR").is_some() {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pgbouncer.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().await.ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim().into())
}

/// Whether it is 1.21 or newer.
async fn can_track(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output().await.expect("a PgBouncer tells its version");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(1), Some(21))
}

/// Where a URL leads, as PgBouncer writes it.
fn target(url: &str) -> String {
    let options: PgConnectOptions = url.parse().expect("a URL of ours");
    let socket = options.get_socket().map(|path| path.display().to_string());
    let host = socket.unwrap_or_else(|| options.get_host().to_owned());
    let user = options.get_username();
    let account = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(account, _)| account);
    // An empty one in quotes is a syntax error to it.
    let password = account
        .and_then(|account| account.split_once(':'))
        .map_or(String::new(), |(_, password)| format!(" password='{password}'"));
    format!("host='{host}' port={} user='{user}'{password}", options.get_port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_in_its_url() {
        for (url, expected) in [
            ("postgres://me:pw@host:5433/db", "host='host' port=5433 user='me' password='pw'"),
            ("postgres://me@host/db?sslmode=disable", "host='host' port=5432 user='me'"),
            ("postgres://me@h/db?host=/run/postgresql", "host='/run/postgresql' port=5432 user='me'"),
        ] {
            assert_eq!(target(url), expected);
        }
    }
}
