//! Which environment variable sets which key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::suggest::nearest;
use super::tree::{Origin, Table};
use super::{ConfigError, SERVICE_SECTIONS};

/// Names that are used in the wild, and the keys they set. The long name (`LEADMILL_DATABASE_URL`) beats its alias.
pub const ALIASES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("DATABASE_DIRECT_URL", "database.direct_url"),
    ("AMQP_URL", "amqp.url"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("RUST_LOG", "log.filter"),
    ("LEADMILL_MASTER_KEY", "vault.master_key"),
    ("LEADMILL_OLD_MASTER_KEYS", "vault.old_master_keys"),
    ("LEADMILL_WORKER_THREADS", "runtime.worker_threads"),
];

/// Names the configuration file; it isn't a key of the document.
pub(super) const CONFIG_VARIABLE: &str = "LEADMILL_CONFIG";

/// Variables of the scripts and tests around the programs, which stand in the same environment and configure no program.
const TOOLS: [&str; 2] = ["LEADMILL_STACK_", "LEADMILL_TEST_"];

const PREFIX: &str = "LEADMILL_";
const FILE_SUFFIX: &str = "_FILE";

/// Lays the environment over the document.
pub(super) fn apply(document: &mut Table, variables: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let keys = document.keys();
    let long_names = long_names(&keys)?;
    refuse_unknown(document, variables, &long_names)?;
    let aliases = ALIASES.iter().map(|(variable, key)| (*variable, *key));
    let long_names = long_names.iter().map(|(variable, key)| (variable.as_str(), *key));
    for (variable, key) in aliases.chain(long_names) {
        if let Some((text, origin)) = value_of(variable, variables)? {
            document.set_text(key, text, origin);
        }
    }
    Ok(())
}

/// The long name of every key. Two keys with the same one are a defect of the defaults.
fn long_names(keys: &[String]) -> Result<BTreeMap<String, &str>, ConfigError> {
    let mut names = BTreeMap::new();
    for key in keys {
        let name = variable_name(key);
        if let Some(other) = names.insert(name.clone(), key.as_str()) {
            let problem = format!("{name} would also set `{other}`");
            return Err(ConfigError::Defaults { key: key.clone(), problem });
        }
    }
    Ok(names)
}

fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

/// The value that `variable`, or the file that `variable_FILE` names, gives. Empty means not set: container tools pass
/// `${NAME:-}` on as an empty string.
fn value_of(variable: &str, variables: &BTreeMap<String, String>) -> Result<Option<(String, Origin)>, ConfigError> {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let file_variable = format!("{variable}{FILE_SUFFIX}");
    match (set(variable), set(&file_variable)) {
        (Some(_), Some(_)) => Err(ConfigError::Conflict { name: variable.to_owned() }),
        (Some(text), None) => Ok(Some((text.clone(), Origin::Variable(variable.to_owned())))),
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::VariableFile {
                name: file_variable.clone(),
                path: path.clone(),
                source,
            })?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            Ok(Some((text.to_owned(), Origin::VariableFile(file_variable, path))))
        }
        (None, None) => Ok(None),
    }
}

fn refuse_unknown(
    document: &Table,
    variables: &BTreeMap<String, String>,
    long_names: &BTreeMap<String, &str>,
) -> Result<(), ConfigError> {
    let elsewhere: Vec<String> = SERVICE_SECTIONS
        .iter()
        .filter(|section| !document.entries.contains_key(**section))
        .map(|section| format!("{}_", variable_name(section)))
        .chain(TOOLS.map(str::to_owned))
        .collect();
    let known = || {
        let aliases = ALIASES.iter().map(|(variable, _)| *variable);
        long_names.keys().map(String::as_str).chain(aliases).chain([CONFIG_VARIABLE])
    };
    for name in variables.keys().filter(|name| name.starts_with(PREFIX)) {
        let stem = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
        let is_known = known().any(|known| known == name || known == stem);
        if !is_known && !elsewhere.iter().any(|prefix| name.starts_with(prefix)) {
            let suggestion = nearest(name, known()).map(str::to_owned);
            return Err(ConfigError::UnknownVariable { name: name.clone(), suggestion });
        }
    }
    Ok(())
}
