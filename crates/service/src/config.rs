//! Layered configuration, one document for all processes.
//!
//! Layers, the later one wins:
//!
//! 1. the commented defaults that every crate embeds ([`Defaults`]); they also *declare* which keys exist,
//! 2. a TOML file, named by `--config` or `LEADMILL_CONFIG`,
//! 3. environment variables,
//! 4. options of the command line ([`Loader::option`]).
//!
//! # Environment variables
//!
//! The key `mailer.smtp.host` is set by `LEADMILL_MAILER_SMTP_HOST`: the key in upper case, its parts joined by `_`.
//! A variable is matched against the declared keys, so nothing is guessed from underscores; two keys that would share a
//! variable are refused as a defect of the defaults. A few well known names are aliases, which the long name
//! beats: see [`ALIASES`].
//!
//! In Kubernetes, set `enableServiceLinks: false`: otherwise a Service named `leadmill-…` puts variables of its own into every
//! pod, and they are refused as unknown.
//!
//! Every one of them also exists with `_FILE` at its end; then the value is the content of the named file, without the
//! line break at its end (the way of container secrets). An empty variable counts as not set. Lists are separated by commas.
//!
//! # What is refused
//!
//! A key of the file, or a `LEADMILL_*` variable, that no defaults declare is refused by name, with the nearest declared one.
//! `LEADMILL_STACK_*` and `LEADMILL_TEST_*` belong to the scripts and tests around the programs and are left alone.
//! Sections of other services ([`SERVICE_SECTIONS`]) may stand in the shared file; a process checks only what it declares,
//! and `leadmill`, which declares everything, checks all.
//! A value of the wrong kind is refused with its key, where it came from, what was found (never for a secret) and what is allowed.
//!
//! # Adding a section
//!
//! Write a commented TOML text that gives **every** key a default (an empty string for an optional one, an empty table for
//! one that takes any keys), a struct with `#[serde(deny_unknown_fields)]` to read it into, and list the keys that hold secrets.
//! Fields are `Option<T>` where an empty text means "not set". Avoid `#[serde(flatten)]` and untagged enums: they hide from
//! the reader which type is wanted, and text from the environment can then only be a string.

mod common;
mod document;
mod env;
mod error;
mod loader;
mod reader;
mod secret;
mod suggest;
mod tree;
mod units;

pub use common::{
    AdminConfig, AmqpConfig, COMMON_DEFAULTS, DatabaseConfig, LogConfig, LogFormat, ReconcilerSection, RuntimeConfig,
    StatementCache, TelemetryConfig, VaultConfig,
};
pub use document::{Document, Setting};
pub use env::ALIASES;
pub use error::ConfigError;
pub use loader::{Defaults, Loader, SERVICE_SECTIONS, process_environment};
pub use secret::Secret;
pub use tree::Origin;
pub use units::{duration, size};
