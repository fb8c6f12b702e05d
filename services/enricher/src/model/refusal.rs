//! Why an API refuses our requests, as far as its error tells: which parameter it doesn't take, and which setting cures that.
//! Only words of ours are kept; the API's own text never reaches a log.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What an API refuses us for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It doesn't take `max_tokens`.
    MaxTokens,
    /// It doesn't take `max_completion_tokens`.
    MaxCompletionTokens,
    /// It takes that parameter, but not so many tokens.
    TooManyTokens,
    /// It doesn't take `temperature`, or not this one.
    Temperature,
    /// It doesn't take `response_format`.
    ResponseFormat,
    /// It doesn't know the model.
    Model,
    /// It doesn't take the key.
    Key,
    /// The account has no money left.
    Credit,
    /// There is no such API at this address.
    Address,
    /// It doesn't say, or in no way that is known here.
    Unknown,
}

/// The parameters of a request that a model may not take, by their names.
static PARAMETER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"max_completion_tokens|max_tokens|temperature|response_format").expect("the pattern is valid")
});
/// How an API says that a value is too large, rather than unknown.
static TOO_LARGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)too large|at most|less than|exceed|maximum (?:allowed|value)|must be (?:<|less)|supports at most")
        .expect("the pattern is valid")
});

impl Refusal {
    /// Reads what a status and the body of an error tell.
    pub(super) fn read(status: u16, body: &Value) -> Self {
        let error = &body["error"];
        let message =
            text(&error["message"]).or_else(|| text(error)).or_else(|| text(&body["message"])).unwrap_or_default();
        let code = text(&error["code"]).or_else(|| text(&error["type"])).unwrap_or_default();
        match status {
            401 | 403 => return Self::Key,
            402 => return Self::Credit,
            300..=399 => return Self::Address,
            _ if is_quota(error) => return Self::Credit,
            _ if code == "model_not_found" || code == "DeploymentNotFound" => return Self::Model,
            _ => {}
        }
        // Validators that name no parameter name the place instead: `detail: [{"loc": ["body", "response_format"]}]`.
        let place = body["detail"].as_array().and_then(|all| all.first()).and_then(|first| first["loc"].as_array());
        let place = place.and_then(|path| path.last()).and_then(Value::as_str);
        let named = text(&error["param"]).or(place);
        if named == Some("model") {
            return Self::Model;
        }
        let named = named.and_then(|text| PARAMETER.find(text)).or_else(|| PARAMETER.find(message));
        match named.map(|found| found.as_str()) {
            Some("max_tokens" | "max_completion_tokens") if TOO_LARGE.is_match(message) => Self::TooManyTokens,
            Some("max_tokens") => Self::MaxTokens,
            Some("max_completion_tokens") => Self::MaxCompletionTokens,
            Some("temperature") => Self::Temperature,
            Some("response_format") => Self::ResponseFormat,
            _ if status == 404 => Self::Address,
            _ => Self::Unknown,
        }
    }

    /// The parameter of the request, where it is one.
    pub const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::MaxTokens | Self::TooManyTokens => Some("max_tokens"),
            Self::MaxCompletionTokens => Some("max_completion_tokens"),
            Self::Temperature => Some("temperature"),
            Self::ResponseFormat => Some("response_format"),
            Self::Model => Some("model"),
            Self::Key | Self::Credit | Self::Address | Self::Unknown => None,
        }
    }

    /// A short word for the database and for metrics; `None` when nothing is known.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::TooManyTokens => Some("too_many_tokens"),
            Self::Key => Some("key"),
            Self::Credit => Some("credit"),
            Self::Address => Some("address"),
            Self::Unknown => None,
            parameter => parameter.parameter(),
        }
    }

    /// The refusal with this name.
    pub fn named(name: &str) -> Option<Self> {
        const ALL: [Refusal; 9] = [
            Refusal::MaxTokens,
            Refusal::MaxCompletionTokens,
            Refusal::TooManyTokens,
            Refusal::Temperature,
            Refusal::ResponseFormat,
            Refusal::Model,
            Refusal::Key,
            Refusal::Credit,
            Refusal::Address,
        ];
        ALL.into_iter().find(|refusal| refusal.name() == Some(name))
    }

    /// What to change.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::MaxTokens => "set enricher.model.max_tokens_parameter = \"max_completion_tokens\"",
            Self::MaxCompletionTokens => "set enricher.model.max_tokens_parameter = \"max_tokens\"",
            Self::TooManyTokens => "set enricher.model.max_tokens to what the model allows",
            Self::Temperature => "set enricher.model.send_temperature = false",
            Self::ResponseFormat => "set enricher.model.send_response_format = false",
            Self::Model => "set enricher.model.name to a model that the API offers",
            Self::Key => {
                "check enricher.model.api_key (LEADMILL_ENRICHER_MODEL_API_KEY_FILE) and what it may be used for"
            }
            Self::Credit => "the account has no money or quota left: top it up, or raise its limit",
            Self::Address => "check enricher.model.base_url and enricher.model.name",
            Self::Unknown => "check enricher.model.api_key, .name, .base_url, and which parameters the model takes",
        }
    }
}

/// `the parameter max_tokens`, for people.
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.parameter()) {
            (Self::TooManyTokens, _) => f.write_str("the value of the parameter max_tokens"),
            (_, Some(parameter)) => write!(f, "the parameter {parameter}"),
            (Self::Key, None) => f.write_str("the key"),
            (Self::Credit, None) => f.write_str("an account without credit"),
            (Self::Address, None) => f.write_str("the address"),
            _ => f.write_str("the requests"),
        }
    }
}

/// Whether an error says that the account is out of money or quota, which no waiting heals.
pub(super) fn is_quota(error: &Value) -> bool {
    [&error["code"], &error["type"]]
        .into_iter()
        .any(|slug| *slug == "insufficient_quota" || *slug == "billing_hard_limit_reached")
}

/// Whether an error is about the content of this one request: a filter of the prompt or of the answer.
pub(super) fn is_content_filter(error: &Value) -> bool {
    const SLUGS: [&str; 7] = [
        "content_filter",
        "content_policy_violation",
        "ResponsibleAIPolicyViolation",
        "content_filtered",
        "moderation_blocked",
        "data_inspection_failed",
        "sensitive_words_detected",
    ];
    let slugs = [&error["code"], &error["type"], &error["innererror"]["code"], &error["inner_error"]["code"]];
    slugs.into_iter().filter_map(Value::as_str).any(|slug| SLUGS.contains(&slug))
        // A router's moderation: what it flagged stands beside the error.
        || error["metadata"].get("flagged_input").is_some()
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_refused_parameter_and_its_cure_are_named() {
        for (status, body, expected, setting) in [
            (
                400,
                json!({ "error": { "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter" } }),
                Refusal::MaxTokens,
                "max_tokens_parameter = \"max_completion_tokens\"",
            ),
            (
                400,
                json!({ "error": { "message": "Unsupported value: 'temperature' does not support 0.3 with this model.", "param": "temperature", "code": "unsupported_value" } }),
                Refusal::Temperature,
                "send_temperature = false",
            ),
            (
                400,
                json!({ "error": { "message": "Unrecognized request argument supplied: max_completion_tokens", "param": null } }),
                Refusal::MaxCompletionTokens,
                "max_tokens_parameter = \"max_tokens\"",
            ),
            (
                422,
                json!({ "detail": [{ "loc": ["body", "response_format"], "msg": "extra fields not permitted" }] }),
                Refusal::ResponseFormat,
                "send_response_format = false",
            ),
            (
                400,
                json!({ "error": { "message": "max_tokens is too large: 50000. This model supports at most 4096 completion tokens" } }),
                Refusal::TooManyTokens,
                "model.max_tokens ",
            ),
            (
                404,
                json!({ "error": { "message": "The model `x` does not exist", "code": "model_not_found" } }),
                Refusal::Model,
                "model.name",
            ),
            (404, json!("not found"), Refusal::Address, "base_url"),
            (
                400,
                json!({ "message": "This model does not support temperature" }),
                Refusal::Temperature,
                "send_temperature = false",
            ),
            (401, json!(null), Refusal::Key, "api_key"),
            (429, json!({ "error": { "code": "insufficient_quota" } }), Refusal::Credit, "top it up"),
            (400, json!({ "error": "bad" }), Refusal::Unknown, "parameters"),
        ] {
            let refusal = Refusal::read(status, &body);
            assert_eq!(refusal, expected, "{body}");
            assert!(refusal.advice().contains(setting), "{}", refusal.advice());
            assert_eq!(refusal.name().and_then(Refusal::named), refusal.name().map(|_| refusal));
        }
    }

    #[test]
    fn a_content_filter_is_told_from_a_refusal_of_ours() {
        assert!(is_content_filter(&json!({ "code": "content_filter", "param": "prompt" })));
        assert!(is_content_filter(&json!({ "code": null, "innererror": { "code": "ResponsibleAIPolicyViolation" } })));
        assert!(is_content_filter(&json!({ "code": 403, "metadata": { "flagged_input": "x" } })));
        assert!(!is_content_filter(&json!({ "code": "unsupported_parameter", "param": "max_tokens" })));
    }
}
