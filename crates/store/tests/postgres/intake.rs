//! Taking leads in.

use crate::world::{NOW, World, profile};
use domain::{
    event::{EventKind, Route},
    lead::Profile,
    reject::{Defect, RejectReason},
};
use store::{
    intake::{Accepted, Dedupe, IdempotencyKey},
    leads::Found,
    rejects::{self, Reject},
};

#[tokio::test]
async fn a_lead_is_stored_sealed_with_its_key_and_its_event() {
    let world = World::new().await;
    let outcome = world.accept(vec![profile("ann")], Dedupe::Skip).await;
    let [Accepted::New(id)] = outcome.items[..] else { panic!("{:?}", outcome.items) };
    assert_eq!(outcome.counts.accepted, 1);
    let lead = world.open_lead(id).await;
    assert_eq!(lead.lead.profile, profile("ann"));
    assert_eq!(lead.lead.revision, 1);
    let [leased] = &outcome.outbox[..] else { panic!("{:?}", outcome.outbox) };
    assert_eq!(leased.outgoing.envelope.event.kind(), EventKind::LeadCreated);
    assert_eq!(leased.outgoing.route, Route::Exchange);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 1);
    let stored = world.text("SELECT leads::text FROM leads").await;
    assert!(!stored.contains("ann") && !stored.contains(&hex::encode("ann@studio")), "readable: {stored}");
}

#[tokio::test]
async fn the_same_lead_twice_is_one_lead_and_one_event() {
    let world = World::new().await;
    let first = world.accept(vec![profile("ann"), profile("bob"), profile("ANN")], Dedupe::Skip).await;
    let [Accepted::New(ann), Accepted::New(_), Accepted::Duplicate(again)] = first.items[..] else {
        panic!("{:?}", first.items)
    };
    assert_eq!(ann, again);
    let second = world.accept(vec![profile("bob"), profile("ann")], Dedupe::Skip).await;
    assert!(second.items.iter().all(|item| matches!(item, Accepted::Duplicate(_))));
    assert_eq!(world.count("SELECT count(*) FROM leads").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 2);
    assert_eq!(world.count("SELECT accepted * 100 + duplicates FROM collection_runs").await, 203);
}

#[tokio::test]
async fn a_changed_lead_gets_a_new_revision_and_keeps_what_the_new_profile_does_not_say() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    let mut changed = profile("ann");
    changed.bio = Some("I bake cakes".to_owned());
    changed.email = None;
    let outcome = world.accept(vec![changed.clone()], Dedupe::Update).await;
    assert_eq!(outcome.items, [Accepted::Updated(id)]);
    assert_eq!(outcome.outbox[0].outgoing.envelope.event.kind(), EventKind::LeadUpdated);
    assert_eq!(outcome.outbox[0].outgoing.envelope.revision, 2);
    let lead = world.open_lead(id).await.lead;
    assert_eq!(lead.revision, 2);
    assert_eq!(lead.profile.bio.as_deref(), Some("I bake cakes"));
    assert_eq!(lead.profile.email, profile("ann").email);
    assert_eq!(world.accept(vec![changed], Dedupe::Update).await.items, [Accepted::Duplicate(id)]);
}

#[tokio::test]
async fn two_processes_that_take_the_same_leads_in_make_each_once() {
    let world = World::new().await;
    let names: Vec<String> = (0..300).map(|n| format!("user{n}")).collect();
    let forward: Vec<_> = names.iter().map(|name| profile(name)).collect();
    let backward: Vec<_> = names.iter().rev().map(|name| profile(name)).collect();
    let (one, two) = tokio::join!(world.accept(forward, Dedupe::Update), world.accept(backward, Dedupe::Update));
    assert_eq!(one.counts.accepted + two.counts.accepted, 300);
    assert_eq!(one.counts.duplicates + two.counts.duplicates, 300);
    assert_eq!(world.count("SELECT count(*) FROM leads").await, 300);
    assert_eq!(world.count("SELECT count(*) FROM lead_keys").await, 300);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 300);
}

#[tokio::test]
async fn a_batch_that_is_taken_for_new_makes_no_second_lead_of_a_known_one() {
    let world = World::new().await;
    let ann = world.accept_one(profile("ann")).await;
    let eve = world.accept_one(profile("eve")).await;
    world.erase(eve).await;
    let mut batch = world.batch(vec![profile("bob"), profile("ann"), profile("eve")], vec![], Dedupe::Skip);
    batch.likely_new = true;
    let items = world.try_accept(batch.clone()).await.unwrap().items;
    let [Accepted::New(bob), Accepted::Duplicate(same), Accepted::Erased] = items[..] else { panic!("{items:?}") };
    assert_eq!(same, ann);
    assert_eq!(world.open_lead(bob).await.lead.profile, profile("bob"));
    batch.dedupe = Dedupe::Update;
    batch.items[1].profile.bio = Some("I bake cakes".to_owned());
    let items = world.try_accept(batch).await.unwrap().items;
    assert_eq!(items, [Accepted::Duplicate(bob), Accepted::Updated(ann), Accepted::Erased]);
    assert_eq!(world.count("SELECT count(*) FROM leads").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 4);
}

#[tokio::test]
async fn an_erased_person_is_refused() {
    let world = World::new().await;
    let id = world.accept_one(profile("ann")).await;
    world.erase(id).await;
    assert!(matches!(world.open(id).await, Found::Erased));
    for dedupe in [Dedupe::Skip, Dedupe::Update] {
        let outcome = world.accept(vec![profile("ann")], dedupe).await;
        assert_eq!(outcome.items, [Accepted::Erased]);
        assert_eq!(outcome.counts.rejected, 1);
        assert!(outcome.outbox.is_empty());
    }
}

#[tokio::test]
async fn a_refused_row_is_kept_once_and_given_back() {
    let world = World::new().await;
    let reject = Reject {
        source_digest: [7; 32],
        line: 12,
        defect: Defect {
            reason: RejectReason::Invalid,
            field: "email".to_owned(),
            detail: "not an e-mail address".to_owned(),
        },
        raw: b"instagram,ann,not an address".to_vec(),
        username: None,
        email: None,
    };
    for expected in [1, 0] {
        let batch = world.batch(vec![], vec![reject.clone()], Dedupe::Skip);
        let counts = world.try_accept(batch).await.unwrap().counts;
        assert_eq!((counts.rejected, counts.rejected_new), (1, expected));
    }
    let keys = &world.program.keys;
    let page = world
        .db
        .transact("test.page", |tx, _| Box::pin(async move { rejects::page(tx, keys, None, None, 10).await }))
        .await
        .unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].line, page[0].field.as_str()), (12, "email"));
    assert_eq!(page[0].raw, b"instagram,ann,not an address");
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_does_nothing() {
    let world = World::new().await;
    let batch = |name: &str, request_hash| {
        let mut batch = world.batch(vec![profile(name)], vec![], Dedupe::Skip);
        batch.idempotency = Some(IdempotencyKey { key_hash: [1; 32], request_hash });
        batch
    };
    let (one, two) = tokio::join!(world.try_accept(batch("ann", [2; 32])), world.try_accept(batch("ann", [2; 32])));
    let (one, two) = (one.unwrap(), two.unwrap());
    let repeated: Vec<_> = [&one, &two].into_iter().filter_map(|outcome| outcome.repeated.clone()).collect();
    assert_eq!(repeated, [serde_json::json!({ "items": 1 })]);
    assert_eq!(world.count("SELECT accepted * 100 + duplicates FROM collection_runs").await, 100);
    let error = world.try_accept(batch("bob", [3; 32])).await.unwrap_err();
    assert!(error.conflict().is_some(), "{error:?}");
    assert_eq!(world.count("SELECT count(*) FROM leads").await, 1);
    let mut later = batch("bob", [3; 32]);
    later.now = NOW + time::Duration::hours(25);
    assert_eq!(world.try_accept(later).await.unwrap().counts.accepted, 1);
}

#[tokio::test]
async fn a_changed_or_moved_ciphertext_is_refused_and_spoils_no_other_lead() {
    let world = World::new().await;
    let (ann, bob) = (world.accept_one(profile("ann")).await, world.accept_one(profile("bob")).await);
    let eve = world.accept_one(profile("eve")).await;
    world.execute(&format!("UPDATE leads SET bio = set_byte(bio, 30, get_byte(bio, 30) # 1) WHERE id = '{ann}'")).await;
    world
        .execute(&format!("UPDATE leads SET email = (SELECT email FROM leads WHERE id = '{ann}') WHERE id = '{bob}'"))
        .await;
    let ids = [ann, bob, eve].map(|lead| (world.id(), lead));
    let found = store::leads::open(&world.db, &world.vault, &ids).await.unwrap();
    for lead in [ann, bob] {
        let Found::Unreadable(error) = &found[&(world.id(), lead)] else { panic!("{lead} could be read") };
        assert!(matches!(**error, store::StoreError::Sealed { table: "leads", row, .. } if row == lead.as_uuid()));
    }
    assert!(matches!(found[&(world.id(), eve)], Found::Lead(_)));
}

#[tokio::test]
async fn taking_in_reads_no_more_of_a_program_that_the_statistics_do_not_know() {
    let mut world = World::new().await;
    // So many that the index on user names has a level more than the primary key.
    world
        .execute(&format!(
            "INSERT INTO leads (program_id, id, source, username_index, index_version, created_at, updated_at)
             SELECT '{}', gen_random_uuid(), 'instagram', decode(md5(n::text), 'hex'), 1, now(), now()
             FROM generate_series(1, 20000) AS n",
            world.id()
        ))
        .await;
    world.execute("ANALYZE").await;
    world.change_program("other").await;
    world.accept((0..500).map(|n| profile(&format!("b{n}"))).collect(), Dedupe::Skip).await;
    let one = |followers| Profile { follower_count: Some(followers), ..profile("b1") };
    for dedupe in [Dedupe::Skip, Dedupe::Update] {
        let read = world.entries_read("leads").await;
        for followers in 1..=10 {
            world.accept(vec![one(followers)], dedupe).await;
        }
        let read = world.entries_read("leads").await - read;
        assert!(read < 200, "{read} index entries for ten leads out of 500");
    }
    world.database.cleanup().await;
}
