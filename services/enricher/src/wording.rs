//! What a model may say in a mail that carries our name.
//!
//! A model's words are a stranger's text, made from a stranger's text. So it fills slots (a topic and a quote from the
//! profile, a reason from a list, a tone), and sentences of ours carry them (`slots`). Only where
//! `enricher.model.free_text` allows it, a text of its own is used, when every word of it is supported (`free_text`).
//! Whatever is refused costs nothing but the wording: the built-in analyser's message is used, and niche, score and
//! compliance stay the model's.
//!
//! To allow a word, add it to `wording/vocabulary.txt`; to forbid one whatever supports it, to `wording/forbidden.tsv`.

mod forbidden;
mod free_text;
mod shape;
mod slots;
mod words;

use domain::{lead::Lead, program::Program};
use serde_json::Value;

pub(crate) use self::slots::{Reason, Slots, Tone};
use crate::local::LocalAnalyser;

/// What a model offers for the mail, as it came.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offered {
    /// The slots, of whatever form.
    pub slots: Option<Value>,
    /// A text of its own.
    pub message: Option<String>,
}

/// What a mail will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wording {
    /// Sentences of ours that carry these slots.
    Slots(Slots),
    /// The model's own text.
    FreeText(String),
    /// The built-in analyser's message, and why nothing of the model's was taken, if it offered something.
    BuiltIn { refused: Option<String> },
}

/// Chooses. A text of the model's own is looked at only where `free_text` allows it; where it is refused, its slots are not
/// looked at any more.
pub(crate) fn choose(
    offered: &Offered,
    free_text: bool,
    lead: &Lead,
    program: &Program,
    local: LocalAnalyser,
) -> Wording {
    let refused = |what: &str, reason: &str| Wording::BuiltIn { refused: Some(format!("{what}:{reason}")) };
    match (&offered.message, &offered.slots) {
        (Some(message), _) if free_text => match free_text::check(message, lead, program) {
            Ok(text) => Wording::FreeText(text),
            Err(reason) => refused("message", reason),
        },
        (_, Some(slots)) => match slots::read(slots, lead, local) {
            Ok(slots) => Wording::Slots(slots),
            Err(reason) => refused("slot", reason),
        },
        _ => Wording::BuiltIn { refused: None },
    }
}
