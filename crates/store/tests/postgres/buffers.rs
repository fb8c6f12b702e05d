//! What a mail costs must not depend on how many there are: the shared buffers touched by a claim, a move to the data phase,
//! a settlement and an unsubscribe, in a small and a large table of which every twentieth recipient is suppressed.
//!
//! `make buffers` runs the long form, up to a million rows.

use std::{env, fmt::Write as _, io::Write as _};

use domain::id::{LeaseToken, ProgramId};
use store::{
    outreach::{
        claim::{self, Claimed},
        data_phase, recipients,
        settle::{self, Outcome, Settlement},
    },
    suppressions::{self, SuppressionReason},
};
use test_support::transitions;
use vault::BlindIndex;

use crate::{mails::fill, world::World};

const LEASE: i32 = 60;
/// Rows of a claim, a move to the data phase, a settlement.
const BATCH: usize = 128;
/// Rows of the smaller table.
const SMALL: u32 = 10_000;
/// How much more than in the smaller table may be touched in the larger one: its indexes are a level higher.
const MOST_GROWTH: f64 = 1.5;

#[tokio::test]
async fn what_a_mail_costs_does_not_grow_with_the_number_of_mails() {
    let large = if env::var("LEADMILL_BUFFERS").as_deref() == Ok("full") { 1_000_000 } else { 100_000 };
    let (few, many) = tokio::join!(costs_among(SMALL), costs_among(large));
    let mut table =
        format!("\n{:<64} {SMALL:>9} {large:>9} {:>7}\n", "shared buffers touched, among so many mails", "growth");
    let mut grown = Vec::new();
    for (cost, of_many) in few.iter().zip(&many) {
        assert_eq!(cost.what, of_many.what);
        let growth = of_many.buffers as f64 / cost.buffers as f64;
        writeln!(table, "{:<64} {:>9} {:>9} {growth:>7.2}", cost.what, cost.buffers, of_many.buffers).unwrap();
        if growth > MOST_GROWTH {
            grown.push(cost.what.as_str());
        }
    }
    // Not by `println`, which is shown of failed tests only.
    std::io::stdout().write_all(table.as_bytes()).unwrap();
    assert!(grown.is_empty(), "more than {MOST_GROWTH} times as much among {large} mails as among {SMALL}: {grown:#?}");
}

/// What was done, and how many shared buffers it touched.
struct Cost {
    what: String,
    buffers: i64,
}

/// The costs in a table of so many mails, first for a program that the statistics don't know yet.
async fn costs_among(mails: u32) -> Vec<Cost> {
    let mut world = World::new().await;
    // What it writes down isn't a mail's cost.
    transitions::allow_all(&mut world.database.connect().await).await;
    fill(&world, 200).await;
    world.execute("ANALYZE").await;
    world.change_program("large").await;
    fill(&world, mails).await;
    world.execute("VACUUM").await;
    let mut costs = costs(&mut world, "unknown to the statistics").await;
    world.execute("ANALYZE").await;
    costs.extend(self::costs(&mut world, "known to the statistics").await);
    world.database.cleanup().await;
    costs
}

async fn costs(world: &mut World, program: &str) -> Vec<Cost> {
    world.reconnect_alone().await;
    let mut costs = Vec::new();
    let mut note = |what: &str, buffers| costs.push(Cost { what: format!("{what}, program {program}"), buffers });

    let (sent, buffers) = claim_batch(world).await;
    note("claim of 128", buffers);
    let (begun, buffers) = world.buffers_touched(begin(world, &sent)).await;
    assert_eq!(begun, BATCH);
    note("move of 128 to the data phase", buffers);
    let (settled, buffers) = world.buffers_touched(settle(world, &sent, || Outcome::Sent)).await;
    assert_eq!(settled, BATCH);
    note("settlement of 128 sent", buffers);

    let (bounced, _) = claim_batch(world).await;
    assert_eq!(begin(world, &bounced).await, BATCH);
    let bounce = || Outcome::Failed { reason: "no_such_mailbox".to_owned(), hard_bounce: true };
    let (settled, buffers) = world.buffers_touched(settle(world, &bounced, bounce)).await;
    assert_eq!(settled, BATCH);
    note("settlement of 128 hard bounces", buffers);

    let recipient = last_waiting(world).await;
    let ((), buffers) = world.buffers_touched(unsubscribe(world, recipient)).await;
    assert_eq!(waiting(world, recipient).await, 0, "what waited for {recipient:?} is cancelled");
    note("unsubscribe", buffers);
    costs
}

/// Claims until a whole batch has come: a claim may find nothing but mails to suppressed recipients, and cancel them instead.
/// Returns the batch, and the cost of the most expensive claim.
async fn claim_batch(world: &World) -> (Vec<Claimed>, i64) {
    let (mut claimed, mut most) = (Vec::new(), 0);
    // Each claim that brings nothing has to bring the next one further.
    for _ in 0..1_000 {
        let wanted = BATCH - claimed.len();
        let (more, buffers) = world.buffers_touched(claim(world, wanted as i64)).await;
        claimed.extend(more);
        most = most.max(buffers);
        if claimed.len() == BATCH {
            return (claimed, most);
        }
    }
    panic!("only {} of {BATCH} mails were claimed", claimed.len());
}

async fn claim(world: &World, limit: i64) -> Vec<Claimed> {
    let (program, token) = (world.id(), LeaseToken::generate());
    world
        .db
        .transact("test.claim", |tx, _| Box::pin(async move { claim::claim(tx, program, limit, token, LEASE).await }))
        .await
        .unwrap()
        .claimed
}

async fn begin(world: &World, claimed: &[Claimed]) -> usize {
    let leases: Vec<_> = claimed.iter().map(|mail| (mail.program_id, mail.id, mail.token)).collect();
    let begun = world
        .db
        .with_kept_plans()
        .transact("test.begin", |tx, _| {
            let leases = &leases;
            Box::pin(async move { data_phase::begin_data(tx, leases, LEASE).await })
        })
        .await
        .unwrap();
    begun.len()
}

/// Settles mails, and cancels what is unsent to those that are suppressed since, as the mailer does after its commit.
async fn settle(world: &World, claimed: &[Claimed], outcome: impl Fn() -> Outcome) -> usize {
    let settlement = |mail: &Claimed| Settlement {
        program_id: mail.program_id,
        id: mail.id,
        lead_id: mail.lead_id,
        token: mail.token,
        outcome: outcome(),
        reply_code: Some(250),
        reply: None,
    };
    let settlements: Vec<_> = claimed.iter().map(settlement).collect();
    let settled = world
        .db
        .with_kept_plans()
        .transact("test.settle", |tx, _| {
            let settlements = &settlements;
            Box::pin(async move { settle::settle(tx, settlements).await })
        })
        .await
        .unwrap();
    for (program, recipient) in settled.suppressed {
        cancel(world, program, recipient).await;
    }
    settled.rows.len()
}

async fn unsubscribe(world: &World, recipient: BlindIndex) {
    let program = world.id();
    world
        .db
        .transact("test.unsubscribe", |tx, _| {
            Box::pin(async move { suppressions::add(tx, program, &[recipient], SuppressionReason::Unsubscribed).await })
        })
        .await
        .unwrap();
    cancel(world, program, recipient).await;
}

async fn cancel(world: &World, program: ProgramId, recipient: BlindIndex) {
    world
        .db
        .transact("test.cancel", |tx, _| {
            Box::pin(async move { recipients::cancel_suppressed(tx, program, &[recipient]).await })
        })
        .await
        .unwrap();
}

/// The recipient of the waiting mail that is due last.
async fn last_waiting(world: &World) -> BlindIndex {
    let hex = world
        .text(&format!(
            "SELECT encode(recipient_index, 'hex') FROM outreach
             WHERE program_id = '{}' AND state = 'queued' ORDER BY due_at DESC LIMIT 1",
            world.id()
        ))
        .await;
    BlindIndex::try_from(hex::decode(hex).unwrap().as_slice()).unwrap()
}

/// How many mails wait for a recipient.
async fn waiting(world: &World, recipient: BlindIndex) -> i64 {
    let recipient = hex::encode(recipient.to_vec());
    world
        .count(&format!(
            "SELECT count(*) FROM outreach
             WHERE program_id = '{}' AND recipient_index = '\\x{recipient}' AND state IN ('queued', 'deferred', 'held')",
            world.id()
        ))
        .await
}
