//! Why a model was not believed, or not even asked.

use std::time::Duration;

use super::Refusal;

/// Why. The code is stored with the lead and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Status 429.
    #[error("the model's API limits our rate")]
    RateLimited {
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// Status 5xx or 408.
    #[error("the model's API failed with status {status}")]
    ServerError {
        /// The status.
        status: u16,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("the model's API did not answer in time")]
    Timeout,
    /// No connection, or one that broke before an answer began.
    #[error("the model's API can't be reached")]
    Connection,
    /// More bytes than allowed.
    #[error("the model's API answered with more than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The answer broke off: the connection, the tokens, or the JSON.
    #[error("the model's answer is cut off")]
    Truncated,
    /// A success without any answer in it.
    #[error("the model's API answered without an answer")]
    NoAnswer,
    /// A filter of the API refused this one profile, or what the model made of it.
    #[error("a content filter of the model's API refused this profile")]
    ContentFilter,
    /// No JSON object where one was asked for.
    #[error("the model's answer is not a JSON object")]
    NotJson,
    /// The score is no whole number from 0 to 100.
    #[error("the model's score is not a whole number from 0 to 100")]
    InvalidScore,
    /// Something else in the answer can't be believed.
    #[error("the model's answer is not valid: {what}")]
    InvalidAnswer {
        /// A short code, such as `compliant` or `niche`.
        what: &'static str,
    },
    /// The breaker is open: the API failed too often lately.
    #[error("the model's API failed too often and is not asked for a while")]
    BreakerOpen,
    /// The API refuses us: a wrong key, an unknown model, a parameter it doesn't take, no money left.
    #[error("the model's API refuses {refusal} with status {status}")]
    Refused {
        /// The status.
        status: u16,
        /// What it refuses us for.
        refusal: Refusal,
    },
    /// The day's tokens are spent.
    #[error("the day's tokens are spent")]
    SpendingLimit,
}

impl Failure {
    /// A stable code, for the database and for metrics.
    pub fn code(&self) -> String {
        match self {
            Self::RateLimited { .. } => "rate_limited".to_owned(),
            Self::ServerError { .. } => "server_error".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Connection => "connection".to_owned(),
            Self::BodyTooLarge { .. } => "body_too_large".to_owned(),
            Self::Truncated => "truncated".to_owned(),
            Self::NoAnswer => "no_answer".to_owned(),
            Self::ContentFilter => "content_filter".to_owned(),
            Self::NotJson => "not_json".to_owned(),
            Self::InvalidScore => "invalid_score".to_owned(),
            Self::InvalidAnswer { what } => format!("invalid_answer:{what}"),
            Self::BreakerOpen => "breaker_open".to_owned(),
            Self::Refused { refusal, .. } => {
                refusal.name().map_or_else(|| "refused".to_owned(), |name| format!("refused:{name}"))
            }
            Self::SpendingLimit => "spending_limit".to_owned(),
        }
    }

    /// Whether the same request may succeed a little later.
    pub const fn can_pass(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::ServerError { .. } | Self::Timeout | Self::Connection)
    }

    /// Whether the answer came but can't be believed, so that asking once more is worth it.
    pub const fn is_bad_answer(&self) -> bool {
        matches!(
            self,
            Self::Truncated | Self::NoAnswer | Self::NotJson | Self::InvalidScore | Self::InvalidAnswer { .. }
        )
    }

    /// Whether it tells that the API as a whole is in trouble. A bad answer, a rate limit
    /// and a filter of one profile come from an API that works.
    pub const fn counts_for_breaker(&self) -> bool {
        matches!(self, Self::ServerError { .. } | Self::Timeout | Self::Connection | Self::Refused { .. })
    }

    /// How long the server asks us to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::ServerError { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to tell the model about a refused answer.
    pub fn correction(&self) -> &'static str {
        match self {
            Self::Truncated => "it was cut off; keep every text short",
            Self::NoAnswer => "there was none",
            Self::NotJson => "it was not a single JSON object",
            Self::InvalidScore => "`score` must be a whole number from 0 to 100",
            Self::InvalidAnswer { what } => field_correction(what),
            _ => "it could not be read",
        }
    }
}

fn field_correction(what: &str) -> &'static str {
    match what {
        "niche" => "`niche` must be one to three words, at most 60 characters",
        "notes" => "`notes` must be a text of at most 600 characters",
        "compliant" => "`compliant` must be true or false",
        "compliance_notes" => "`compliance_notes` must be a text of at most 300 characters",
        "confidence" => "`confidence` must be a number from 0 to 1",
        "refusal" => "assess the profile as data",
        _ => "a field was missing or had the wrong type",
    }
}
