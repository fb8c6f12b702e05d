//! What can be wrong with a configuration, said so that the reader can put it right.

use std::io;
use std::path::PathBuf;

use super::Origin;

/// A configuration that can't be used. It ends a program with status 2.
///
/// No variant ever carries the value of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration file can't be read.
    #[error("the configuration file {} can't be read", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file isn't TOML. The offending line isn't repeated, since it may hold a secret.
    #[error("the configuration file {} is not valid TOML, line {line}: {problem}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// The parser's words.
        problem: String,
    },
    /// A key that nothing declares.
    #[error("unknown key `{key}` in {origin}{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The whole key, joined by dots.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The nearest declared key.
        suggestion: Option<String>,
    },
    /// A `LEADMILL_*` environment variable that belongs to no declared key.
    #[error("unknown environment variable {name}{}", did_you_mean(suggestion.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest known variable.
        suggestion: Option<String>,
    },
    /// A variable and its `_FILE` sibling are both set.
    #[error("{name} and {name}_FILE are both set; keep one of them")]
    Conflict {
        /// The variable without `_FILE`.
        name: String,
    },
    /// The file that a `_FILE` variable names can't be read.
    #[error("the file {} that {name} names can't be read", path.display())]
    VariableFile {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value that isn't allowed.
    #[error("`{key}` is {found} ({origin}): {problem}")]
    Value {
        /// The whole key.
        key: String,
        /// What was found, or a note that it isn't shown.
        found: String,
        /// Where it came from.
        origin: Origin,
        /// What is allowed.
        problem: String,
    },
    /// A value that has no default and wasn't given.
    #[error("`{key}` is not set: {hint}")]
    Missing {
        /// The whole key.
        key: String,
        /// How to set it.
        hint: String,
    },
    /// The program's own embedded defaults are wrong, or don't fit the type that reads them.
    #[error("the embedded defaults are wrong at `{key}`: {problem}")]
    Defaults {
        /// The key, or the name of the defaults.
        key: String,
        /// In which way.
        problem: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
