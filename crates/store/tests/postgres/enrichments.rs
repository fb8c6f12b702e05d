//! Writing enrichments and reading them back.

use crate::world::{NOW, World, enrichment, profile};
use store::{
    enrichments::{self, FoundEnriched, Written},
    intake::Dedupe,
};

#[tokio::test]
async fn an_enrichment_is_read_back_with_its_lead() {
    let world = World::new().await;
    let id = world.enriched(profile("ann")).await;
    let key = (world.id(), id);
    let found = enrichments::open(&world.db, &world.vault, &[key]).await.unwrap().remove(&key).unwrap();
    let FoundEnriched::Enriched(found) = found else { panic!("{found:?}") };
    assert_eq!(found.enrichment, enrichment(90));
    assert_eq!(found.lead.lead.profile, profile("ann"));
    assert_eq!((found.version, found.sent, found.suppressed, found.decided_version), (1, false, false, None));
}

#[tokio::test]
async fn a_redelivered_event_changes_nothing() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    let lead = world.open_lead(id).await;
    assert_eq!(world.enrich(&lead, 90).await, Written::New { version: 1 });
    assert_eq!(world.enrich(&lead, 10).await, Written::Stale);
    assert_eq!(world.count("SELECT score::bigint FROM enriched_leads").await, 90);
}

#[tokio::test]
async fn a_late_answer_does_not_overwrite_a_newer_one() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    let old = world.open_lead(id).await;
    let mut changed = profile("ann");
    changed.bio = Some("I bake cakes".to_owned());
    world.accept(vec![changed], Dedupe::Update).await;
    let new = world.open_lead(id).await;
    assert_eq!(world.enrich(&new, 80).await, Written::New { version: 1 });
    assert_eq!(world.enrich(&old, 20).await, Written::Stale);
    assert_eq!(world.count("SELECT score::bigint FROM enriched_leads").await, 80);
}

#[tokio::test]
async fn one_batch_may_hold_a_lead_twice() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    let lead = world.open_lead(id).await;
    let batch = [enrichments::seal(&lead, &[], enrichment(50)), enrichments::seal(&lead, &[], enrichment(60))];
    let written = world
        .db
        .transact("test.enrich", |tx, _| {
            let batch = &batch;
            Box::pin(async move { enrichments::write(tx, batch, NOW).await })
        })
        .await
        .unwrap();
    assert_eq!(written, [Written::New { version: 1 }, Written::Stale]);
}

#[tokio::test]
async fn nothing_is_written_about_an_erased_lead() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    let lead = world.open_lead(id).await;
    world.erase(id).await;
    assert_eq!(world.enrich(&lead, 90).await, Written::Erased);
    assert_eq!(world.count("SELECT count(*) FROM enriched_leads").await, 0);
}
