//! Puts the layers together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::env::{self, CONFIG_VARIABLE};
use super::tree::{FileLayer, Origin, Table};
use super::{COMMON_DEFAULTS, ConfigError, Document};

/// Sections of the shared document that belong to one service each. A process that doesn't declare one of them
/// skips it, in the file and in the environment, instead of refusing it.
pub const SERVICE_SECTIONS: &[&str] = &["collector", "enricher", "mailer", "console"];

/// A crate's part of the defaults: a commented TOML text in which every key of its section has a value.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Whose defaults these are, for messages and listings.
    pub name: &'static str,
    /// The TOML text. Its tables become the sections, its keys are the only ones allowed.
    pub text: &'static str,
    /// The whole keys (`mailer.smtp.password`) whose values never print.
    pub secrets: &'static [&'static str],
}

/// Collects the layers of a configuration and merges them into a [`Document`].
///
/// [`COMMON_DEFAULTS`] are always part of it.
#[derive(Debug)]
pub struct Loader {
    defaults: Vec<Defaults>,
    file: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    options: Vec<(&'static str, String, String)>,
}

impl Default for Loader {
    fn default() -> Self {
        Self { defaults: vec![COMMON_DEFAULTS], file: None, variables: BTreeMap::new(), options: Vec::new() }
    }
}

impl Loader {
    /// A loader with the common defaults only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the defaults of the crates that this process consists of.
    pub fn defaults(mut self, defaults: &[Defaults]) -> Self {
        self.defaults.extend_from_slice(defaults);
        self
    }

    /// Sets the configuration file; `None` leaves it to `LEADMILL_CONFIG`, and to no file at all if that isn't set.
    pub fn file(mut self, path: Option<&Path>) -> Self {
        self.file = path.map(Path::to_owned);
        self
    }

    /// Sets the environment; [`process_environment`] is the real one.
    pub fn env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = variables.into_iter().collect();
        self
    }

    /// Sets `key` from an option of the command line, which beats every other layer.
    pub fn option(mut self, option: &'static str, key: &str, value: impl Into<String>) -> Self {
        self.options.push((option, key.to_owned(), value.into()));
        self
    }

    /// Reads the file and merges the layers.
    ///
    /// # Errors
    /// Any [`ConfigError`] but [`ConfigError::Missing`]; values are checked when a section is read.
    pub fn load(self) -> Result<Document, ConfigError> {
        let mut tree = Table::default();
        for defaults in &self.defaults {
            let table = defaults
                .text
                .parse::<toml::Table>()
                .map_err(|error| ConfigError::Defaults { key: defaults.name.to_owned(), problem: error.to_string() })?;
            tree.declare("", table, defaults.name)?;
        }
        let secrets = self.defaults.iter().flat_map(|defaults| defaults.secrets).copied().collect();

        let named = self.variables.get(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = self.file.or(named) {
            let mut layer = FileLayer::read(&path)?;
            layer.table.retain(|section, _| tree.entries.contains_key(section) || !SERVICE_SECTIONS.contains(&section));
            tree.overlay(layer)?;
        }
        env::apply(&mut tree, &self.variables)?;
        for (option, key, value) in self.options {
            if tree.node(&key).is_none() {
                return Err(ConfigError::Defaults {
                    key,
                    problem: format!("{option} sets it, but nothing declares it"),
                });
            }
            tree.set_text(&key, value, Origin::Option(option));
        }
        Ok(Document::new(tree, secrets))
    }
}

/// The environment of this process. Text that isn't UTF-8 is taken with replacement characters, which no key allows
/// where it matters.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}
