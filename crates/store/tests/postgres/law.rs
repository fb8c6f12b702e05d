//! Whom the law lets a program write to: evidence, its expiry, and the rules' version, from the intake to the sending.

use domain::{
    clock::{Clock as _, SystemClock},
    id::{LeadId, LeaseToken},
    law::evidence::{ConsentEvidence, Evidence, PublishedAddress},
    lead::Country,
    legal::Basis,
    submission::Submission,
};
use store::{
    contact_evidence,
    enrichments::Written,
    intake::{Accepted, Dedupe},
    outreach::{
        data_phase,
        plan::{Planned, Start},
        reevaluate,
    },
    programs::Change,
};
use time::{Duration, OffsetDateTime};

use crate::world::{World, profile};

/// Consent that was given so many days ago, and expires in so many.
fn consent(given: i64, expires: Option<i64>) -> Evidence {
    let at = |days| (SystemClock.now() + Duration::days(days)).replace_nanosecond(0).unwrap();
    Evidence::Consent(ConsentEvidence {
        source: "https://acme.example/partners".to_owned(),
        wording: "Yes, write to me about partnerships".to_owned(),
        given_at: at(-given),
        expires_at: expires.map(at),
    })
}

fn published() -> Evidence {
    let seen_at = (SystemClock.now() - Duration::DAY).replace_nanosecond(0).unwrap();
    Evidence::PublishedAddress(PublishedAddress { url: "https://ann.example/contact".to_owned(), seen_at })
}

fn submission(country: &str, evidence: &[Evidence]) -> Submission {
    let mut profile = profile("ann");
    profile.country = Country::parse(country).ok();
    Submission { line: 7, evidence: evidence.to_vec(), ..profile.into() }
}

async fn take_in(world: &World, submission: Submission, dedupe: Dedupe) -> Accepted {
    let mut batch = world.batch(vec![], vec![], dedupe);
    batch.items = vec![submission];
    world.try_accept(batch).await.unwrap().items[0]
}

/// Takes a lead in, and enriches it.
async fn enriched(world: &World, country: &str, evidence: &[Evidence]) -> LeadId {
    let Accepted::New(lead) = take_in(world, submission(country, evidence), Dedupe::Skip).await else {
        panic!("not new")
    };
    assert_eq!(world.enrich(&world.open_lead(lead).await, 90).await, Written::New { version: 1 });
    lead
}

async fn decide(world: &World, lead: LeadId, version: i32) -> Planned {
    world.plan(&[world.plan_item(lead, version, Start::Queued)]).await[0]
}

async fn reasons(world: &World) -> String {
    world.text("SELECT decision || ' ' || array_to_string(decision_reasons, ' ') FROM enriched_leads").await
}

async fn begin(world: &World, lease: data_phase::Lease) -> bool {
    let begun = world
        .db
        .transact("test.begin", |tx, _| Box::pin(async move { data_phase::begin_data(tx, &[lease], 60).await }))
        .await
        .unwrap();
    if !begun.is_empty() {
        return true;
    }
    world
        .db
        .transact("test.abort", |tx, _| Box::pin(async move { data_phase::abort(tx, &[lease]).await }))
        .await
        .unwrap();
    false
}

/// Lets the consent expire, and with it the plan that rests on it.
async fn expire(world: &World) {
    world.execute("UPDATE contact_evidence SET expires_at = now() - interval '1 second'").await;
    world.execute("UPDATE outreach SET permitted_until = now() - interval '1 second'").await;
}

#[tokio::test]
async fn the_basis_of_a_program_opens_no_country() {
    let world = World::new().await;
    world.set(Change { basis: Some(Basis::Consent), ..Change::default() }).await;
    let lead = enriched(&world, "DE", &[]).await;
    assert_eq!(decide(&world, lead, 1).await, Planned::Declined);
    assert_eq!(reasons(&world).await, "declined legal_denied:v2/email/de/opt_in/no_consent");
}

#[tokio::test]
async fn consent_is_stored_sealed_with_its_origin_and_opens_the_country_until_it_expires() {
    let world = World::new().await;
    let evidence = consent(30, Some(30));
    let lead = enriched(&world, "DE", std::slice::from_ref(&evidence)).await;
    assert!(matches!(decide(&world, lead, 1).await, Planned::Queued(_)));
    let remembered = "SELECT law_version || ' ' || law_rule || ' ' || (permitted_until = e.expires_at)
                      FROM outreach JOIN contact_evidence e USING (program_id, lead_id)";
    assert_eq!(world.text(remembered).await, "2 v2/email/de/opt_in/consent true");

    let id = (world.id(), lead);
    let open = [(id, world.open(lead).await)].into();
    let stored = contact_evidence::of(&world.db, &[id], &open).await.unwrap().remove(&lead).unwrap();
    assert_eq!(stored.into_iter().map(|stored| stored.evidence).collect::<Vec<_>>(), [evidence]);
    let origin =
        "SELECT (l.run_id = e.run_id) || ' ' || l.line || ' ' || e.line || ' ' || l.country_source || ' ' || r.kind
                  FROM leads l JOIN contact_evidence e ON e.lead_id = l.id JOIN collection_runs r ON r.id = l.run_id";
    assert_eq!(world.text(origin).await, "true 7 7 1 import");
    let readable = "SELECT count(*) FROM contact_evidence WHERE position('partnerships'::bytea IN evidence) > 0";
    assert_eq!(world.count(readable).await, 0, "the wording is sealed");
    world.erase(lead).await;
    let open = [(id, world.open(lead).await)].into();
    assert!(contact_evidence::of(&world.db, &[id], &open).await.unwrap().is_empty(), "nobody can read it any more");
}

#[tokio::test]
async fn consent_that_expired_before_the_decision_opens_nothing() {
    let world = World::new().await;
    let lead = enriched(&world, "DE", &[consent(30, Some(30))]).await;
    expire(&world).await;
    assert_eq!(decide(&world, lead, 1).await, Planned::Declined);
    assert_eq!(reasons(&world).await, "declined legal_denied:v2/email/de/opt_in/consent_expired");
}

#[tokio::test]
async fn consent_that_expires_while_a_mail_waits_ends_it_and_new_consent_revives_it() {
    let world = World::new().await;
    let lead = enriched(&world, "DE", &[consent(30, Some(30))]).await;
    let Planned::Queued(mail) = decide(&world, lead, 1).await else { panic!("not queued") };
    expire(&world).await;
    let claim = world.claim(10).await;
    assert_eq!((claim.claimed.len(), claim.moved.len()), (0, 1));
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
    assert_eq!(reasons(&world).await, "declined legal_denied:v2/email/de/opt_in/consent_expired");

    let renewed = submission("DE", &[consent(0, Some(300))]);
    assert_eq!(take_in(&world, renewed, Dedupe::Update).await, Accepted::Updated(lead));
    assert_eq!(world.enrich(&world.open_lead(lead).await, 90).await, Written::New { version: 2 });
    assert_eq!(decide(&world, lead, 2).await, Planned::Existing);
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(world.claim(10).await.claimed.len(), 1);
}

#[tokio::test]
async fn no_body_goes_out_under_consent_that_has_expired_since_the_claim() {
    let world = World::new().await;
    let lead = enriched(&world, "DE", &[consent(30, Some(30))]).await;
    let Planned::Queued(mail) = decide(&world, lead, 1).await else { panic!("not queued") };
    let claimed = world.claim(10).await.claimed.remove(0);
    expire(&world).await;
    assert!(!begin(&world, (claimed.program_id, claimed.id, claimed.token)).await);
    assert_eq!(world.state(mail).await, "queued");
    world.claim(10).await;
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
}

#[tokio::test]
async fn a_mail_that_is_started_with_its_plan_goes_out_under_consent_that_holds() {
    let world = World::new().await;
    let lead = enriched(&world, "DE", &[consent(30, None)]).await;
    let token = LeaseToken::generate();
    let recipient = world.program.keys.email_index(&"ann@studio.example.com".parse().unwrap());
    let start = Start::Claimed { token, seconds: 60, recipient, ignores_cap: true };
    let [Planned::Claimed(mail)] = world.plan(&[world.plan_item(lead, 1, start)]).await[..] else { panic!("no") };
    assert!(begin(&world, (world.id(), mail, token)).await);
}

#[tokio::test]
async fn evidence_about_one_address_says_nothing_about_another() {
    let world = World::new().await;
    let lead = enriched(&world, "DE", &[consent(30, None)]).await;
    let Planned::Queued(mail) = decide(&world, lead, 1).await else { panic!("not queued") };
    let mut moved = submission("DE", &[]);
    moved.profile.email = "ann@elsewhere.example.com".parse().ok();
    assert_eq!(take_in(&world, moved, Dedupe::Update).await, Accepted::Updated(lead));
    assert_eq!(world.claim(10).await.claimed.len(), 0);
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
}

#[tokio::test]
async fn a_published_address_opens_france_to_a_program_whose_niche_it_is() {
    let world = World::new().await;
    let lead = enriched(&world, "FR", &[published()]).await;
    assert_eq!(decide(&world, lead, 1).await, Planned::Declined);
    assert_eq!(reasons(&world).await, "declined legal_denied:v2/email/fr/business_address/not_relevant");
    world.set(Change { niches: Some(vec!["Food".to_owned()]), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(reasons(&world).await, "planned ");
    let remembered = "SELECT law_rule || ' ' || coalesce(permitted_until::text, 'for good') FROM outreach";
    assert_eq!(world.text(remembered).await, "v2/email/fr/business_address/published for good");
    assert_eq!(world.claim(10).await.claimed.len(), 1);
}

#[tokio::test]
async fn evidence_that_is_known_or_older_changes_nothing_and_newer_evidence_replaces_it() {
    let world = World::new().await;
    let (old, new) = (consent(30, None), consent(3, Some(30)));
    let lead = enriched(&world, "DE", &[old.clone(), published()]).await;
    let update = |evidence: &[Evidence]| take_in(&world, submission("DE", evidence), Dedupe::Update);
    assert_eq!(update(&[old.clone(), published()]).await, Accepted::Duplicate(lead));
    assert_eq!(update(std::slice::from_ref(&new)).await, Accepted::Updated(lead));
    assert_eq!(update(&[old]).await, Accepted::Duplicate(lead), "an older file says less");
    assert_eq!(update(&[new]).await, Accepted::Duplicate(lead));
    assert_eq!(world.count("SELECT count(*) FROM contact_evidence").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM contact_evidence WHERE expires_at IS NOT NULL").await, 1);
}

#[tokio::test]
async fn a_mail_that_an_older_release_planned_is_decided_about_before_it_is_sent() {
    let world = World::new().await;
    let lead = enriched(&world, "US", &[]).await;
    let Planned::Queued(mail) = decide(&world, lead, 1).await else { panic!("not queued") };
    let older = "UPDATE outreach SET law_version = NULL, law_rule = NULL, due_at = now()";
    world.execute(older).await;
    assert_eq!(world.claim(10).await.moved.len(), 1);
    assert_eq!(world.state(mail).await, "queued");
    world.let_time_pass().await;
    assert_eq!(world.claim(10).await.claimed.len(), 1);

    // Its law let it write to Sweden.
    world.execute("UPDATE outreach SET state = 'queued', lease_token = NULL").await;
    world.execute(older).await;
    world.execute("UPDATE leads SET country = 'SE'").await;
    assert_eq!(world.claim(10).await.claimed.len(), 0);
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
    assert_eq!(reasons(&world).await, "declined legal_denied:v2/email/se/denied");
}

#[tokio::test]
async fn newer_rules_decide_again_about_every_lead() {
    let world = World::new().await;
    let lead = enriched(&world, "US", &[]).await;
    let Planned::Queued(mail) = decide(&world, lead, 1).await else { panic!("not queued") };
    reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM programs WHERE law_version = 2").await, 1);
    world.execute("UPDATE leads SET country = 'EE'").await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 0, "nothing has changed");
    world.execute("UPDATE programs SET law_version = 1").await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 1);
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
}

#[tokio::test]
async fn a_lead_without_evidence_costs_no_row_of_it() {
    let world = World::new().await;
    enriched(&world, "US", &[]).await;
    assert_eq!(world.count("SELECT count(*) FROM contact_evidence").await, 0);
}

#[tokio::test]
async fn times_that_are_stored_are_those_that_are_sealed() {
    let world = World::new().await;
    let evidence = consent(30, Some(30));
    enriched(&world, "DE", std::slice::from_ref(&evidence)).await;
    let mut connection = world.database.connect().await;
    let (captured_at, expires_at): (OffsetDateTime, Option<OffsetDateTime>) =
        sqlx::query_as("SELECT captured_at, expires_at FROM contact_evidence")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((captured_at, expires_at), (evidence.captured_at(), evidence.expires_at()));
}
