//! Profiles as columns: what a statement takes in one go.

use domain::{id::LeadId, lead::Profile, submission::CountrySource};
use uuid::Uuid;
use vault::{BlindIndex, IndexKey};

use super::plan::LeadKey;
use crate::{leads::SealedProfile, suppressions::NewLead};

/// The columns of the profiles that a statement writes.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ids: Vec<Uuid>,
    pub(super) names: Vec<Option<Vec<u8>>>,
    pub(super) usernames: Vec<Vec<u8>>,
    pub(super) emails: Vec<Option<Vec<u8>>>,
    pub(super) profile_urls: Vec<Option<Vec<u8>>>,
    pub(super) follower_counts: Vec<Option<i64>>,
    pub(super) bios: Vec<Option<Vec<u8>>>,
    pub(super) verified: Vec<bool>,
    pub(super) locations: Vec<Option<Vec<u8>>>,
    pub(super) countries: Vec<Option<String>>,
    pub(super) email_indexes: Vec<Option<Vec<u8>>>,
    /// How the country was found out; none where the submission says nothing about it.
    pub(super) country_sources: Vec<Option<i16>>,
    /// Per lead, the hashes of everything that covers its address by domain, 16 bytes each: an array of arrays can't be
    /// unnested by rows.
    pub(super) domain_indexes: Vec<Option<Vec<u8>>>,
    /// What a suppression can name the leads by that have an address.
    pub(super) named: Vec<NewLead>,
    /// Of new leads only.
    pub(super) sources: Vec<String>,
    pub(super) username_indexes: Vec<Vec<u8>>,
    pub(super) wrapped_keys: Vec<Vec<u8>>,
    pub(super) lines: Vec<i64>,
    /// Of changed leads only: the revision that is replaced.
    pub(super) revisions: Vec<i32>,
}

impl Columns {
    pub(super) fn push(
        &mut self,
        id: LeadId,
        profile: &Profile,
        country_source: Option<CountrySource>,
        sealed: SealedProfile,
        keys: &IndexKey,
    ) {
        let domains = profile.email.as_ref().map(|email| keys.domains_of(email));
        if let (Some(recipient), Some(domains)) = (sealed.email_index, &domains) {
            let own = [recipient, keys.username(&profile.username)];
            let subjects = own.iter().chain(domains).map(|index| index.to_vec()).collect();
            self.named.push(NewLead { recipient: recipient.to_vec(), subjects });
        }
        let joined = |domains: Vec<BlindIndex>| domains.iter().flat_map(|index| *index.as_bytes()).collect();
        self.domain_indexes.push(domains.map(joined));
        self.ids.push(id.as_uuid());
        self.names.push(sealed.name);
        self.usernames.push(sealed.username);
        self.emails.push(sealed.email);
        self.profile_urls.push(sealed.profile_url);
        self.follower_counts.push(profile.follower_count.and_then(|count| i64::try_from(count).ok()));
        self.bios.push(sealed.bio);
        self.verified.push(profile.verified);
        self.locations.push(sealed.location);
        self.countries.push(profile.country.map(|country| country.as_str().to_owned()));
        self.email_indexes.push(sealed.email_index.map(BlindIndex::to_vec));
        self.country_sources.push(country_source.map(CountrySource::code));
    }

    /// After [`Columns::push`], for a new lead.
    pub(super) fn push_new(&mut self, (source, username): LeadKey<'_>, line: u64, wrapped_key: Vec<u8>) {
        self.sources.push(source.to_owned());
        self.username_indexes.push(username.to_vec());
        self.wrapped_keys.push(wrapped_key);
        self.lines.push(i64::try_from(line).unwrap_or(i64::MAX));
    }

    /// After [`Columns::push`], for a changed lead.
    pub(super) fn push_changed(&mut self, revision: i32) {
        self.revisions.push(revision);
    }
}
