//! Claims on paid analyses.

use std::{collections::HashMap, time::Duration};

use crate::world::{World, profile};
use domain::id::{LeadId, LeaseToken, ProgramId};
use store::{
    analysis_claims::{self, AnalysisClaim, ClaimResult},
    enrichments::Written,
};
use tokio::sync::Notify;

const LIFE: Duration = Duration::from_mins(1);

fn claim(world: &World, lead_id: LeadId, lead_revision: i32) -> AnalysisClaim {
    AnalysisClaim { program_id: world.id(), lead_id, lead_revision, holder: LeaseToken::generate() }
}

async fn take(world: &World, claims: &[AnalysisClaim]) -> HashMap<AnalysisClaim, ClaimResult> {
    world
        .db
        .transact("test.claim", |tx, _| Box::pin(async move { analysis_claims::take(tx, claims, LIFE).await }))
        .await
        .unwrap()
}

async fn take_one(world: &World, claim: AnalysisClaim) -> ClaimResult {
    take(world, &[claim]).await[&claim]
}

async fn release(world: &World, claims: &[AnalysisClaim]) {
    world
        .db
        .transact("test.release", |tx, _| Box::pin(async move { analysis_claims::release(tx, claims).await }))
        .await
        .unwrap();
}

async fn claims(world: &World) -> i64 {
    world.count("SELECT count(*) FROM analysis_claims").await
}

#[tokio::test]
async fn an_analysis_is_claimed_by_one_until_it_is_given_back() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    let (first, second) = (claim(&world, lead, 1), claim(&world, lead, 1));
    assert_eq!(take_one(&world, first).await, ClaimResult::Taken);
    let ClaimResult::Held { remaining } = take_one(&world, second).await else { panic!("it was claimed twice") };
    assert!(remaining > LIFE / 2 && remaining <= LIFE, "{remaining:?}");
    // As after a COMMIT whose answer was lost.
    assert_eq!(take_one(&world, first).await, ClaimResult::Taken);
    release(&world, &[second]).await;
    assert_eq!(claims(&world).await, 1, "a claim was given back by somebody else");
    release(&world, &[first]).await;
    assert_eq!(take_one(&world, second).await, ClaimResult::Taken);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_claim_ends_by_its_time_and_its_former_holder_takes_nothing_away() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    let (dead, next) = (claim(&world, lead, 1), claim(&world, lead, 1));
    assert_eq!(take_one(&world, dead).await, ClaimResult::Taken);
    world.execute("UPDATE analysis_claims SET expires_at = now()").await;
    assert_eq!(take_one(&world, next).await, ClaimResult::Taken);
    release(&world, &[dead]).await;
    assert!(matches!(take_one(&world, claim(&world, lead, 1)).await, ClaimResult::Held { .. }));
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_newer_revision_does_not_wait_for_the_analysis_of_an_older_one() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    let (older, newer) = (claim(&world, lead, 1), claim(&world, lead, 2));
    assert_eq!(take_one(&world, older).await, ClaimResult::Taken);
    assert_eq!(take_one(&world, newer).await, ClaimResult::Taken);
    assert!(matches!(take_one(&world, claim(&world, lead, 1)).await, ClaimResult::Held { .. }));
    world.database.cleanup().await;
}

#[tokio::test]
async fn what_is_enriched_is_not_claimed_and_leaves_no_claim() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    assert_eq!(world.enrich(&world.open_lead(lead).await, 90).await, Written::New { version: 1 });
    assert_eq!(take_one(&world, claim(&world, lead, 1)).await, ClaimResult::Enriched);
    assert_eq!(claims(&world).await, 0);
    assert_eq!(take_one(&world, claim(&world, lead, 2)).await, ClaimResult::Taken);
    world.database.cleanup().await;
}

#[tokio::test]
async fn who_waited_for_the_holders_transaction_sees_what_it_has_stored() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    let first = claim(&world, lead, 1);
    assert_eq!(take_one(&world, first).await, ClaimResult::Taken);
    let open = world.open_lead(lead).await;
    let sealed = [store::enrichments::seal(&open, &[], crate::world::enrichment(90))];
    let second = claim(&world, lead, 1);
    let mut witness = world.database.connect().await;
    // The second asks in the middle of the transaction that stores the answer, after it has deleted the claim.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let (witness, sealed, first) = (tokio::sync::Mutex::new(&mut witness), &sealed, [first]);
    let deleted = Notify::new();
    let deleted = &deleted;
    let (witness, first, world) = (&witness, first.as_slice(), &world);
    let storing = world.db.transact("test.store", |tx, _| {
        Box::pin(async move {
            store::enrichments::write(tx, sealed, crate::world::NOW).await?;
            analysis_claims::release(tx, first).await?;
            deleted.notify_one();
            while test_support::postgres::number(&mut **witness.lock().await, waiting).await? == 0 {}
            Ok(())
        })
    });
    let asking = async {
        deleted.notified().await;
        take_one(world, second).await
    };
    let (stored, result) = tokio::join!(storing, asking);
    stored.unwrap();
    assert_eq!(result, ClaimResult::Enriched);
    assert_eq!(claims(world).await, 0);
}

#[tokio::test]
async fn many_are_claimed_at_once_each_lead_once_and_in_several_programs() {
    let mut world = World::new().await;
    let mut all = Vec::new();
    for slug in ["second", "third"] {
        for name in ["ann", "bob"] {
            let lead = world.accept_one(profile(name)).await;
            all.extend([claim(&world, lead, 1), claim(&world, lead, 1)]);
        }
        world.change_program(slug).await;
    }
    let results = take(&world, &all).await;
    let taken: Vec<AnalysisClaim> = all.iter().copied().filter(|claim| results[claim] == ClaimResult::Taken).collect();
    let leads: std::collections::BTreeSet<(ProgramId, LeadId)> =
        taken.iter().map(|claim| (claim.program_id, claim.lead_id)).collect();
    assert_eq!((taken.len(), leads.len()), (4, 4), "{results:?}");
    assert!(all.iter().all(|claim| results[claim] != ClaimResult::Enriched));
    release(&world, &all).await;
    assert_eq!(claims(&world).await, 0);
    world.database.cleanup().await;
}
