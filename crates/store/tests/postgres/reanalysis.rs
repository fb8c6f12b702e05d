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
    // What the enricher wrote carries the time of the test, which is long past.
    assert_eq!(world.analyse_again().await, 1);
    assert_eq!(world.revision().await, (2, 2));
    assert_eq!(world.analyse_again().await, 0);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 2);
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
