//! Leads are analysed for what their program looks for, also when that changes meanwhile.

use store::{enrichments::Written, programs::Change, reanalysis};

use crate::world::{NOW, World, profile};

fn tea() -> Vec<String> {
    vec!["tea".to_owned()]
}

impl World {
    /// The lead's revision, and whether its enrichment is awaited.
    async fn revision(&self) -> (i64, i64) {
        (
            self.count("SELECT revision::bigint FROM leads").await,
            self.count("SELECT coalesce(awaited_revision, 0)::bigint FROM lead_keys").await,
        )
    }

    async fn looks_for_tea(&self) {
        self.set(Change { niches: Some(tea()), ..Change::default() }).await;
    }

    async fn analyse_again(&self) -> u64 {
        reanalysis::program(&self.db, self.id(), NOW, |_| ()).await.unwrap()
    }
}

#[tokio::test]
async fn a_lead_that_was_analysed_before_the_niches_changed_is_analysed_again_once() {
    let world = World::new().await;
    world.enriched(profile("ann")).await;
    assert_eq!(world.revision().await, (1, 0));
    world.looks_for_tea().await;
    assert_eq!(world.analyse_again().await, 1);
    assert_eq!(world.revision().await, (2, 2));
    assert_eq!(world.analyse_again().await, 0);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 2);
    // Not before every enricher knows the new niches.
    let seconds = "SELECT extract(epoch FROM min(available_at) - now())::bigint FROM outbox";
    assert!((3..=5).contains(&world.count(seconds).await));
}

#[tokio::test]
async fn an_analysis_that_was_stored_while_the_leads_were_gone_through_is_found_by_the_second_pass() {
    let world = World::new().await;
    world.looks_for_tea().await;
    assert_eq!(world.analyse_again().await, 0);
    // Its transaction began before the niches changed, and ended after the first pass.
    let ann = world.accept_one(profile("ann")).await;
    world.enrich_for(&tea(), &world.open_lead(ann).await, 90).await;
    world
        .execute("UPDATE enriched_leads SET updated_at = p.niches_changed_at - interval '1 second' FROM programs p")
        .await;
    assert_eq!(world.analyse_again().await, 0, "too soon");
    world.execute("UPDATE enriched_leads SET updated_at = updated_at - interval '1 hour'").await;
    world.let_time_pass().await;
    assert_eq!(world.analyse_again().await, 1);
    world.execute("UPDATE leads SET revision = 1").await;
    assert_eq!(world.analyse_again().await, 0, "there are two passes, no more");
}

#[tokio::test]
async fn a_lead_that_was_written_to_is_not_analysed_again() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    world.execute("UPDATE enriched_leads SET sent = true").await;
    world.looks_for_tea().await;
    assert_eq!(world.analyse_again().await, 0);
    world.execute("UPDATE leads SET revision = 2").await;
    assert_eq!(world.enrich(&world.open_lead(ann).await, 80).await, Written::New { version: 2 });
    assert_eq!(world.revision().await.0, 2);
}

#[tokio::test]
async fn a_lead_whose_analysis_was_under_way_when_the_niches_changed_is_analysed_again_once() {
    let world = World::new().await;
    let ann = world.accept_one(profile("ann")).await;
    let asked = world.open_lead(ann).await;
    world.looks_for_tea().await;
    assert_eq!(world.analyse_again().await, 0, "it has no enrichment yet");
    assert_eq!(world.enrich(&asked, 90).await, Written::New { version: 1 });
    assert_eq!(world.revision().await, (2, 2));
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 2);

    let asked = world.open_lead(ann).await;
    assert_eq!(world.enrich_for(&tea(), &asked, 80).await, Written::New { version: 2 });
    assert_eq!(world.revision().await, (2, 0));
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 2);
}
