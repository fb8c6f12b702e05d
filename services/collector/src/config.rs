//! `[collector]`.

use std::{net::SocketAddr, time::Duration};

use domain::program::Slug;
use serde::{Deserialize, Deserializer, de};
use service::config::{ConfigError, Defaults, Document, duration, size};

use crate::source::simulated::SimulationMix;

/// The section's commented defaults.
pub const DEFAULTS: Defaults = Defaults { name: "collector", text: include_str!("config.toml"), secrets: &[] };

/// `[collector]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorConfig {
    /// Where the HTTP ingest listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the admin server listens when the collector runs alone.
    pub admin_listen: SocketAddr,
    /// The largest body of a request, in bytes.
    #[serde(with = "size")]
    pub body_limit: u64,
    /// How long a client may take to send its request.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Made-up creators; for demonstrations.
    pub simulate: SimulateConfig,
}

/// `[collector.simulate]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulateConfig {
    /// The program to collect for; none are made up without one.
    #[serde(deserialize_with = "slug")]
    pub program: Option<Slug>,
    /// Rows per second, more than 0.
    pub rate: f64,
    /// Tells one population from another.
    pub seed: u64,
    /// The share of duplicates.
    pub duplicates: f64,
    /// The share of rows with a value that isn't what it claims to be.
    pub junk: f64,
    /// The share of rows that lack something.
    pub missing: f64,
    /// The share of creators who try to break something.
    pub hostile: f64,
}

impl CollectorConfig {
    /// Reads and checks the section.
    ///
    /// # Errors
    /// A wrong value, named with its key.
    pub fn read(document: &Document) -> Result<Self, ConfigError> {
        let config: Self = document.section("collector")?;
        if config.simulate.rate.is_nan() || config.simulate.rate <= 0.0 || config.simulate.rate > 100_000.0 {
            return Err(document.refuse("collector.simulate.rate", "expected a number above 0, at most 100000"));
        }
        if config.simulate.mix().check().is_err() {
            let problem = "expected shares from 0.0 to 1.0 that are at most 1.0 together";
            return Err(document.refuse("collector.simulate.duplicates", problem));
        }
        if config.body_limit == 0 {
            return Err(document.refuse("collector.body_limit", "expected at least one byte"));
        }
        Ok(config)
    }
}

impl SimulateConfig {
    /// The mix.
    pub const fn mix(&self) -> SimulationMix {
        SimulationMix { duplicates: self.duplicates, junk: self.junk, missing: self.missing, hostile: self.hostile }
    }
}

fn slug<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Slug>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.filter(|text| !text.is_empty()).map(|text| text.parse().map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::config::Loader;

    fn load(variables: &[(&str, &str)]) -> Result<CollectorConfig, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        CollectorConfig::read(&Loader::new().defaults(&[DEFAULTS]).env(variables).load()?)
    }

    #[test]
    fn the_defaults_are_a_valid_section() {
        let config = load(&[]).unwrap();
        assert_eq!(config.body_limit, 2 * 1024 * 1024);
        assert_eq!(config.simulate.program, None);
        assert_eq!(config.simulate.mix(), SimulationMix::default());
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value, key) in [
            ("LEADMILL_COLLECTOR_SIMULATE_PROGRAM", "No Slug", "collector.simulate.program"),
            ("LEADMILL_COLLECTOR_SIMULATE_RATE", "-1", "collector.simulate.rate"),
            ("LEADMILL_COLLECTOR_SIMULATE_DUPLICATES", "2.0", "collector.simulate.duplicates"),
        ] {
            assert!(load(&[(name, value)]).unwrap_err().to_string().contains(key), "{key}");
        }
    }
}
