//! Personal data is readable nowhere but in the mail: not in the database, not in a log; and what was tampered with is
//! refused.

use std::{collections::BTreeSet, time::Duration};

use collector::source::{RawProfile, simulated::SimulationMix};
use leadmill_tests::{
    audit::{Planted, audit},
    creators, dump,
    process::Process,
    stack::{PROGRAM, Stack, Unfinished},
    truth,
    wait::{PATIENCE, eventually},
};
use uuid::Uuid;

/// People who can be told from everything else by their names.
fn people(seed: u64, count: u64) -> Vec<RawProfile> {
    // Hostile names and bios among them, and rows that are refused: they are kept, too.
    let mix = SimulationMix { duplicates: 0.05, junk: 0.1, missing: 0.1, hostile: 0.1 };
    let mut people = creators::with_mix(seed, count, mix);
    // A first name alone may be a common word.
    for (index, person) in people.iter_mut().enumerate() {
        person.name = person.name.take().map(|name| format!("{name} Quillfeather{index}"));
    }
    people
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_everything_and_all_logs_show_no_name_handle_or_address() {
    let stack = Stack::start().await;
    let verbose = [("LEADMILL_LOG_FILTER", "trace,sqlx=debug,lapin=info,hyper=info")];
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &verbose).await;
    let people = people(31, 600);
    let ingest = fleet[0].address("ingest.address").await;
    creators::post(ingest, &stack.api_key().await, &people).await;
    stack.settle(PATIENCE).await;
    audit(&stack, Planted::default()).await;
    assert!(truth::count(&stack, "SELECT count(*) FROM captured_mails").await > 0, "mails are kept, too");
    assert!(truth::count(&stack, "SELECT count(*) FROM rejected_leads").await > 0, "refused rows are kept, too");

    let personal = creators::personal(&people);
    assert!(personal.len() > people.len() * 3, "only {} texts to look for", personal.len());
    let dump = dump::everything(&stack).await;
    // The search finds what is there: the program's own data isn't personal.
    let sanity: BTreeSet<String> = [PROGRAM.to_owned(), leadmill_tests::stack::SENDER.to_owned()].into();
    assert_eq!(dump::found(&dump, &sanity).len(), sanity.len());
    assert_eq!(dump::found(&dump, &personal), Vec::<String>::new(), "readable in the dump");
    for process in &fleet {
        let log = process.log();
        assert!(log.contains("\"level\":\"DEBUG\""), "the log says much");
        assert_eq!(dump::found(log.as_bytes(), &personal), Vec::<String>::new(), "readable in a log");
    }
    drop(fleet);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_or_moved_ciphertext_is_refused_and_the_others_go_on() {
    let stack = Stack::start().await;
    let collector = stack.service("collector").start().await;
    let ingest = collector.address("ingest.address").await;
    let people = creators::creators(33, 200);
    creators::post(ingest, &stack.api_key().await, &people).await;
    let mut connection = stack.connect().await;
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM leads WHERE bio IS NOT NULL ORDER BY id LIMIT 3")
        .fetch_all(&mut connection)
        .await
        .expect("there are leads");
    let [changed, moved, origin] = ids[..] else { panic!("three leads") };
    sqlx::query("UPDATE leads SET bio = set_byte(bio, octet_length(bio) - 1, get_byte(bio, octet_length(bio) - 1) # 1) WHERE id = $1")
        .bind(changed)
        .execute(&mut connection)
        .await
        .expect("a byte can be changed");
    sqlx::query("UPDATE leads SET bio = (SELECT bio FROM leads WHERE id = $2) WHERE id = $1")
        .bind(moved)
        .bind(origin)
        .execute(&mut connection)
        .await
        .expect("a value can be moved");

    let fleet = stack.fleet(&["enricher", "mailer"], 1, &[]).await;
    let refused = [changed, moved];
    stack.settle_at(Unfinished { unenriched: 2, ..Unfinished::default() }, PATIENCE).await;
    stack.amqp().wait_for_depth("lead.created.dead", 2).await;
    audit(&stack, Planted { dead_created: 2, stuck: &refused, ..Planted::default() }).await;

    let letters = stack.leadmill(&["dead", "list", "--json"]).await.json();
    let told = letters.to_string();
    for lead in refused {
        assert!(told.contains(&lead.to_string()), "{told}");
    }
    assert!(told.contains("changed, moved, or sealed under another key"), "{told}");

    // A mail that was captured is bound to its row just the same.
    let mails: Vec<Uuid> = sqlx::query_scalar("SELECT outreach_id FROM captured_mails ORDER BY 1 LIMIT 2")
        .fetch_all(&mut connection)
        .await
        .expect("there are mails");
    let [first, second] = mails[..] else { panic!("two mails") };
    let shown = stack.leadmill(&["mail", "show", &first.to_string(), "--raw"]).await.ok().stdout;
    assert!(shown.contains("List-Unsubscribe"), "{shown}");
    sqlx::query("UPDATE captured_mails SET mail = (SELECT mail FROM captured_mails WHERE outreach_id = $2) WHERE outreach_id = $1")
        .bind(first)
        .bind(second)
        .execute(&mut connection)
        .await
        .expect("a value can be moved");
    let complaint = stack.leadmill(&["mail", "show", &first.to_string(), "--raw"]).await.fails_with(1);
    assert!(complaint.contains("changed, moved, or sealed under another key"), "{complaint}");
    drop((collector, fleet));
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_queues_are_deleted_under_load_the_reconciler_brings_every_lead_through() {
    let stack = Stack::start().await;
    let eager = [
        ("LEADMILL_RECONCILER_OBSERVE_EVERY", "500ms"),
        ("LEADMILL_RECONCILER_REST", "1s"),
        ("LEADMILL_RECONCILER_GRACE", "2s"),
        ("LEADMILL_RECONCILER_AGAIN_AFTER", "3s"),
        // Few at a time, so that the queues hold something when they go.
        ("LEADMILL_AMQP_PREFETCH", "10"),
        ("LEADMILL_ENRICHER_MAX_BATCH", "5"),
        ("LEADMILL_MAILER_MAX_BATCH", "5"),
    ];
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &eager).await;
    let ingest = fleet[0].address("ingest.address").await;
    let key = stack.api_key().await;
    for seed in [35, 36] {
        let enriched = truth::count(&stack, "SELECT count(*) FROM enriched_leads").await;
        creators::post(ingest, &key, &creators::creators(seed, 1_000)).await;
        eventually("the leads are under way", PATIENCE, async || {
            let now = truth::count(&stack, "SELECT count(*) FROM enriched_leads").await;
            if now > enriched + 20 { Ok(()) } else { Err(format!("{now} are enriched")) }
        })
        .await;
        stack.amqp().delete_all_queues().await;
    }
    stack.settle(Duration::from_mins(2)).await;
    audit(&stack, Planted::default()).await;

    let lines = fleet.iter().flat_map(Process::log_lines);
    let emitted: u64 = lines.filter_map(|line| line["emitted"].as_u64()).sum();
    assert!(emitted > 0, "the queues were empty when they went: this showed nothing");
    drop(fleet);
    stack.cleanup().await;
}
