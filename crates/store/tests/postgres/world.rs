//! What the store's tests share: a database with one program, and profiles to take in.

use domain::{
    email::EmailAddress,
    enrichment::{Confidence, Enrichment, Provider, Score},
    event::TraceContext,
    handle::Handle,
    id::{LeadId, LeaseToken, OutreachId, ProgramId, RunId},
    lead::{Country, Profile, SourceName},
    legal::Basis,
    program::ProgramSettings,
    submission::Submission,
};
use store::{
    Db, DbConfig, StoreError,
    enrichments::{self, Written},
    intake::{self, Accepted, Dedupe, IntakeBatch, IntakeOutcome},
    leads::{self, Found, OpenLead},
    outreach::{
        claim::{self, Claim},
        plan::{self, Occasion, PlanItem, Planned, Start},
        reevaluate,
    },
    programs::{self, Change, OpenProgram},
    rejects::Reject,
    runs::{self, RunKind},
    suppressions,
};
use test_support::{postgres::TestDatabase, transitions};
use time::{OffsetDateTime, macros::datetime};
use vault::{MasterKey, Vault};

pub const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

pub struct World {
    pub database: TestDatabase,
    pub db: Db,
    pub vault: Vault,
    pub program: OpenProgram,
    pub run: RunId,
}

impl World {
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        transitions::enforce(&mut database.connect().await).await;
        let db = Db::new(&DbConfig::new(database.url())).unwrap();
        let vault = Vault::new(MasterKey::generate(), vec![]);
        let program = programs::create(&db, &vault, &"acme".parse().unwrap(), &settings(), NOW).await.unwrap();
        let run = RunId::generate();
        let world = Self { database, db, vault, program, run };
        world.start_run().await;
        world
    }

    /// Goes on with another program of the same database.
    pub async fn change_program(&mut self, slug: &str) {
        self.program = programs::create(&self.db, &self.vault, &slug.parse().unwrap(), &settings(), NOW).await.unwrap();
        self.run = RunId::generate();
        self.start_run().await;
    }

    pub async fn start_run(&self) {
        let (id, run) = (self.id(), self.run);
        self.db
            .transact("test.run", |tx, _| {
                Box::pin(async move { runs::start(tx, id, run, RunKind::Import, None, NOW).await })
            })
            .await
            .unwrap();
    }

    pub const fn id(&self) -> ProgramId {
        self.program.program.id
    }

    pub fn batch(&self, items: Vec<Profile>, rejects: Vec<Reject>, dedupe: Dedupe) -> IntakeBatch {
        let trace = TraceContext::default();
        let items = items.into_iter().map(Submission::from).collect();
        IntakeBatch { run_id: self.run, items, rejects, dedupe, likely_new: false, trace, now: NOW, idempotency: None }
    }

    pub async fn accept(&self, items: Vec<Profile>, dedupe: Dedupe) -> IntakeOutcome {
        self.try_accept(self.batch(items, vec![], dedupe)).await.unwrap()
    }

    pub async fn try_accept(&self, batch: IntakeBatch) -> Result<IntakeOutcome, StoreError> {
        let answer = |items: &[Accepted]| serde_json::json!({ "items": items.len() });
        intake::accept(&self.db, &self.vault, &self.program, &batch, answer).await
    }

    pub async fn accept_one(&self, profile: Profile) -> LeadId {
        match self.accept(vec![profile], Dedupe::Skip).await.items[..] {
            [Accepted::New(id)] => id,
            ref other => panic!("not accepted: {other:?}"),
        }
    }

    pub async fn open(&self, lead: LeadId) -> Found {
        let id = (self.id(), lead);
        leads::open(&self.db, &self.vault, &[id]).await.unwrap().remove(&id).unwrap()
    }

    pub async fn open_lead(&self, lead: LeadId) -> OpenLead {
        match self.open(lead).await {
            Found::Lead(lead) => *lead,
            other => panic!("not a lead: {other:?}"),
        }
    }

    pub async fn enrich(&self, lead: &OpenLead, score: i64) -> Written {
        self.enrich_for(&[], lead, score).await
    }

    /// Stores an enrichment that was made for a program that looked for `niches`.
    pub async fn enrich_for(&self, niches: &[String], lead: &OpenLead, score: i64) -> Written {
        let sealed = [enrichments::seal(lead, niches, enrichment(score))];
        let written = self
            .db
            .transact("test.enrich", |tx, _| {
                let sealed = &sealed;
                Box::pin(async move { enrichments::write(tx, sealed, NOW).await })
            })
            .await
            .unwrap();
        written[0]
    }

    /// Accepts and enriches a lead.
    pub async fn enriched(&self, profile: Profile) -> LeadId {
        let id = self.accept_one(profile).await;
        assert_eq!(self.enrich(&self.open_lead(id).await, 90).await, Written::New { version: 1 });
        id
    }

    pub fn plan_item(&self, lead: LeadId, version: i32, start: Start) -> PlanItem {
        PlanItem { occasion: Occasion::Enriched { version }, start, ..PlanItem::again(self.id(), lead) }
    }

    pub async fn plan(&self, items: &[PlanItem]) -> Vec<Planned> {
        self.db.transact("test.plan", |tx, _| Box::pin(async move { plan::plan(tx, items).await })).await.unwrap()
    }

    /// Decides about a lead and plans its mail; returns the row's id.
    pub async fn planned(&self, lead: LeadId, version: i32) -> OutreachId {
        let item = self.plan_item(lead, version, Start::Queued);
        match self.plan(&[item]).await[..] {
            [Planned::Queued(id) | Planned::Held(id)] => id,
            ref other => panic!("not planned: {other:?}"),
        }
    }

    /// Gives a lead another address, as an import with `--dedupe update` does. The lead is analysed again later.
    pub async fn change_address(&self, username: &str, address: &str) {
        let mut changed = profile(username);
        changed.email = EmailAddress::parse(address).ok();
        let outcome = self.accept(vec![changed], Dedupe::Update).await;
        assert!(matches!(outcome.items[..], [Accepted::Updated(_)]), "{:?}", outcome.items);
    }

    /// Claims up to `limit` due mails, and plans again what moved.
    pub async fn claim(&self, limit: i64) -> Claim {
        let (program, token) = (self.id(), LeaseToken::generate());
        let claim = self
            .db
            .transact("test.claim", |tx, _| Box::pin(async move { claim::claim(tx, program, limit, token, 60).await }))
            .await
            .unwrap();
        self.db.transact("test.plan_again", |tx, _| Box::pin(plan::plan(tx, &claim.moved))).await.unwrap();
        claim
    }

    /// Makes everything that waits for a time due now.
    pub async fn let_time_pass(&self) {
        self.execute("UPDATE outreach SET due_at = now() WHERE due_at > now() AND lease_token IS NULL").await;
        self.execute("UPDATE suppressions SET created_at = now() - interval '1 hour' WHERE applied_at IS NULL").await;
        self.execute(
            "UPDATE programs SET rules_changed_at = rules_changed_at - interval '1 hour',
                                 rules_applied_at = rules_applied_at - interval '1 hour',
                                 niches_changed_at = niches_changed_at - interval '1 hour',
                                 niches_applied_at = niches_applied_at - interval '1 hour'",
        )
        .await;
    }

    /// Runs what the jobs run for outreach, once.
    pub async fn run_jobs(&self) {
        let program = self.id();
        reevaluate::program(&self.db, program, |_| ()).await.unwrap();
        self.db
            .transact("test.jobs", |tx, _| {
                Box::pin(async move {
                    suppressions::apply(tx, program, 500).await?;
                    reevaluate::held(tx, program).await
                })
            })
            .await
            .unwrap();
    }

    /// Changes the program's settings.
    pub async fn set(&self, change: Change) {
        let slug = &self.program.program.slug;
        let change = &change;
        self.db
            .transact("test.set", |tx, _| {
                Box::pin(async move {
                    let (program, version) = programs::by_slug_with_version(tx, slug).await?.unwrap();
                    programs::set(tx, &program, version, change, NOW).await
                })
            })
            .await
            .unwrap();
    }

    /// A row's state and reason.
    pub async fn state(&self, id: OutreachId) -> String {
        self.text(&format!("SELECT concat_ws(' ', state, reason) FROM outreach WHERE id = '{id}'")).await
    }

    /// Deletes a lead's key, as an erasure does.
    pub async fn erase(&self, lead: LeadId) {
        self.execute(&format!("DELETE FROM lead_keys WHERE lead_id = '{lead}'")).await;
    }

    pub async fn execute(&self, sql: &str) {
        let mut connection = self.database.connect().await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }

    pub async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.database.connect().await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    /// Entries read so far from the indexes of a table. A session reports them at the latest when it ends.
    pub async fn entries_read(&mut self, table: &str) -> i64 {
        self.db.close().await;
        self.db = Db::new(&DbConfig::new(self.database.url())).unwrap();
        let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname";
        self.count(&format!("{read} = '{table}'")).await
    }

    pub async fn text(&self, sql: &str) -> String {
        let mut connection = self.database.connect().await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }
}

pub fn settings() -> ProgramSettings {
    ProgramSettings {
        name: "Acme".to_owned(),
        sender_name: "Ann of Acme".to_owned(),
        sender_email: EmailAddress::parse("ann@acme.example").ok(),
        reply_to: None,
        postal_address: Some("1 Main Street, Springfield".to_owned()),
        privacy_url: None,
        threshold: 70,
        niches: vec![],
        product: "tea".to_owned(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    }
}

pub fn profile(username: &str) -> Profile {
    Profile {
        source: SourceName::parse("instagram").unwrap(),
        username: Handle::parse(username).unwrap(),
        name: Some(format!("Name of {username}")),
        email: EmailAddress::parse(&format!("{username}@studio.example.com")).ok(),
        profile_url: None,
        follower_count: Some(12_345),
        bio: Some("I bake bread".to_owned()),
        verified: false,
        location: None,
        country: Country::parse("US").ok(),
    }
}

pub fn enrichment(score: i64) -> Enrichment {
    Enrichment {
        niche: "food".to_owned(),
        score: Score::new(score).unwrap(),
        notes: "bakes".to_owned(),
        message: "I like your bread".to_owned(),
        compliant: true,
        compliance_notes: "nothing found".to_owned(),
        confidence: Confidence::new(0.5).unwrap(),
        provider: Provider::Local,
        fallback_reason: None,
    }
}
