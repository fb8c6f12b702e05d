//! The merged configuration, to be read section by section.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;

use super::tree::{Leaf, Node, Table, show};
use super::{ConfigError, Origin, reader};

/// What errors and listings show in place of a secret.
pub(super) const HIDDEN: &str = "a value that is not shown";

/// The merged configuration. Reading a section checks its values.
#[derive(Clone)]
pub struct Document {
    tree: Table,
    secrets: BTreeSet<&'static str>,
}

/// One effective setting, as `leadmill doctor` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The whole key.
    pub key: String,
    /// The value in TOML's notation, or `***` for a secret that is set.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Document {
    pub(super) fn new(tree: Table, secrets: BTreeSet<&'static str>) -> Self {
        Self { tree, secrets }
    }

    /// Reads a whole section, such as `mailer`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a value that isn't allowed, [`ConfigError::Defaults`] if type and defaults don't fit each other.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        self.get(name)
    }

    /// Reads a single value or table at a dotted key, such as `collector.admin_listen`.
    ///
    /// # Errors
    /// Like [`Document::section`].
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        let node = self.tree.node(key).ok_or_else(|| ConfigError::Defaults {
            key: key.to_owned(),
            problem: "this program reads it, but nothing declares it".to_owned(),
        })?;
        reader::read(node, key, &|key| self.is_secret(key))
    }

    /// An error that refuses the value at `key` for a reason that only its user knows (a rule between two keys, say).
    /// `problem` says what is allowed, and never repeats a secret.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let problem = problem.into();
        match self.tree.node(key) {
            Some(Node::Leaf(Leaf { value, origin })) => {
                let found = if self.is_secret(key) { HIDDEN.to_owned() } else { show(value) };
                ConfigError::Value { key: key.to_owned(), found, origin: origin.clone(), problem }
            }
            _ => ConfigError::Missing { key: key.to_owned(), hint: problem },
        }
    }

    /// Every effective setting with its origin, secrets masked.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        self.tree.visit("", &mut |key, leaf| {
            let shown = show(&leaf.value);
            let is_set = !matches!(shown.as_str(), "\"\"" | "[]");
            let value = if is_set && self.is_secret(key) { "***".to_owned() } else { shown };
            settings.push(Setting { key: key.to_owned(), value, origin: leaf.origin.clone() });
        });
        settings
    }

    /// Whether the value at a key must not be shown: declared so, or named like one. The second rule is a net for a
    /// secret that someone forgot to declare, and for keys of open tables.
    fn is_secret(&self, key: &str) -> bool {
        let lower = key.to_ascii_lowercase();
        self.secrets.contains(key)
            || ["password", "secret", "token", "api_key", "api-key", "authorization", "credentials"]
                .iter()
                .any(|word| lower.ends_with(word))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.settings()).finish()
    }
}
