//! What a profile itself says against writing to its owner. A model may add to this, never take away from it; the legal
//! gate (by country and basis) is asked later, by the mailer.

use domain::{enrichment::COMPLIANCE_NOTES_CHARS, lead::Profile, text};

use super::{evidence::Evidence, lexicon::Signal, tokens::Tokens};

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
            Self::NoContact => "No e-mail address is published.",
        }
    }
}

/// Every objection, in a fixed order.
pub(super) fn objections(profile: &Profile, evidence: &Evidence<'_>) -> Vec<Objection> {
    [
        (evidence.shows(Signal::Minor) || states_minor_age(&evidence.bio), Objection::Minor),
        (evidence.shows(Signal::RefusesBusiness), Objection::RefusesBusiness),
        (evidence.shows(Signal::Adult), Objection::Adult),
        (evidence.shows(Signal::Gambling), Objection::Gambling),
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

/// Who else an age in a bio can belong to. Accounts that parents run *for* a child are found by the lexicon.
const SOMEBODY_ELSE: [&str; 30] = [
    "mom", "mum", "mama", "mommy", "mummy", "dad", "daddy", "father", "mother", "parent", "parents", "son", "daughter",
    "kids", "kid", "boys", "girls", "twins", "dog", "cat", "pup", "horse", "hund", "katze", "papa", "maman", "madre",
    "padre", "hijos", "filhos",
];

/// Whether the bio states an age from 4 to 17 as its owner's: `15yo`, `16 years old`, `age 14`, `tengo 15 años`.
fn states_minor_age(bio: &Tokens) -> bool {
    let stated = (0..bio.len()).any(|index| {
        let at = |offset: isize| index.checked_add_signed(offset).and_then(|index| bio.get(index));
        let token = at(0).unwrap_or_default();
        if let Some(number) = ["yo", "yrs"].iter().find_map(|unit| token.strip_suffix(unit)) {
            return is_minor_age(number);
        }
        if !is_minor_age(token) {
            return false;
        }
        let (before2, before, after, after2) = (at(-2), at(-1), at(1), at(2));
        match after {
            Some("yo") => true,
            Some("y") => after2 == Some("o"),
            Some("years" | "year" | "yrs" | "yr") => after2 == Some("old"),
            Some("jahre") => after2 == Some("alt"),
            // In Romance languages the verb tells an age from a time: `j'ai 15 ans` from `depuis 15 ans`.
            Some("ans" | "anos" | "anni") => matches!(before, Some("ai" | "tengo" | "tenho" | "ho")),
            // `I'm 15`, but not `I'm 15 weeks pregnant`.
            None | Some("and" | "from" | "living") => {
                matches!(before, Some("age" | "aged" | "alter")) || (before == Some("m") && before2 == Some("i"))
            }
            Some(_) => matches!(before, Some("age" | "aged" | "alter")),
        }
    });
    stated && !bio.iter().any(|word| SOMEBODY_ELSE.contains(&word))
}

fn is_minor_age(text: &str) -> bool {
    text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && matches!(text.parse::<u8>(), Ok(4..=17))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(bio: &str) -> bool {
        states_minor_age(&Tokens::of(bio))
    }

    #[test]
    fn a_stated_age_below_eighteen_is_seen() {
        for bio in [
            "15yo gamer",
            "I'm 16",
            "i’m 14 and love art",
            "17 y/o",
            "16 years old",
            "age: 13",
            "tengo 15 años",
            "J'ai 16 ans",
            "tenho 17 anos",
            "ho 15 anni",
            "16 Jahre alt",
        ] {
            assert!(minor(bio), "{bio}");
        }
    }

    #[test]
    fn years_of_experience_weeks_and_other_peoples_ages_are_no_age() {
        for bio in [
            "15 years of experience",
            "I'm 15 weeks pregnant",
            "25yo",
            "mom of a 5 year old",
            "depuis 15 ans",
            "hace 10 años",
            "18 years old",
            "15 countries",
            "12 Jahre Erfahrung",
            "dog mom, pup is 7yo",
            "4 yrs vegan",
        ] {
            assert!(!minor(bio), "{bio}");
        }
    }
}
