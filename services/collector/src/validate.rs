//! From a raw row to a profile, or to the reason why not.
//!
//! A profile needs a source, a user name and a way to make contact: an e-mail address (its own column's, or one in the
//! bio) or a profile URL. A URL that is only made up from source and user name completes a profile, but isn't a contact.

mod evidence;

use domain::{
    email::EmailAddress,
    handle::Handle,
    lead::{BIO_CHARS, LOCATION_CHARS, NAME_CHARS, Profile, SourceName},
    profile_url::ProfileUrl,
    reject::{Defect, RejectReason},
    submission::{CountrySource, Submission},
    text,
};
use time::OffsetDateTime;

use crate::{
    normalise::{contact, count, country, is_yes, network, present},
    source::RawProfile,
};

/// Why a row isn't taken, and by what it can be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first defect; its detail names the others.
    pub defect: Defect,
    /// The user name, if it could be read.
    pub username: Option<Handle>,
    /// The address, if it could be read.
    pub email: Option<EmailAddress>,
}

/// Normalises and validates a row; `default_source` is the network of rows that name none. Evidence must hold at `now`.
pub fn validate(
    raw: &RawProfile,
    default_source: Option<&SourceName>,
    now: OffsetDateTime,
) -> Result<Submission, Box<Refusal>> {
    let mut defects = Defects::default();
    let bio = raw.bio.as_deref().and_then(|bio| text::multi_line(bio, BIO_CHARS));
    let url = profile_url(raw, &mut defects);
    let place = url.as_ref().and_then(network::place);
    let source = source(raw, place.as_ref(), default_source, &mut defects);
    let username = username(raw, place.as_ref(), &mut defects);
    let email = match raw.email.as_deref().and_then(present) {
        Some(text) => defects.take("email", contact::address(text)),
        None => bio.as_deref().and_then(contact::find),
    };
    let follower_count = raw
        .follower_count
        .as_deref()
        .and_then(present)
        .and_then(|text| defects.take("follower_count", count::parse(text)));
    let gave_contact = raw.email.as_deref().and_then(present).is_some() || url_text(raw).is_some();
    if email.is_none() && url.is_none() && !gave_contact {
        defects.missing("contact", "there is neither an e-mail address nor a profile URL");
    }
    let evidence = evidence::evidence(raw, email.as_ref(), now, &mut defects);
    let (Some(source), Some(username), None) = (source, &username, &defects.first) else {
        return Err(Box::new(Refusal { defect: defects.into_one(), username, email }));
    };
    let location = raw.location.as_deref().and_then(present).and_then(|place| text::single_line(place, LOCATION_CHARS));
    let stated = raw.country.as_deref().and_then(present).and_then(country::named);
    let (country, country_source) = match (stated, location.as_deref().and_then(country::in_location)) {
        (Some(country), _) => (Some(country), Some(CountrySource::Stated)),
        (None, Some(country)) => (Some(country), Some(CountrySource::Location)),
        (None, None) => (None, None),
    };
    let profile = Profile {
        name: raw.name.as_deref().and_then(|name| text::single_line(name, NAME_CHARS)),
        email,
        profile_url: url.map(network::canonical).or_else(|| network::profile_url(&source, username)),
        follower_count,
        bio,
        verified: raw.verified.as_deref().is_some_and(is_yes),
        location,
        country,
        username: username.clone(),
        source,
    };
    Ok(Submission { profile, line: raw.line, country_source, evidence })
}

/// The first defect, and the fields of the others.
#[derive(Default)]
struct Defects {
    first: Option<Defect>,
    others: Vec<&'static str>,
}

impl Defects {
    fn add(&mut self, reason: RejectReason, field: &'static str, detail: &str) {
        if self.first.is_some() {
            self.others.push(field);
        } else {
            self.first = Some(Defect { reason, field: field.to_owned(), detail: detail.to_owned() });
        }
    }

    fn missing(&mut self, field: &'static str, detail: &str) {
        self.add(RejectReason::Missing, field, detail);
    }

    fn take<T>(&mut self, field: &'static str, parsed: Result<T, &'static str>) -> Option<T> {
        parsed.map_err(|reason| self.add(RejectReason::Invalid, field, reason)).ok()
    }

    fn into_one(self) -> Defect {
        let mut defect = self.first.unwrap_or_else(|| Defect {
            reason: RejectReason::Malformed,
            field: "row".to_owned(),
            detail: "it can't be read as a profile".to_owned(),
        });
        if !self.others.is_empty() {
            defect.detail = format!("{} (and {})", defect.detail, self.others.join(", "));
        }
        defect
    }
}

/// The text that claims to be the profile's URL: its own column's, or a URL in the place of the user name.
fn url_text(raw: &RawProfile) -> Option<&str> {
    raw.profile_url
        .as_deref()
        .and_then(present)
        .or_else(|| raw.username.as_deref().and_then(present).filter(|text| is_url(text)))
}

fn is_url(text: &str) -> bool {
    text.contains("://") || (text.contains('/') && text.contains('.'))
}

fn profile_url(raw: &RawProfile, defects: &mut Defects) -> Option<ProfileUrl> {
    let parsed = ProfileUrl::parse(url_text(raw)?).map_err(|error| error.reason);
    defects.take("profile_url", parsed)
}

fn source(
    raw: &RawProfile,
    place: Option<&network::Place>,
    default: Option<&SourceName>,
    defects: &mut Defects,
) -> Option<SourceName> {
    if let Some(text) = raw.source.as_deref().and_then(present) {
        let found =
            network::source(text).ok_or("it must have 1 to 32 letters, digits, `_` or `-`, such as `instagram`");
        return defects.take("source", found);
    }
    let found = place.and_then(|place| SourceName::parse(place.network).ok()).or_else(|| default.cloned());
    if found.is_none() {
        defects.missing("source", "there is no source, and the profile URL doesn't tell it");
    }
    found
}

fn username(raw: &RawProfile, place: Option<&network::Place>, defects: &mut Defects) -> Option<Handle> {
    let from_url = || place.and_then(|place| place.handle.clone());
    match raw.username.as_deref().and_then(present) {
        Some(text) if !is_url(text) => defects.take("username", Handle::parse(text).map_err(|error| error.reason)),
        _ => {
            let found = from_url();
            if found.is_none() {
                defects.missing("username", "there is no user name, and the profile URL doesn't tell it");
            }
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-29 12:00 UTC);

    pub(super) fn raw(pairs: &[(&str, &str)]) -> RawProfile {
        let mut raw = RawProfile::default();
        for (field, value) in pairs {
            *raw.slot(crate::source::Field::by_name(field).unwrap()) = Some((*value).to_owned());
        }
        raw
    }

    fn refused(pairs: &[(&str, &str)]) -> (RejectReason, String, String) {
        let defect = validate(&raw(pairs), None, NOW).unwrap_err().defect;
        (defect.reason, defect.field, defect.detail)
    }

    #[test]
    fn a_full_row_becomes_a_profile() {
        let profile = validate(
            &raw(&[
                ("source", "Insta"),
                ("username", "@Ann.Bakes"),
                ("name", " Ann\r\nBcc: x@example.com "),
                ("email", "Ann@Example.com"),
                ("follower_count", "12.3K"),
                ("bio", "Baker\u{202E}"),
                ("verified", "TRUE"),
                ("location", "Austin, TX"),
            ]),
            None,
            NOW,
        )
        .unwrap();
        assert_eq!(profile.country_source, Some(CountrySource::Location));
        let profile = profile.profile;
        assert_eq!(profile.source.as_str(), "instagram");
        assert_eq!(profile.username.as_str(), "Ann.Bakes");
        assert_eq!(profile.name.as_deref(), Some("Ann Bcc: x@example.com"));
        assert_eq!(profile.email.unwrap().as_str(), "Ann@example.com");
        assert_eq!(profile.profile_url.unwrap().as_str(), "https://instagram.com/Ann.Bakes");
        assert_eq!(profile.follower_count, Some(12_300));
        assert_eq!(profile.bio.as_deref(), Some("Baker"));
        assert!(profile.verified);
        assert_eq!(profile.country.unwrap().as_str(), "US");
    }

    #[test]
    fn a_profile_url_alone_is_enough() {
        for pair in
            [("profile_url", "https://www.tiktok.com/@ann?lang=de"), ("username", "https://www.tiktok.com/@ann")]
        {
            let profile = validate(&raw(&[pair]), None, NOW).unwrap().profile;
            assert_eq!((profile.source.as_str(), profile.username.as_str()), ("tiktok", "ann"));
            assert_eq!(profile.profile_url.unwrap().as_str(), "https://tiktok.com/@ann");
        }
    }

    #[test]
    fn an_address_in_the_bio_is_a_contact() {
        let profile =
            validate(&raw(&[("source", "x"), ("username", "ann"), ("bio", "ann (at) example dot com")]), None, NOW);
        assert_eq!(profile.unwrap().profile.email.unwrap().as_str(), "ann@example.com");
    }

    #[test]
    fn what_must_be_there_is_missed() {
        let (reason, field, _) = refused(&[("username", "ann"), ("email", "a@example.com")]);
        assert_eq!((reason, field.as_str()), (RejectReason::Missing, "source"));
        let (reason, field, _) = refused(&[("source", "instagram"), ("email", "a@example.com")]);
        assert_eq!((reason, field.as_str()), (RejectReason::Missing, "username"));
        let (reason, field, _) = refused(&[("source", "instagram"), ("username", "ann")]);
        assert_eq!((reason, field.as_str()), (RejectReason::Missing, "contact"));
    }

    #[test]
    fn what_is_not_what_it_claims_is_refused_with_its_field() {
        let good = [("source", "instagram"), ("username", "ann"), ("email", "a@example.com")];
        for (field, value) in [
            ("source", "a b c"),
            ("username", "ann baker"),
            ("email", "ask my agent"),
            ("follower_count", "many"),
            ("profile_url", "javascript:alert(1)"),
        ] {
            let pairs: Vec<_> =
                good.iter().copied().filter(|(name, _)| *name != field).chain([(field, value)]).collect();
            let (reason, found, _) = refused(&pairs);
            assert_eq!((reason, found.as_str()), (RejectReason::Invalid, field));
        }
    }

    #[test]
    fn the_first_defect_names_the_others() {
        let (_, field, detail) =
            refused(&[("source", "x"), ("username", "ann"), ("email", "no"), ("follower_count", "no")]);
        assert_eq!(field, "email");
        assert!(detail.ends_with("(and follower_count)"), "{detail}");
    }

    #[test]
    fn a_refused_row_can_be_found_by_its_handle() {
        let refusal = validate(&raw(&[("source", "x"), ("username", "ann"), ("email", "no")]), None, NOW).unwrap_err();
        assert_eq!(refusal.username.unwrap().as_str(), "ann");
    }

    #[test]
    fn the_default_source_gives_way_to_what_the_row_tells() {
        let default = SourceName::parse("instagram").unwrap();
        let of = |pairs: &[(&str, &str)]| {
            validate(&raw(pairs), Some(&default), NOW).unwrap().profile.source.as_str().to_owned()
        };
        assert_eq!(of(&[("username", "ann"), ("email", "a@example.com")]), "instagram");
        assert_eq!(of(&[("profile_url", "tiktok.com/@ann")]), "tiktok");
        assert_eq!(of(&[("source", "x"), ("profile_url", "tiktok.com/@ann")]), "x");
    }

    proptest! {
        #[test]
        fn no_row_is_too_strange(values in prop::collection::vec(prop::option::of("\\PC{0,40}"), crate::source::Field::ALL.len())) {
            let mut raw = RawProfile::default();
            for (field, value) in crate::source::Field::ALL.into_iter().zip(values) {
                *raw.slot(field) = value;
            }
            if let Ok(Submission { profile, .. }) = validate(&raw, None, NOW) {
                prop_assert!(profile.email.is_some() || profile.profile_url.is_some());
                prop_assert!(profile.name.is_none_or(|name| !name.contains(['\r', '\n'])));
            }
        }
    }
}
