//! What is to be done with each item of a request, and what its sender is told.

use domain::{
    id::RunId,
    reject::{Defect, RejectReason},
    submission::Submission,
};
use serde_json::{Value, json};
use store::{intake::Accepted, rejects::Reject};
use time::OffsetDateTime;

use super::input::Input;
use crate::validate::{Refusal, validate};

/// The items of a request, looked at.
pub(super) struct Verdicts {
    /// What may be stored, in order.
    pub items: Vec<Submission>,
    /// What is refused.
    pub rejects: Vec<Reject>,
    /// Per item: nothing, or why it is refused.
    pub defects: Vec<Option<Defect>>,
}

/// Looks at every item; `source_digest` names the request's body, which came in at `now`.
pub(super) fn judge(inputs: Vec<Input>, source_digest: [u8; 32], now: OffsetDateTime) -> Verdicts {
    let mut verdicts = Verdicts { items: Vec::new(), rejects: Vec::new(), defects: Vec::with_capacity(inputs.len()) };
    for (line, input) in (1..).zip(inputs) {
        let (raw, too_large) = input.into_raw(line);
        let unreadable = |defect| Box::new(Refusal { defect, username: None, email: None });
        match too_large.map_or_else(|| validate(&raw, None, now), |defect| Err(unreadable(defect))) {
            Ok(submission) => {
                verdicts.items.push(submission);
                verdicts.defects.push(None);
            }
            Err(refusal) => {
                let Refusal { defect, username, email } = *refusal;
                verdicts.defects.push(Some(defect.clone()));
                verdicts.rejects.push(Reject { source_digest, line, defect, raw: raw.raw, username, email });
            }
        }
    }
    verdicts
}

/// What a request is answered, now and when it is repeated.
pub(super) fn answer(run: RunId, defects: &[Option<Defect>], accepted: &[Accepted]) -> Value {
    let mut accepted = accepted.iter();
    let mut counts = [("accepted", 0), ("updated", 0), ("duplicates", 0), ("rejected", 0)];
    let results: Vec<Value> = defects
        .iter()
        .map(|defect| {
            let (place, result) = match defect {
                Some(defect) => (3, refused(defect)),
                None => match accepted.next() {
                    Some(Accepted::New(id)) => (0, json!({"result": "accepted", "id": id})),
                    Some(Accepted::Updated(id)) => (1, json!({"result": "updated", "id": id})),
                    Some(Accepted::Duplicate(id)) => (2, json!({"result": "duplicate", "id": id})),
                    Some(Accepted::Erased) | None => (3, refused(&erased())),
                },
            };
            counts[place].1 += 1;
            result
        })
        .collect();
    let counts: serde_json::Map<String, Value> =
        counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({"run_id": run, "counts": counts, "results": results})
}

fn refused(defect: &Defect) -> Value {
    json!({"result": "rejected", "reason": defect.reason.name(), "field": defect.field, "detail": defect.detail})
}

fn erased() -> Defect {
    let detail = "the person asked never to be stored again".to_owned();
    Defect { reason: RejectReason::Erased, field: "row".to_owned(), detail }
}
