//! Reads the body of a response: the completion, or the error that some APIs answer inside of status 200; and what it cost,
//! which is estimated where the API doesn't say.

use std::time::Duration;

use serde_json::Value;

use super::{
    Failure,
    refusal::{Refusal, is_content_filter, is_quota},
};

/// More tokens than any one request can take; a larger number is not believed, since it would use up the day's limit.
const MOST_TOKENS: f64 = 10e6;

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Completion {
    pub content: String,
    /// Tokens of prompt and answer; estimated when the API doesn't tell.
    pub tokens: u64,
    /// Whether the tokens ran out.
    pub cut: bool,
    /// Whether the model, or a filter before it, refused to answer.
    pub refused: bool,
}

/// A request that gave no completion, and the tokens that it cost all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub failure: Failure,
    pub tokens: u64,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, tokens: 0 }
    }
}

/// About four bytes are a token; rather too many than none.
pub(super) fn estimated_tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// Reads the body of a successful status.
pub(super) fn read(bytes: &[u8], prompt_bytes: usize, retry_after: Option<Duration>) -> Result<Completion, Failed> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let body: Value = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof if !bytes.is_empty() => {
            Failed { failure: Failure::Truncated, tokens: estimated_tokens(prompt_bytes + bytes.len()) }
        }
        _ => Failure::NotJson.into(),
    })?;
    let choice = &body["choices"][0];
    let error = [&body["error"], &choice["error"]].into_iter().find(|error| is_error(error));
    if let Some(error) = error {
        let failure = of_error(200, error, &body, retry_after);
        return Err(Failed { failure, tokens: told_tokens(&body["usage"], None).unwrap_or(0) });
    }
    let message = &choice["message"];
    let content = content(&message["content"]);
    let tokens = |answer: &str| {
        let estimate = (estimated_tokens(prompt_bytes), estimated_tokens(answer.len()));
        told_tokens(&body["usage"], Some(estimate)).unwrap_or_else(|| estimated_tokens(prompt_bytes + answer.len()))
    };
    if !message.is_object() {
        return Err(Failed { failure: Failure::NoAnswer, tokens: tokens("") });
    }
    let finish = choice["finish_reason"].as_str();
    Ok(Completion {
        tokens: tokens(&content),
        cut: matches!(finish, Some("length" | "max_tokens")),
        refused: finish == Some("content_filter")
            || message["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty()),
        content,
    })
}

fn is_error(error: &Value) -> bool {
    match error {
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

/// A text, or parts of which some are text.
fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// What the API says it cost. Numbers may be fractions or texts, and the sum may be missing; `estimate` stands in for a
/// missing part beside a known one.
fn told_tokens(usage: &Value, estimate: Option<(u64, u64)>) -> Option<u64> {
    let number = |name: &str| {
        let value = &usage[name];
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
        (0.0..=MOST_TOKENS).contains(&number).then_some(number)
    };
    let parts = (number("prompt_tokens"), number("completion_tokens"));
    let (prompt, answer) = estimate.unwrap_or_default();
    let sum = match parts {
        (None, None) => None,
        (told_prompt, told_answer) => Some(told_prompt.unwrap_or(prompt as f64) + told_answer.unwrap_or(answer as f64)),
    };
    // A total of nothing is what a proxy writes that doesn't count.
    let total = number("total_tokens").filter(|total| *total > 0.0);
    total.or(sum.filter(|sum| *sum > 0.0)).map(|tokens| tokens.ceil() as u64)
}

/// What an error means, with the status of the response or, where the error names one, its own.
pub(super) fn of_error(status: u16, error: &Value, body: &Value, retry_after: Option<Duration>) -> Failure {
    let own = [&error["code"], &error["status"]].into_iter().find_map(status_of);
    let status = own.filter(|_| status == 200).unwrap_or(status);
    let slugs = [&error["code"], &error["type"], &error["status"]];
    let says = |words: &[&str]| slugs.iter().filter_map(|slug| slug.as_str()).any(|slug| words.contains(&slug));
    if is_content_filter(error) {
        return Failure::ContentFilter;
    }
    if is_quota(error) {
        return Failure::Refused { status, refusal: Refusal::Credit };
    }
    match status {
        // An error without a status of its own: what its words say, or else something that may pass.
        200 if says(&["rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "too_many_requests"]) => {
            Failure::RateLimited { retry_after }
        }
        200 if says(&["invalid_request_error", "unsupported_parameter", "invalid_api_key", "authentication_error"]) => {
            Failure::Refused { status, refusal: Refusal::read(status, body) }
        }
        200 | 408 | 500.. => Failure::ServerError { status, retry_after },
        429 => Failure::RateLimited { retry_after },
        status => Failure::Refused { status, refusal: Refusal::read(status, body) },
    }
}

/// An HTTP status as a number or as digits.
fn status_of(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (300..=599).contains(status))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(body: &Value) -> Result<Completion, Failed> {
        read(body.to_string().as_bytes(), 400, None)
    }

    fn with_usage(usage: &Value) -> u64 {
        read_json(&json!({ "choices": [{ "message": { "content": "12345678" } }], "usage": usage })).unwrap().tokens
    }

    #[test]
    fn a_body_that_is_no_completion_is_told_apart_from_one_that_breaks_off() {
        let failure = |body: &[u8]| read(body, 0, None).unwrap_err().failure;
        assert_eq!(failure(b"<html>"), Failure::NotJson);
        assert_eq!(failure(b""), Failure::NotJson);
        assert_eq!(failure(b"{\"choices\": [{\"mess"), Failure::Truncated);
        for body in
            ["{\"choices\": []}", "{\"choices\": null}", "{\"id\": null, \"choices\": null, \"usage\": null}", "{}"]
        {
            assert_eq!(failure(body.as_bytes()), Failure::NoAnswer, "{body}");
        }
    }

    #[test]
    fn usage_is_read_in_every_form_and_estimated_when_it_is_missing() {
        for (usage, tokens) in [
            (json!({ "prompt_tokens": 300, "completion_tokens": 90, "total_tokens": 390 }), 390),
            (json!({}), 102),
            (json!(null), 102),
            (json!({ "prompt_tokens": 300, "completion_tokens": 90 }), 390),
            (json!({ "prompt_tokens": 300, "completion_tokens": 90, "total_tokens": null }), 390),
            (json!({ "prompt_tokens": 300, "completion_tokens": 37.25, "total_tokens": 337.25 }), 338),
            (json!({ "prompt_tokens": "300", "completion_tokens": "90" }), 390),
            (json!({ "prompt_tokens": 300 }), 302),
            (json!({ "total_tokens": 0 }), 102),
            (json!({ "total_tokens": -5 }), 102),
            (json!({ "total_tokens": 1e18 }), 102),
            (json!("many"), 102),
        ] {
            assert_eq!(with_usage(&usage), tokens, "{usage}");
        }
    }

    #[test]
    fn an_answer_that_is_discarded_costs_as_much_as_one_that_is_used() {
        assert_eq!(read_json(&json!({ "choices": null, "usage": null })).unwrap_err().tokens, 100);
        assert_eq!(read_json(&json!({ "choices": [], "usage": { "total_tokens": 7 } })).unwrap_err().tokens, 7);
        assert_eq!(read(b"{\"choices\": [{", 386, None).unwrap_err().tokens, 100);
    }

    #[test]
    fn an_error_inside_of_a_success_is_that_error() {
        let failure = |error: Value| read_json(&json!({ "error": error })).unwrap_err().failure;
        let limited = Failure::RateLimited { retry_after: None };
        assert_eq!(failure(json!({ "message": "Rate limit exceeded: free-models-per-min", "code": 429 })), limited);
        assert_eq!(failure(json!({ "code": "429" })), limited);
        assert_eq!(failure(json!({ "type": "rate_limit_error" })), limited);
        assert_eq!(failure(json!({ "status": "RESOURCE_EXHAUSTED" })), limited);
        assert_eq!(failure(json!({ "code": 502 })), Failure::ServerError { status: 502, retry_after: None });
        assert_eq!(failure(json!("boom")), Failure::ServerError { status: 200, retry_after: None });
        assert_eq!(failure(json!({ "code": 401 })), Failure::Refused { status: 401, refusal: Refusal::Key });
        assert_eq!(failure(json!({ "code": "content_filter" })), Failure::ContentFilter);
        let inside = json!({ "choices": [{ "finish_reason": "error", "error": { "code": 429 }, "message": { "content": "" } }] });
        assert_eq!(read_json(&inside).unwrap_err().failure, limited);
        let none = json!({ "error": null, "choices": [{ "message": { "content": "x" } }] });
        assert!(read_json(&none).is_ok());
    }

    #[test]
    fn content_in_parts_and_an_answer_that_was_cut_or_refused_are_seen() {
        let body =
            json!({ "choices": [{ "message": { "content": [{ "type": "text", "text": "{" }, { "text": "}" }] } }] });
        assert_eq!(read_json(&body).unwrap().content, "{}");
        let of = |finish: &str| {
            let body = json!({ "choices": [{ "message": { "content": null }, "finish_reason": finish }] });
            let completion = read_json(&body).unwrap();
            (completion.cut, completion.refused)
        };
        assert_eq!((of("length"), of("content_filter"), of("stop")), ((true, false), (false, true), (false, false)));
    }
}
