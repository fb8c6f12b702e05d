//! What a profile itself says against writing to its owner. A model may add to this, never take away from it; the legal
//! gate (by country and basis) is asked later, by the mailer.

use domain::{enrichment::COMPLIANCE_NOTES_CHARS, lead::Profile, text};

use super::{evidence::Evidence, lexicon::Signal, refusals::refuses_business, stated_age::states_minor_age};

/// A reason not to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Objection {
    /// The owner seems to be a minor, or the account of a child is run by a parent.
    Minor,
    /// The bio refuses advertising, collaborations or contact.
    RefusesBusiness,
    /// Adult content.
    Adult,
    /// Gambling.
    Gambling,
    /// The account remembers somebody who died.
    Memorial,
    /// The account was taken over by somebody else.
    Hacked,
    /// No address, so there is no lawful way to write.
    NoContact,
}

impl Objection {
    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Minor => "The owner seems to be a minor, or the account belongs to a child.",
            Self::RefusesBusiness => "The bio refuses advertising, collaborations or business contact.",
            Self::Adult => "The profile points to adult content.",
            Self::Gambling => "The profile promotes gambling.",
            Self::Memorial => "The account is in memory of somebody who died.",
            Self::Hacked => "The account seems to be in the hands of somebody else.",
            Self::NoContact => "No e-mail address is published.",
        }
    }
}

/// Every objection, in a fixed order.
pub(super) fn objections(profile: &Profile, evidence: &Evidence<'_>) -> Vec<Objection> {
    let bio = profile.bio.as_deref().unwrap_or_default();
    [
        (evidence.shows(Signal::Minor) || states_minor_age(profile, &evidence.bio), Objection::Minor),
        (evidence.shows(Signal::RefusesBusiness) || refuses_business(bio, &evidence.bio), Objection::RefusesBusiness),
        (evidence.shows(Signal::Adult), Objection::Adult),
        (evidence.shows(Signal::Gambling), Objection::Gambling),
        (evidence.shows(Signal::Memorial), Objection::Memorial),
        (evidence.shows(Signal::Hacked), Objection::Hacked),
        (profile.email.is_none(), Objection::NoContact),
    ]
    .into_iter()
    .filter_map(|(applies, objection)| applies.then_some(objection))
    .collect()
}

/// The objections for people.
pub(super) fn notes(objections: &[Objection]) -> String {
    if objections.is_empty() {
        return "Nothing in the profile speaks against writing.".to_owned();
    }
    let sentences: Vec<&str> = objections.iter().map(|objection| objection.sentence()).collect();
    text::single_line(&sentences.join(" "), COMPLIANCE_NOTES_CHARS).unwrap_or_default()
}
