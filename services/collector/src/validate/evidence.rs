//! What a row says about who may be written to: consent, and where the address is published for business.
//!
//! Evidence is whole or wrong: half a consent is no consent, and a row that brings one is refused instead of being taken without
//! it, or nobody would ever look.

use domain::{
    email::EmailAddress,
    law::evidence::{ConsentEvidence, Evidence, InvalidEvidence, PublishedAddress, SOURCE_CHARS, WORDING_CHARS},
    profile_url::ProfileUrl,
    reject::RejectReason,
    text,
};
use time::OffsetDateTime;

use super::Defects;
use crate::{
    normalise::{instant, present},
    source::RawProfile,
};

/// The evidence of a row about the address that it has.
pub(super) fn evidence(
    raw: &RawProfile,
    email: Option<&EmailAddress>,
    now: OffsetDateTime,
    defects: &mut Defects,
) -> Vec<Evidence> {
    let found: Vec<Evidence> =
        [consent(raw, now, defects), published(raw, now, defects)].into_iter().flatten().collect();
    // An address that can't be read is a defect of its own.
    if email.is_none() && !found.is_empty() && defects.first.is_none() {
        defects
            .missing("email", "consent and where an address is published are about an address, and the row has none");
    }
    found
}

fn consent(raw: &RawProfile, now: OffsetDateTime, defects: &mut Defects) -> Option<Evidence> {
    let [source, wording] =
        [raw.consent_source.as_deref().and_then(present), raw.consent_wording.as_deref().and_then(present)];
    let [given_at, expires_at] =
        [raw.consent_at.as_deref().and_then(present), raw.consent_expires_at.as_deref().and_then(present)];
    if [source, wording, given_at, expires_at].iter().all(Option::is_none) {
        return None;
    }
    if given_at.is_none() {
        defects.missing("consent_at", "consent needs the time at which it was given");
    }
    let given_at = given_at.and_then(|text| defects.take("consent_at", instant::parse(text)));
    let expires_at = match expires_at {
        Some(text) => Some(defects.take("consent_expires_at", instant::parse(text))?),
        None => None,
    };
    let wording = whole("consent_wording", wording, WORDING_CHARS, text::multi_line, defects);
    let source = whole("consent_source", source, SOURCE_CHARS, text::single_line, defects);
    let consent = ConsentEvidence { source: source?, wording: wording?, given_at: given_at?, expires_at };
    match consent.check(now) {
        Ok(consent) => Some(Evidence::Consent(consent)),
        Err(error) => {
            let field = match error {
                InvalidEvidence::FromTheFuture => "consent_at",
                InvalidEvidence::Expired | InvalidEvidence::ExpiresBeforeGiven => "consent_expires_at",
            };
            defects.add(RejectReason::Invalid, field, &error.to_string());
            None
        }
    }
}

/// A text of a consent, word for word but for what can't be seen.
fn whole(
    field: &'static str,
    value: Option<&str>,
    max_chars: usize,
    clean: fn(&str, usize) -> Option<String>,
    defects: &mut Defects,
) -> Option<String> {
    let missing = match field {
        "consent_wording" => "consent needs the words that were agreed to",
        _ => "consent needs the place where it was given, such as the address of a form",
    };
    // One more, to tell what is too long from what just fits.
    match value.and_then(|text| clean(text, max_chars + 1)) {
        None => {
            defects.missing(field, missing);
            None
        }
        Some(text) if text.chars().count() > max_chars => {
            defects.add(RejectReason::TooLarge, field, &format!("it is longer than {max_chars} characters"));
            None
        }
        text => text,
    }
}

fn published(raw: &RawProfile, now: OffsetDateTime, defects: &mut Defects) -> Option<Evidence> {
    let [url, seen_at] =
        [raw.address_source_url.as_deref().and_then(present), raw.address_seen_at.as_deref().and_then(present)];
    if url.is_none() && seen_at.is_some() {
        defects.missing("address_source_url", "that an address is published needs the page where it is");
    }
    let seen_at = match seen_at {
        Some(text) => defects.take("address_seen_at", instant::parse(text))?,
        None => now,
    };
    let url = defects.take("address_source_url", ProfileUrl::parse(url?).map_err(|error| error.reason))?;
    match (PublishedAddress { url: url.as_str().to_owned(), seen_at }).check(now) {
        Ok(published) => Some(Evidence::PublishedAddress(published)),
        Err(error) => {
            defects.add(RejectReason::Invalid, "address_seen_at", &error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::law::evidence::EvidenceKind;
    use time::macros::datetime;

    use super::*;
    use crate::validate::{tests::raw, validate};

    const NOW: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);
    const LEAD: [(&str, &str); 3] = [("source", "instagram"), ("username", "ann"), ("email", "ann@example.com")];
    const CONSENT: [(&str, &str); 4] = [
        ("consent_source", "https://acme.example/partners"),
        ("consent_wording", "Yes, write to me\nabout partnerships"),
        ("consent_at", "2026-05-01T10:00:00Z"),
        ("consent_expires_at", "2027-05-01"),
    ];

    /// The row of [`LEAD`] and [`CONSENT`] with other values; an empty one leaves a field out.
    fn judged(changes: &[(&str, &str)]) -> Result<Vec<Evidence>, String> {
        let kept = LEAD.iter().chain(&CONSENT).filter(|(field, _)| changes.iter().all(|(changed, _)| changed != field));
        let pairs: Vec<_> = kept.chain(changes).copied().collect();
        validate(&raw(&pairs), None, NOW)
            .map(|submission| submission.evidence)
            .map_err(|refusal| format!("{} {}", refusal.defect.reason.name(), refusal.defect))
    }

    #[test]
    fn whole_evidence_is_taken_word_for_word() {
        let found = judged(&[("address_source_url", "http://ann.example/contact"), ("address_seen_at", "2026-11-01")]);
        let [Evidence::Consent(consent), Evidence::PublishedAddress(published)] = &found.unwrap()[..] else {
            panic!("not both")
        };
        assert_eq!(consent.source, "https://acme.example/partners");
        assert_eq!(consent.wording, "Yes, write to me\nabout partnerships");
        assert_eq!(consent.given_at, datetime!(2026-05-01 10:00 UTC));
        assert_eq!(consent.expires_at, Some(datetime!(2027-05-01 0:00 UTC)));
        assert_eq!(published.url, "https://ann.example/contact");
        assert_eq!(published.seen_at, datetime!(2026-11-01 0:00 UTC));
    }

    #[test]
    fn a_row_without_evidence_has_none_and_an_address_in_a_bio_is_none() {
        let without: Vec<_> = CONSENT.iter().map(|(field, _)| (*field, "")).collect();
        assert_eq!(judged(&without), Ok(vec![]));
        let in_bio = [("email", ""), ("bio", "write to ann@example.com")];
        assert_eq!(judged(&[&without[..], &in_bio].concat()), Ok(vec![]));
    }

    #[test]
    fn half_a_consent_is_refused_with_the_field_that_is_missing() {
        for (field, part) in [
            ("consent_at", "missing consent_at: consent needs the time"),
            ("consent_wording", "missing consent_wording: consent needs the words"),
            ("consent_source", "missing consent_source: consent needs the place"),
        ] {
            let told = judged(&[(field, " - ")]).unwrap_err();
            assert!(told.starts_with(part), "{told}");
        }
        let alone: Vec<_> = CONSENT.iter().take(3).map(|(field, _)| (*field, "")).collect();
        let told = judged(&alone).unwrap_err();
        assert!(told.contains("consent_at") && told.ends_with("(and consent_wording, consent_source)"), "{told}");
    }

    #[test]
    fn consent_that_shows_nothing_today_is_refused_with_its_field() {
        for (field, value, part) in [
            ("consent_at", "2026-11-30", "invalid consent_at: it lies in the future"),
            ("consent_at", "01/05/2026", "invalid consent_at: it is no time such as"),
            ("consent_expires_at", "2026-11-28", "invalid consent_expires_at: the consent has expired"),
            ("consent_expires_at", "2026-04-30", "invalid consent_expires_at: the consent expires before it was given"),
            ("consent_expires_at", "never", "invalid consent_expires_at: it is no time"),
        ] {
            let told = judged(&[(field, value)]).unwrap_err();
            assert!(told.starts_with(part), "{told}");
        }
        let told = judged(&[("consent_wording", &"word ".repeat(1_000))]).unwrap_err();
        assert!(told.starts_with("too_large consent_wording"), "{told}");
    }

    #[test]
    fn a_published_address_needs_its_page() {
        for (changes, part) in [
            (vec![("address_seen_at", "2026-11-01")], "missing address_source_url"),
            (vec![("address_source_url", "her bio")], "invalid address_source_url"),
            (
                vec![("address_source_url", "ann.example"), ("address_seen_at", "2027-01-01")],
                "invalid address_seen_at: it lies in the future",
            ),
        ] {
            let told = judged(&changes).unwrap_err();
            assert!(told.starts_with(part), "{told}");
        }
        let found = judged(&[("address_source_url", "ann.example/contact")]).unwrap();
        assert_eq!((found[1].kind(), found[1].captured_at()), (EvidenceKind::PublishedAddress, NOW));
    }

    #[test]
    fn evidence_is_about_an_address() {
        let told = judged(&[("email", ""), ("profile_url", "instagram.com/ann")]).unwrap_err();
        assert!(told.starts_with("missing email: consent"), "{told}");
        let told = judged(&[("email", "ask my agent")]).unwrap_err();
        assert!(told.starts_with("invalid email") && !told.contains("and email"), "{told}");
    }
}
