//! The section `[enricher]` of the configuration.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use service::config::{ConfigError, Defaults, Document, Secret};

/// The commented defaults of the section.
pub const DEFAULTS: Defaults =
    Defaults { name: "enricher", text: include_str!("defaults.toml"), secrets: &["enricher.model.api_key"] };

/// `[enricher]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnricherConfig {
    /// Where the admin server listens; read by the runner of the process.
    pub admin_listen: std::net::SocketAddr,
    /// Who analyses leads.
    pub provider: ProviderChoice,
    /// Leads in work at the same time.
    pub concurrency: NonZeroUsize,
    /// Enrichments written in one transaction, at most.
    pub max_batch: NonZeroUsize,
    /// `[enricher.model]`.
    pub model: ModelConfig,
}

/// Who analyses leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderChoice {
    /// The built-in analyser.
    Local,
    /// A chat model behind an OpenAI-compatible API.
    OpenAi,
}

/// A field of a profile that may be sent to a model. There is none for addresses, links and handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileField {
    /// The network.
    Source,
    /// The display name.
    Name,
    /// The bio, without addresses, phone numbers, links and handles.
    Bio,
    /// The number of followers.
    FollowerCount,
    /// Whether the network vouches for the identity.
    Verified,
    /// Where they say they are.
    Location,
    /// The country.
    Country,
}

/// The parameter that limits an answer's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensParameter {
    /// The old name.
    MaxTokens,
    /// What reasoning models ask for.
    MaxCompletionTokens,
}

impl MaxTokensParameter {
    /// Its name in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// `[enricher.model]`: the client of a chat model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The API's base; `/chat/completions` is added.
    #[serde(deserialize_with = "http_url")]
    pub base_url: String,
    /// The model's name; needed when it is used.
    pub name: Option<String>,
    /// The bearer key.
    pub api_key: Option<Secret<String>>,
    /// 0 to 2.
    #[serde(deserialize_with = "temperature")]
    pub temperature: f64,
    /// The most tokens of an answer.
    pub max_tokens: NonZeroU32,
    /// How the request calls that.
    pub max_tokens_parameter: MaxTokensParameter,
    /// Whether the temperature is sent.
    pub send_temperature: bool,
    /// Whether `response_format` is sent.
    pub send_response_format: bool,
    /// Whether a model may write sentences of its own for the mail.
    pub free_text: bool,
    /// Which fields of a profile are sent.
    pub fields: BTreeSet<ProfileField>,
    /// Requests at the same time.
    pub concurrency: NonZeroUsize,
    /// Limit for opening a connection.
    #[serde(with = "service::config::duration")]
    pub connect_timeout: Duration,
    /// Limit of one request, its answer included.
    #[serde(with = "service::config::duration")]
    pub timeout: Duration,
    /// Largest answer that is read, in bytes.
    #[serde(with = "service::config::size")]
    pub max_body: u64,
    /// Tries of one request.
    pub max_attempts: NonZeroU32,
    /// The first pause between two tries.
    #[serde(with = "service::config::duration")]
    pub initial_backoff: Duration,
    /// The longest pause that the client chooses itself.
    #[serde(with = "service::config::duration")]
    pub max_backoff: Duration,
    /// Limit of everything that is done for one lead.
    #[serde(with = "service::config::duration")]
    pub total_time: Duration,
    /// How much longer than that a lead is claimed.
    #[serde(with = "service::config::duration")]
    pub claim_slack: Duration,
    /// The share of failed requests that opens the breaker, above 0, up to 1.
    #[serde(deserialize_with = "rate")]
    pub breaker_failure_rate: f32,
    /// Over how many requests that share is counted.
    pub breaker_window: NonZeroUsize,
    /// How long no request is made then.
    #[serde(with = "service::config::duration")]
    pub breaker_pause: Duration,
    /// Tokens a day; 0 means no limit.
    pub daily_token_limit: u64,
}

impl ModelConfig {
    /// How long a lead is claimed: for everything that may be done for it, and for storing what came of it.
    pub fn claim_life(&self) -> Duration {
        self.total_time.saturating_add(self.claim_slack)
    }
}

impl EnricherConfig {
    /// Reads the section and checks what only two keys together can tell.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key, its origin and what is allowed.
    pub fn read(document: &Document) -> Result<Self, ConfigError> {
        let config: Self = document.section("enricher")?;
        if config.provider == ProviderChoice::OpenAi && config.model.name.is_none() {
            let problem = "with `enricher.provider = \"openai\"` it must name a model that the API offers";
            return Err(document.refuse("enricher.model.name", problem));
        }
        if config.model.max_body == 0 {
            return Err(document.refuse("enricher.model.max_body", "it must be at least 1 byte"));
        }
        Ok(config)
    }
}

fn http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    if is_http && reqwest::Url::parse(&url).is_ok() {
        Ok(url.trim_end_matches('/').to_owned())
    } else {
        Err(de::Error::custom("expected a URL that begins with http:// or https://"))
    }
}

fn temperature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let temperature = f64::deserialize(deserializer)?;
    if (0.0..=2.0).contains(&temperature) {
        Ok(temperature)
    } else {
        Err(de::Error::custom("expected a number from 0.0 to 2.0"))
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let rate = f32::deserialize(deserializer)?;
    if rate > 0.0 && rate <= 1.0 { Ok(rate) } else { Err(de::Error::custom("expected a number above 0.0, up to 1.0")) }
}

#[cfg(test)]
mod tests {
    use service::config::Loader;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<EnricherConfig, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EnricherConfig::read(&Loader::new().defaults(&[DEFAULTS]).env(variables).load()?)
    }

    #[test]
    fn the_defaults_need_no_key_and_no_model() {
        let config = read(&[]).unwrap();
        assert_eq!(config.provider, ProviderChoice::Local);
        assert_eq!((config.model.name, config.model.api_key), (None, None));
        assert!((config.model.temperature - 0.3).abs() < f64::EPSILON);
        assert_eq!(config.model.max_tokens.get(), 500);
        assert!(!config.model.fields.contains(&ProfileField::Name));
        assert!(!config.model.free_text);
    }

    #[test]
    fn a_model_must_be_named_to_be_used() {
        let error = read(&[("LEADMILL_ENRICHER_PROVIDER", "openai")]).unwrap_err().to_string();
        assert!(error.contains("enricher.model.name"), "{error}");
        let named = [("LEADMILL_ENRICHER_PROVIDER", "openai"), ("LEADMILL_ENRICHER_MODEL_NAME", "small-1")];
        assert_eq!(read(&named).unwrap().model.name.as_deref(), Some("small-1"));
    }

    #[test]
    fn an_address_can_not_be_asked_to_leave_the_house() {
        let error = read(&[("LEADMILL_ENRICHER_MODEL_FIELDS", "bio,email")]).unwrap_err().to_string();
        assert!(error.contains("enricher.model.fields") && error.contains("email"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (variable, value, key) in [
            ("LEADMILL_ENRICHER_MODEL_TEMPERATURE", "3", "enricher.model.temperature"),
            ("LEADMILL_ENRICHER_MODEL_BREAKER_FAILURE_RATE", "0", "enricher.model.breaker_failure_rate"),
            ("LEADMILL_ENRICHER_MODEL_BASE_URL", "ftp://example.com", "enricher.model.base_url"),
            ("LEADMILL_ENRICHER_MODEL_MAX_BODY", "0", "enricher.model.max_body"),
            ("LEADMILL_ENRICHER_CONCURRENCY", "0", "enricher.concurrency"),
            ("LEADMILL_ENRICHER_PROVIDER", "chatgpt", "enricher.provider"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
