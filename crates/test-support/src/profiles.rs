//! Builders of profiles, leads and programs for tests: made-up people, every value overridable with struct update syntax.

use domain::{
    email::EmailAddress,
    handle::Handle,
    id::{LeadId, ProgramId},
    lead::{Lead, Profile, SourceName},
    legal::Basis,
    program::{Program, ProgramSettings},
};
use time::OffsetDateTime;
use uuid::Uuid;

const BASE: u128 = 0x0190_b5a0_1c3d_7def_8123_4567_89ab_0000;

/// A creator without a bio, with an address and 24,351 followers.
pub fn profile() -> Profile {
    Profile {
        source: SourceName::parse("instagram").expect("a source"),
        username: Handle::parse("ann.b").expect("a handle"),
        name: Some("Ann Lee".to_owned()),
        email: Some(EmailAddress::parse("ann@example.com").expect("an address")),
        profile_url: None,
        follower_count: Some(24_351),
        bio: None,
        verified: false,
        location: None,
        country: None,
    }
}

/// A lead with this profile, of the program that [`program`] makes; always the same id.
pub fn lead(profile: Profile) -> Lead {
    Lead {
        id: LeadId::from_uuid(Uuid::from_u128(BASE + 1)),
        program_id: ProgramId::from_uuid(Uuid::from_u128(BASE + 2)),
        revision: 1,
        profile,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

/// A program that looks for these niches; always the same id.
pub fn program(niches: &[&str]) -> Program {
    Program {
        id: ProgramId::from_uuid(Uuid::from_u128(BASE + 2)),
        slug: "acme".parse().expect("a slug"),
        settings: ProgramSettings {
            name: "Acme".to_owned(),
            sender_name: "Kim of Acme".to_owned(),
            sender_email: None,
            reply_to: None,
            postal_address: None,
            privacy_url: None,
            threshold: 70,
            niches: niches.iter().map(|&niche| niche.to_owned()).collect(),
            product: "A meal planner".to_owned(),
            basis: Basis::LegitimateInterest,
            daily_cap: None,
            paused: false,
        },
    }
}
