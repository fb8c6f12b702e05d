//! Who turns a lead into an enrichment.

use domain::{
    enrichment::{COMPLIANCE_NOTES_CHARS, Enrichment, NOTES_CHARS, Provider},
    lead::Lead,
    program::Program,
    text,
};
use tokio::sync::SemaphorePermit;

use crate::{
    local::LocalAnalyser,
    model::{Answer, ModelClient},
    wording::{self, Wording},
};

/// Someone who analyses leads. It never fails: where a model can't be believed, the built-in analyser steps in.
#[derive(Debug)]
pub enum Analyst {
    /// The built-in analyser.
    Local(LocalAnalyser),
    /// A chat model.
    Model {
        /// Asks it.
        client: Box<ModelClient>,
        /// Steps in, and has the last word on what a profile itself objects to.
        fallback: LocalAnalyser,
    },
}

/// An analysis, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// What the analyst says.
    pub enrichment: Enrichment,
    /// Tokens spent on it, those of refused answers included.
    pub tokens: u64,
}

/// The right to have one lead analysed now.
#[derive(Debug)]
pub struct Permit<'a> {
    analyst: PermittedAnalyst<'a>,
}

#[derive(Debug)]
enum PermittedAnalyst<'a> {
    Local(LocalAnalyser),
    Model { client: &'a ModelClient, fallback: LocalAnalyser, permit: SemaphorePermit<'a> },
}

impl Analyst {
    /// Waits until a lead may be analysed: as many requests to a model run at a time as it is configured for.
    pub async fn permit(&self) -> Permit<'_> {
        let analyst = match self {
            Self::Local(local) => PermittedAnalyst::Local(*local),
            Self::Model { client, fallback } => {
                PermittedAnalyst::Model { client, fallback: *fallback, permit: client.permit().await }
            }
        };
        Permit { analyst }
    }
}

impl Permit<'_> {
    /// Analyses a lead.
    pub async fn analyse(self, lead: &Lead, program: &Program) -> Analysis {
        match self.analyst {
            PermittedAnalyst::Local(local) => Analysis { enrichment: local.analyse(lead, program), tokens: 0 },
            PermittedAnalyst::Model { client, fallback, permit } => {
                let asked = client.ask(&permit, lead, program).await;
                let enrichment = match asked.analysis {
                    Ok(answer) => {
                        let wording =
                            wording::choose(&answer.offered, client.allows_free_text(), lead, program, fallback);
                        client.count_wording(&wording);
                        with_objections(enrichment(answer, wording, lead, program, fallback), fallback, lead)
                    }
                    Err(failure) => {
                        tracing::debug!(lead.id = %lead.id, enricher.failure = failure.code(), "fell back to the built-in analyser");
                        Enrichment {
                            provider: Provider::LocalFallback,
                            fallback_reason: Some(failure.code()),
                            ..fallback.analyse(lead, program)
                        }
                    }
                };
                Analysis { enrichment, tokens: asked.tokens }
            }
        }
    }
}

/// The model's analysis with the message that the mail will carry. Why its own words were refused stands in the notes.
fn enrichment(answer: Answer, wording: Wording, lead: &Lead, program: &Program, local: LocalAnalyser) -> Enrichment {
    let (message, refused) = match wording {
        Wording::Slots(slots) => (LocalAnalyser::message_with(lead, program, &slots), None),
        Wording::FreeText(text) => (text, None),
        Wording::BuiltIn { refused } => (local.message(lead, program), refused),
    };
    let notes = match refused {
        None => answer.notes,
        Some(reason) => with_refusal(&answer.notes, &reason),
    };
    Enrichment {
        niche: answer.niche,
        score: answer.score,
        notes,
        message,
        compliant: answer.compliant,
        compliance_notes: answer.compliance_notes,
        confidence: answer.confidence,
        provider: Provider::Model,
        fallback_reason: None,
    }
}

/// The notes with the reason at their end, however long they are.
fn with_refusal(notes: &str, reason: &str) -> String {
    let line = format!("The model's own words were not used: {reason}.");
    let room = NOTES_CHARS - line.chars().count() - 1;
    let notes: String = notes.chars().take(room).collect();
    text::multi_line(&format!("{notes}\n{line}"), NOTES_CHARS).unwrap_or_default()
}

/// A model may veto, never approve: what the profile itself objects to stands, whatever the model says.
fn with_objections(enrichment: Enrichment, local: LocalAnalyser, lead: &Lead) -> Enrichment {
    let objections = local.objections(lead);
    if objections.is_empty() {
        return enrichment;
    }
    let mut sentences: Vec<&str> = objections.iter().map(|objection| objection.sentence()).collect();
    sentences.push(&enrichment.compliance_notes);
    let compliance_notes = text::single_line(&sentences.join(" "), COMPLIANCE_NOTES_CHARS).unwrap_or_default();
    Enrichment { compliant: false, compliance_notes, ..enrichment }
}
