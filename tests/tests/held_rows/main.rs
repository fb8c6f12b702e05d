//! No mail is ever held, or left waiting, without a way out: every event that can happen to a lead, its recipient or its
//! program is followed by every other one, against a real PostgreSQL and without a process. After each pair, and once more
//! when everything is calm and the jobs have run, the rules of the audit must hold.
//!
//! Each pair has a program of its own with a few leads ([`walk`]); [`event`] lists what can happen. To add an event, add a
//! variant there.

mod event;
mod walk;

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt as _, stream};
use leadmill_tests::audit::{Holds, broken_rules};
use sqlx::PgConnection;
use uuid::Uuid;

use self::{event::Event, walk::Walk};

/// Walks under way at the same time, and connections.
const AT_ONCE: usize = 8;
/// Pairs that are shown of those that break a rule.
const SHOWN: usize = 8;

/// Holds only for programs that send.
const UNDER_WAY: &str = "a mail waits under way only while somebody works";
/// Holds at the moment of sending; here settings and enrichments change after it.
const AT_SENDING: &str = "no mail goes out without a reason to send it";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_two_events_no_mail_is_left_without_a_way_out() {
    let shared = walk::Shared::new(AT_ONCE).await;
    let pairs: Vec<(Event, Event)> =
        Event::ALL.iter().flat_map(|first| Event::ALL.iter().map(|second| (*first, *second))).collect();
    assert!(Event::ALL.len() >= 15);

    let walks: Vec<Walk> = stream::iter(pairs.iter().enumerate())
        .map(|(index, (first, second))| {
            let shared = &shared;
            async move {
                let walk = Walk::begin(shared, index, format!("{first:?}, then {second:?}")).await;
                first.happen(&walk).await;
                second.happen(&walk).await;
                walk
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut broken = complaints(&mut shared.connect().await, &walks, "at once", Some(Holds::Always)).await;
    stream::iter(&walks).for_each_concurrent(AT_ONCE, Walk::calm_down).await;
    broken.extend(complaints(&mut shared.connect().await, &walks, "once everything was calm", None).await);

    drop(walks);
    shared.cleanup().await;
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The rules that are broken, each with the pairs of events after which they are.
async fn complaints(connection: &mut PgConnection, walks: &[Walk], when: &str, only: Option<Holds>) -> Vec<String> {
    let of_lead: HashMap<Uuid, &Walk> =
        walks.iter().flat_map(|walk| walk.leads().into_iter().map(move |lead| (lead, walk))).collect();
    let erased: Vec<Uuid> = sqlx::query_scalar(
        "SELECT l.id FROM leads l
         WHERE NOT EXISTS (SELECT FROM lead_keys k WHERE k.program_id = l.program_id AND k.lead_id = l.id)",
    )
    .fetch_all(&mut *connection)
    .await
    .expect("the leads can be read");
    let paused: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM programs WHERE paused")
        .fetch_all(&mut *connection)
        .await
        .expect("the programs can be read");
    let mut complaints = Vec::new();
    for broken in broken_rules(connection, &[]).await {
        if broken.rule.name == AT_SENDING || only.is_some_and(|only| broken.rule.holds != only) {
            continue;
        }
        let mut pairs: BTreeMap<&str, usize> = BTreeMap::new();
        for lead in &broken.leads {
            let Some(walk) = of_lead.get(lead) else {
                *pairs.entry("no walk").or_default() += 1;
                continue;
            };
            let excused = erased.contains(lead) && broken.rule.excusable
                || broken.rule.name == UNDER_WAY && paused.contains(&walk.program());
            if !excused {
                *pairs.entry(walk.name()).or_default() += 1;
            }
        }
        if !pairs.is_empty() {
            let shown: Vec<&str> = pairs.keys().copied().take(SHOWN).collect();
            complaints.push(format!(
                "complaint: {}: {when}, after {} pairs of events, such as\n    {}",
                broken.rule.name,
                pairs.len(),
                shown.join("\n    ")
            ));
        }
    }
    complaints
}
