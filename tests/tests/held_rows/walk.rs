//! One walk: a program of its own with a few leads, and the functions of `store` that the services call.

use std::time::Duration;

use domain::{
    clock::{Clock as _, SystemClock},
    email::EmailAddress,
    enrichment::{Confidence, Enrichment, Provider, Score},
    event::TraceContext,
    id::{LeadId, LeaseToken, ProgramId, RunId},
    law::evidence::{ConsentEvidence, Evidence},
    lead::{Country, Profile, SourceName},
    program::{ProgramSettings, Slug},
    submission::Submission,
};
use leadmill_tests::stack;
use sqlx::{Executor as _, PgConnection};
use store::{
    Db, DbConfig,
    enrichments::{self, FoundEnriched},
    intake::{self, Accepted, Dedupe, IntakeBatch},
    leads::{self, Found},
    outreach::{
        claim::{self, Claim, Claimed},
        data_phase,
        plan::{Occasion, PlanItem, plan},
        recipients, reevaluate,
        release::{self, Filter},
        settle::{self, Outcome, Settlement},
    },
    programs::{self, Change, Changed, OpenProgram},
    runs::{self, RunKind},
    suppressions::{self, SuppressionReason},
};
use test_support::postgres::TestDatabase;
use uuid::Uuid;
use vault::{DataKey, MasterKey, Vault};

/// The score of an enrichment that speaks for a lead.
pub const SCORE: i64 = 90;
const LEASE_SECONDS: i32 = 60;
/// Rounds after which nothing changes any more.
const CALM_ROUNDS: usize = 3;

/// What all walks share: one database.
pub struct Shared {
    database: TestDatabase,
    db: Db,
    vault: Vault,
}

impl Shared {
    /// A database for so many walks at the same time.
    pub async fn new(at_once: usize) -> Self {
        let database = TestDatabase::create().await;
        // Nothing here is about what survives a crash, and there are tens of thousands of commits.
        let quick = format!(r#"ALTER DATABASE "{}" SET synchronous_commit = off"#, database.name());
        database.connect().await.execute(quick.as_str()).await.expect("a database of ours");
        let connections = u32::try_from(at_once).expect("a few");
        let db = Db::new(&DbConfig { max_connections: connections, ..DbConfig::new(database.url()) }).expect("a URL");
        Self { database, db, vault: Vault::new(MasterKey::generate(), Vec::new()) }
    }

    /// A connection, to look behind the scenes with.
    pub async fn connect(&self) -> PgConnection {
        self.database.connect().await
    }

    /// Deletes the database.
    pub async fn cleanup(self) {
        self.db.close().await;
        self.database.cleanup().await;
    }
}

/// A program with four leads, all of whose mails are planned.
pub struct Walk {
    name: String,
    db: Db,
    vault: Vault,
    program: OpenProgram,
    slug: Slug,
    id: ProgramId,
    run: RunId,
    /// Has the address `shared`, and its mail waits to be claimed.
    pub first: LeadId,
    /// Has the same address, and waits for the first.
    pub duplicate: LeadId,
    /// Has an address of its own, in a country where consent is needed, which it has given for that address.
    pub other: LeadId,
    /// Is of a country that nobody knows.
    pub unplaced: LeadId,
}

/// Runs a closure over a transaction.
macro_rules! transact {
    ($walk:expr, |$tx:ident| $work:expr) => {
        $walk.db.transact("test.walk", |$tx, _| Box::pin(async move { $work.await })).await.expect("it is committed")
    };
}

impl Walk {
    /// The program, its leads, and their first decisions.
    pub async fn begin(shared: &Shared, index: usize, name: String) -> Self {
        let slug: Slug = format!("walk-{index}").parse().expect("a short name");
        let settings = ProgramSettings { threshold: 70, ..stack::settings() };
        let now = SystemClock.now();
        let program = programs::create(&shared.db, &shared.vault, &slug, &settings, now).await.expect("a program");
        let (id, run, nobody) = (program.program.id, RunId::generate(), LeadId::generate());
        let mut walk = Self {
            name,
            db: shared.db.clone(),
            vault: shared.vault.clone(),
            program,
            slug,
            id,
            run,
            first: nobody,
            duplicate: nobody,
            other: nobody,
            unplaced: nobody,
        };
        transact!(walk, |tx| runs::start(tx, id, run, RunKind::Import, None, now));
        walk.first = walk.accept(profile("first", "shared")).await;
        walk.enrich(walk.first, SCORE).await;
        walk.decide().await;
        walk.duplicate = walk.accept(profile("duplicate", "shared")).await;
        walk.other = walk.accept(profile("other", "other")).await;
        walk.unplaced = walk.accept(Profile { country: None, ..profile("unplaced", "unplaced") }).await;
        for lead in [walk.duplicate, walk.other, walk.unplaced] {
            walk.enrich(lead, SCORE).await;
        }
        walk.decide().await;
        walk
    }

    /// Its events.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its program.
    pub fn program(&self) -> Uuid {
        self.id.as_uuid()
    }

    /// Its leads.
    pub fn leads(&self) -> [Uuid; 4] {
        self.ids().map(|lead| lead.as_uuid())
    }

    fn ids(&self) -> [LeadId; 4] {
        [self.first, self.duplicate, self.other, self.unplaced]
    }

    async fn take_in(&self, profile: Profile, dedupe: Dedupe) -> Accepted {
        let mut submission = Submission::from(profile);
        if submission.profile.country.is_some_and(|country| country.as_str() == "DE") {
            submission.evidence.push(consent());
        }
        let batch = IntakeBatch {
            run_id: self.run,
            items: vec![submission],
            rejects: Vec::new(),
            dedupe,
            likely_new: false,
            trace: TraceContext::default(),
            now: SystemClock.now(),
            idempotency: None,
        };
        let answer = |_: &[Accepted]| serde_json::Value::Null;
        let outcome = intake::accept(&self.db, &self.vault, &self.program, &batch, answer).await;
        outcome.expect("the batch is taken in").items[0]
    }

    async fn accept(&self, profile: Profile) -> LeadId {
        match self.take_in(profile, Dedupe::Skip).await {
            Accepted::New(lead) => lead,
            other => panic!("not a new lead: {other:?}"),
        }
    }

    /// The lead, unless it was erased.
    async fn open(&self, lead: LeadId) -> Option<leads::OpenLead> {
        let mut found = leads::open(&self.db, &self.vault, &[(self.id, lead)]).await.expect("leads can be read");
        match found.remove(&(self.id, lead)) {
            Some(Found::Lead(lead)) => Some(*lead),
            Some(Found::Erased) => None,
            other => panic!("not a lead: {other:?}"),
        }
    }

    /// Writes an enrichment of the lead's current revision.
    async fn enrich(&self, lead: LeadId, score: i64) {
        let Some(open) = self.open(lead).await else { return };
        let sealed = [enrichments::seal(&open, &[], enrichment(score))];
        let (sealed, now) = (&sealed, SystemClock.now());
        transact!(self, |tx| enrichments::write(tx, sealed, now));
    }

    /// Changes a lead's profile, and lets the change come through. One that was erased stays so.
    async fn change(&self, lead: LeadId, score: i64, change: impl FnOnce(&mut Profile)) {
        let Some(open) = self.open(lead).await else { return };
        let mut profile = open.lead.profile;
        change(&mut profile);
        self.take_in(profile, Dedupe::Update).await;
        self.enrich(lead, score).await;
        self.decide().await;
    }

    /// Lets a newer revision of a lead be enriched with this score.
    pub async fn enrich_anew(&self, lead: LeadId, score: i64) {
        self.change(lead, score, |profile| profile.bio = Some(format!("a bio of score {score}, {}", Uuid::now_v7())))
            .await;
    }

    /// Gives a lead another address.
    pub async fn move_to(&self, lead: LeadId, label: &str) {
        self.change(lead, SCORE, |profile| profile.email = Some(address(label))).await;
    }

    /// Lets it be known where the lead of an unknown country lives.
    pub async fn find_country_out(&self) {
        self.change(self.unplaced, SCORE, |profile| profile.country = Country::parse("US").ok()).await;
    }

    /// Lets all consent expire, and the plans that rest on it.
    pub async fn let_consent_expire(&self) {
        let of_ours = format!("WHERE program_id = '{}'", self.id);
        let past = "now() - interval '1 second'";
        self.execute(&format!(
            "UPDATE contact_evidence SET captured_at = now() - interval '1 day', expires_at = {past} {of_ours}"
        ))
        .await;
        self.execute(&format!(
            "UPDATE outreach SET permitted_until = {past} {of_ours} AND permitted_until IS NOT NULL"
        ))
        .await;
    }

    /// Takes the consent in that the lead gives which needs one.
    pub async fn renew_consent(&self) {
        self.change(self.other, SCORE, |_| ()).await;
    }

    /// Lets what was decided so far rest on older rules.
    pub async fn change_law(&self) {
        let of_ours = format!("WHERE program_id = '{}'", self.id);
        self.execute(&format!("UPDATE programs SET law_version = 1 WHERE id = '{}'", self.id)).await;
        self.execute(&format!("UPDATE outreach SET law_version = 1 {of_ours} AND law_version IS NOT NULL")).await;
    }

    /// Decides about every lead whose newest enrichment wasn't decided about, as the stage behind the queue does.
    pub async fn decide(&self) {
        let ids: Vec<_> = self.ids().map(|lead| (self.id, lead)).into();
        let found = enrichments::open(&self.db, &self.vault, &ids).await.expect("leads can be read");
        let items: Vec<PlanItem> = found
            .into_iter()
            .filter_map(|((program, lead), found)| match found {
                FoundEnriched::Enriched(enriched) => {
                    let occasion = Occasion::Enriched { version: enriched.version };
                    Some(PlanItem { occasion, ..PlanItem::again(program, lead) })
                }
                _ => None,
            })
            .collect();
        let items = &items;
        transact!(self, |tx| plan(tx, items));
    }

    /// Suppresses the recipient of a label, and cancels what is unsent to them.
    pub async fn suppress(&self, label: &str, reason: SuppressionReason) {
        let recipient = [self.program.keys.email_index(&address(label))];
        let id = self.id;
        transact!(self, |tx| suppressions::add(tx, id, &recipient, reason));
        transact!(self, |tx| recipients::cancel_suppressed(tx, id, &recipient));
    }

    /// Deletes a lead's key, which is what an erasure begins with.
    pub async fn erase(&self, lead: LeadId) {
        self.execute(&format!("DELETE FROM lead_keys WHERE program_id = '{}' AND lead_id = '{lead}'", self.id)).await;
    }

    /// Changes the program's settings, and decides again, as the command line does.
    pub async fn set(&self, change: &Change) {
        let (slug, change, now) = (&self.slug, change, SystemClock.now());
        let changed = self
            .db
            .transact("test.set", |tx, _| {
                Box::pin(async move {
                    let found = programs::by_slug_with_version(tx, slug).await?;
                    let (program, version) = found.expect("the program is there");
                    programs::set(tx, &program, version, change, now).await
                })
            })
            .await;
        assert!(matches!(changed, Ok(Changed::Done(_))), "nobody else changes it: {changed:?}");
        self.decide_again().await;
    }

    async fn decide_again(&self) {
        reevaluate::program(&self.db, self.id, |_| {}).await.expect("decisions can be made again");
    }

    /// Claims what is due and can be opened.
    async fn claim(&self) -> Vec<(Claimed, DataKey)> {
        let (id, token) = (self.id, LeaseToken::generate());
        let claim: Claim = transact!(self, |tx| claim::claim(tx, id, 10, token, LEASE_SECONDS));
        let moved = &claim.moved;
        transact!(self, |tx| plan(tx, moved));
        let mut jobs = Vec::new();
        for mail in claim.claimed {
            match self.open(mail.lead_id).await {
                Some(lead) => jobs.push((mail, lead.key)),
                None => self.abort(&mail).await,
            }
        }
        jobs
    }

    async fn begin_data(&self, mail: &Claimed) -> bool {
        let lease = [(mail.program_id, mail.id, mail.token)];
        let begun = transact!(self, |tx| data_phase::begin_data(tx, &lease, LEASE_SECONDS));
        if begun.contains(&mail.id) {
            return true;
        }
        self.abort(mail).await;
        false
    }

    async fn abort(&self, mail: &Claimed) {
        let lease = [(mail.program_id, mail.id, mail.token)];
        transact!(self, |tx| data_phase::abort(tx, &lease));
    }

    async fn settle(&self, mail: &Claimed, outcome: Outcome) {
        let settlement = [Settlement {
            program_id: mail.program_id,
            id: mail.id,
            lead_id: mail.lead_id,
            token: mail.token,
            outcome,
            reply_code: None,
            reply: None,
        }];
        let settlement = &settlement;
        let settled = self
            .db
            .transact("test.settle", |tx, _| {
                Box::pin(async move {
                    settle::lock_keys(tx, settlement).await?;
                    settle::settle(tx, settlement).await
                })
            })
            .await
            .expect("it is committed");
        for (program, recipient) in settled.suppressed {
            let recipient = [recipient];
            transact!(self, |tx| recipients::cancel_suppressed(tx, program, &recipient));
        }
    }

    /// Takes what is due through the data phase to an outcome.
    pub async fn send_due(&self, outcome: impl Fn(&Claimed, &DataKey) -> Outcome) {
        for (mail, key) in self.claim().await {
            if self.begin_data(&mail).await {
                self.settle(&mail, outcome(&mail, &key)).await;
            }
        }
    }

    /// Takes what is due to an outcome before its data phase.
    pub async fn settle_due(&self, outcome: impl Fn(&Claimed, &DataKey) -> Outcome) {
        for (mail, key) in self.claim().await {
            self.settle(&mail, outcome(&mail, &key)).await;
        }
    }

    /// Releases mails by hand.
    pub async fn release(&self, filter: &Filter) {
        release::release(&self.db, self.id, filter, |_| {}).await.expect("mails can be released");
    }

    /// Claims what is due, moves it to the data phase or not, and lets the leases run out.
    pub async fn lose_leases(&self, in_data: bool) {
        for (mail, _) in self.claim().await {
            if in_data {
                self.begin_data(&mail).await;
            }
        }
        self.expire().await;
    }

    async fn expire(&self) {
        self.pass_time("state IN ('connecting', 'transmitting')").await;
        let id = self.id;
        transact!(self, |tx| claim::expire(tx, id));
    }

    /// Runs the jobs that look at what is held and at who is suppressed, as if their time had come.
    pub async fn run_jobs(&self) {
        let id = self.id;
        self.pass_time("state = 'held'").await;
        self.execute(&format!(
            "UPDATE suppressions SET created_at = created_at - interval '5 minutes'
             WHERE program_id = '{id}' AND applied_at IS NULL"
        ))
        .await;
        self.decide_again().await;
        transact!(self, |tx| suppressions::apply(tx, id, 100));
        transact!(self, |tx| reevaluate::held(tx, id));
    }

    /// Lets everything come to its end: the jobs run, what was put off becomes due, all that is due is sent.
    pub async fn calm_down(&self) {
        for _ in 0..CALM_ROUNDS {
            self.expire().await;
            self.run_jobs().await;
            self.pass_time("state IN ('queued', 'deferred')").await;
            self.decide().await;
            self.send_due(|_, _| Outcome::Sent).await;
        }
    }

    /// Lets the time come that rows in some states wait for.
    async fn pass_time(&self, condition: &str) {
        let past = "UPDATE outreach SET due_at = now() - interval '1 second' WHERE due_at IS NOT NULL AND program_id";
        self.execute(&format!("{past} = '{}' AND {condition}", self.id)).await;
    }

    /// Runs a statement of the test's own.
    async fn execute(&self, statement: &str) {
        self.db
            .transact("test.execute", |tx, _| {
                Box::pin(async move {
                    sqlx::query(statement).execute(tx).await?;
                    Ok(())
                })
            })
            .await
            .expect("a statement of ours");
    }
}

fn address(label: &str) -> EmailAddress {
    EmailAddress::parse(&format!("{label}@people.example.com")).expect("an address")
}

fn profile(username: &str, label: &str) -> Profile {
    Profile {
        source: SourceName::parse("instagram").expect("a name"),
        username: username.parse().expect("a handle"),
        name: None,
        email: Some(address(label)),
        profile_url: None,
        follower_count: None,
        bio: None,
        verified: false,
        location: None,
        country: Country::parse(if username == "other" { "DE" } else { "US" }).ok(),
    }
}

/// Consent of this moment, for a day.
fn consent() -> Evidence {
    let given_at = SystemClock.now();
    Evidence::Consent(ConsentEvidence {
        source: "a form".to_owned(),
        wording: "You may write to me".to_owned(),
        given_at,
        expires_at: Some(given_at + Duration::from_hours(24)),
    })
}

fn enrichment(score: i64) -> Enrichment {
    Enrichment {
        niche: "food".to_owned(),
        score: Score::new(score).expect("a score"),
        notes: String::new(),
        message: "I like your bread".to_owned(),
        compliant: true,
        compliance_notes: String::new(),
        confidence: Confidence::new(0.5).expect("a confidence"),
        provider: Provider::Local,
        fallback_reason: None,
    }
}
