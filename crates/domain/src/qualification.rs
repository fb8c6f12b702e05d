//! Does a lead get a mail? One pure function, asked when a mail is planned and again at the moment of sending.
//!
//! When a mail goes out is another question: a paused program and a day's limit delay mails, they decide about no lead.

use std::fmt;

use crate::{
    enrichment::Score,
    law::{Ruling, Verdict},
    suppression::ContactList,
};

/// The score from which a lead qualifies, unless a program says otherwise.
pub const DEFAULT_THRESHOLD: i16 = 70;

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The analyst's score.
    pub score: Score,
    /// The least score that qualifies, 0 to 100.
    pub threshold: i16,
    /// Whether the analyst found nothing against it.
    pub compliant: bool,
    /// Whether this mail was already sent to this lead.
    pub sent: bool,
    /// Whether the recipient objected, bounced or complained.
    pub suppressed: bool,
    /// The do-not-contact list that the recipient is on, if there is one.
    pub do_not_contact: Option<ContactList>,
    /// Whether there is an address to write to.
    pub has_address: bool,
    /// What the law of first contact says.
    pub legal: Verdict,
    /// Whether the program lacks what a lawful mail needs: sender, postal address.
    pub incomplete_sender: bool,
}

/// One reason why a mail is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// The score is too low.
    ScoreBelowThreshold {
        /// The score.
        score: i16,
        /// The least that qualifies.
        threshold: i16,
    },
    /// The analyst found something against it.
    NotCompliant,
    /// It was sent already.
    AlreadySent,
    /// The recipient must not be written to.
    Suppressed,
    /// The recipient is on a do-not-contact list.
    DoNotContact {
        /// The list.
        list: ContactList,
    },
    /// There is no address.
    NoAddress,
    /// The law forbids it.
    LegalDenied {
        /// The rule.
        rule: String,
    },
    /// The law may forbid it: not enough is known.
    LegalUnknown {
        /// The rule.
        rule: String,
    },
    /// The program's sender or postal address is missing.
    IncompleteSender,
}

impl Blocker {
    /// Whether it can pass: the mail is held until then instead of being declined.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::LegalUnknown { .. } | Self::IncompleteSender)
    }

    /// A stable code, for the database and for scripts; a rule or numbers follow a colon.
    pub fn code(&self) -> String {
        match self {
            Self::ScoreBelowThreshold { score, threshold } => format!("score_below_threshold:{score}<{threshold}"),
            Self::NotCompliant => "not_compliant".to_owned(),
            Self::AlreadySent => "already_sent".to_owned(),
            Self::Suppressed => "suppressed".to_owned(),
            Self::DoNotContact { list } => format!("do_not_contact:{}", list.name()),
            Self::NoAddress => "no_address".to_owned(),
            Self::LegalDenied { rule } => format!("legal_denied:{rule}"),
            Self::LegalUnknown { rule } => format!("legal_unknown:{rule}"),
            Self::IncompleteSender => "incomplete_sender".to_owned(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScoreBelowThreshold { score, threshold } => {
                write!(f, "the score {score} is below the threshold {threshold}")
            }
            Self::NotCompliant => f.write_str("the analyst found it not compliant"),
            Self::AlreadySent => f.write_str("this mail was already sent"),
            Self::Suppressed => f.write_str("the recipient must not be written to"),
            Self::DoNotContact { list } => write!(f, "the recipient is on the do-not-contact list of {}s", list.name()),
            Self::NoAddress => f.write_str("there is no e-mail address"),
            Self::LegalDenied { rule } => write!(f, "the law of their country refuses it ({rule})"),
            Self::LegalUnknown { rule } => write!(f, "too little is known to ask the law ({rule})"),
            Self::IncompleteSender => f.write_str("the program has no sender or no postal address"),
        }
    }
}

/// The decision about a lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write to them.
    Plan,
    /// Write to them once what stands in the way has passed.
    Hold(Vec<Blocker>),
    /// Don't; every reason is listed, the temporary ones too.
    Decline(Vec<Blocker>),
}

impl Decision {
    /// Everything that stands in the way.
    pub fn blockers(&self) -> &[Blocker] {
        match self {
            Self::Plan => &[],
            Self::Hold(blockers) | Self::Decline(blockers) => blockers,
        }
    }
}

/// Decides: `score >= threshold && compliant && !sent && !suppressed`, on no do-not-contact list, an address, the law, and a
/// sender who can be named.
pub fn qualify(candidate: &Candidate) -> Decision {
    let Candidate {
        score,
        threshold,
        compliant,
        sent,
        suppressed,
        do_not_contact,
        has_address,
        legal,
        incomplete_sender,
    } = candidate;
    let rule = || legal.rule.clone();
    let checks = [
        (score.get() < *threshold)
            .then_some(Blocker::ScoreBelowThreshold { score: score.get(), threshold: *threshold }),
        (!compliant).then_some(Blocker::NotCompliant),
        sent.then_some(Blocker::AlreadySent),
        suppressed.then_some(Blocker::Suppressed),
        do_not_contact.map(|list| Blocker::DoNotContact { list }),
        (!has_address).then_some(Blocker::NoAddress),
        (legal.ruling == Ruling::Deny).then(|| Blocker::LegalDenied { rule: rule() }),
        (legal.ruling == Ruling::Hold).then(|| Blocker::LegalUnknown { rule: rule() }),
        incomplete_sender.then_some(Blocker::IncompleteSender),
    ];
    let blockers: Vec<Blocker> = checks.into_iter().flatten().collect();
    if blockers.is_empty() {
        Decision::Plan
    } else if blockers.iter().all(Blocker::is_temporary) {
        Decision::Hold(blockers)
    } else {
        Decision::Decline(blockers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        law::{Contact, Law},
        lead::Country,
    };
    use proptest::prelude::*;

    fn judge(code: Option<&str>) -> Verdict {
        Law::current().judge(code.and_then(|code| Country::parse(code).ok()), Contact::UNKNOWN)
    }

    fn good() -> Candidate {
        Candidate {
            score: Score::new(70).unwrap(),
            threshold: DEFAULT_THRESHOLD,
            compliant: true,
            sent: false,
            suppressed: false,
            do_not_contact: None,
            has_address: true,
            legal: judge(Some("US")),
            incomplete_sender: false,
        }
    }

    #[test]
    fn a_lead_at_the_threshold_qualifies() {
        assert_eq!(qualify(&good()), Decision::Plan);
    }

    #[test]
    fn every_reason_is_named() {
        let candidate = Candidate {
            score: Score::new(69).unwrap(),
            compliant: false,
            sent: true,
            suppressed: true,
            do_not_contact: Some(ContactList::Colleague),
            has_address: false,
            legal: judge(None),
            incomplete_sender: true,
            ..good()
        };
        let Decision::Decline(blockers) = qualify(&candidate) else { panic!("not declined") };
        let codes: Vec<_> = blockers.iter().map(Blocker::code).collect();
        assert_eq!(
            codes,
            [
                "score_below_threshold:69<70",
                "not_compliant",
                "already_sent",
                "suppressed",
                "do_not_contact:colleague",
                "no_address",
                "legal_unknown:v2/email/unknown-country",
                "incomplete_sender"
            ]
        );
    }

    #[test]
    fn an_unknown_country_holds_and_a_refusing_one_declines() {
        let unknown = Candidate { legal: judge(None), ..good() };
        assert!(matches!(qualify(&unknown), Decision::Hold(_)));
        let german = judge(Some("DE"));
        assert!(matches!(qualify(&Candidate { legal: german, ..good() }), Decision::Decline(_)));
    }

    proptest! {
        #[test]
        fn no_mail_without_every_reason_to_send_it(
            score in 0_i64..=100, threshold in 0_i16..=100, compliant: bool, sent: bool, suppressed: bool,
            has_address: bool, incomplete_sender: bool, listed: bool,
            country in proptest::option::of("[A-Z]{2}"),
        ) {
            let legal = judge(country.as_deref());
            let allowed = legal.ruling == Ruling::Allow;
            let candidate = Candidate {
                score: Score::new(score).unwrap(), threshold, compliant, sent, suppressed, has_address, legal,
                incomplete_sender, do_not_contact: listed.then_some(ContactList::Customer),
            };
            let planned = qualify(&candidate) == Decision::Plan;
            let expected = score >= i64::from(threshold) && compliant && !sent && !suppressed && has_address && allowed
                && !incomplete_sender && !listed;
            prop_assert_eq!(planned, expected);
        }
    }
}
