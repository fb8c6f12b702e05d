//! The whole mailer on a real PostgreSQL, a real RabbitMQ and a real SMTP server.

mod committing;
mod replies;
mod world;

use std::{collections::BTreeSet, time::Duration};

use domain::email::EmailAddress;
use mail_parser::MessageParser;
use store::{
    outreach::release::{self, Filter},
    suppressions,
    suppressions::SuppressionReason,
};
use test_support::smtp::{Action, FakeSmtp, Step};
use world::{Creator, World, creator, settings, within};

/// The unsubscribe link in a mail's header.
fn unsubscribe_link(mail: &[u8]) -> String {
    let message = MessageParser::default().parse(mail).unwrap();
    let header = message.header_raw("List-Unsubscribe").unwrap();
    header.split_once('<').unwrap().1.split_once('>').unwrap().0.to_owned()
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn qualified_leads_get_exactly_one_mail_each_and_everybody_else_none() {
    let world = World::new().await;
    let server = FakeSmtp::start().await;
    let suppressed = EmailAddress::parse("objected@creator.example").unwrap();
    let (program, recipient) = (world.program.program.id, world.program.keys.email_index(&suppressed));
    world
        .db
        .transact("test.suppress", |tx, _| {
            Box::pin(async move { suppressions::add(tx, program, &[recipient], SuppressionReason::Manual).await })
        })
        .await
        .unwrap();
    let mut creators: Vec<Creator> = (0..20).map(|n| creator(&format!("good{n}"))).collect();
    creators.extend([
        Creator { score: 69, ..creator("low") },
        Creator { compliant: false, ..creator("vetoed") },
        Creator { country: Some("DE"), ..creator("german") },
        Creator { country: None, ..creator("nowhere") },
        Creator { email: None, ..creator("silent") },
        creator("objected"),
        // The same mailbox on another network, in another spelling.
        Creator { source: "tiktok", email: Some("Good0@Creator.example".to_owned()), ..creator("good0tok") },
    ]);
    let (_, events) = world.enrich(&creators).await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_decisions().await;
    world.wait_for_states("held:duplicate_recipient=1 held:legal_unknown:v2/email/unknown-country=1 sent=20").await;

    // Told once more, nothing changes.
    world.tell_again(&events).await;
    world.amqp.wait_for_depth("lead.enriched", 0).await;
    replica.stop().await;
    assert_eq!(
        world.states().await,
        "held:duplicate_recipient=1 held:legal_unknown:v2/email/unknown-country=1 sent=20"
    );

    let messages = server.messages();
    assert_eq!(messages.len(), 20);
    let recipients: BTreeSet<String> =
        messages.iter().flat_map(|message| message.rcpt_to.clone()).map(|to| to.to_lowercase()).collect();
    let expected: BTreeSet<String> = (0..20).map(|n| format!("good{n}@creator.example")).collect();
    assert_eq!(recipients, expected);
    let return_paths: BTreeSet<String> = messages.iter().map(|message| message.mail_from.clone()).collect();
    assert_eq!(return_paths.len(), 20, "one return path per message");
    for message in &messages {
        let mail = MessageParser::default().parse(&message.data).unwrap();
        assert!(mail.body_text(0).unwrap().contains("Acme Inc., 1 Main Street"));
        assert!(mail.body_html(0).unwrap().contains(&unsubscribe_link(&message.data)));
    }
    // The ids that were stored are the ids that went out, and the flags of the reports are set for those alone.
    for message in &messages {
        let mail = MessageParser::default().parse(&message.data).unwrap();
        let query = format!(
            "SELECT count(*)::text FROM outreach WHERE message_id = '<{}>' AND state = 'sent'",
            mail.message_id().unwrap()
        );
        assert_eq!(world.text(&query).await, "1");
    }
    assert_eq!(world.text("SELECT count(*)::text FROM enriched_leads WHERE sent AND contacted").await, "20");
    let reasons = world
        .text(
            "SELECT string_agg(DISTINCT r, ' ' ORDER BY r) FROM enriched_leads, unnest(decision_reasons) r
             WHERE decision <> 'planned'",
        )
        .await;
    assert_eq!(
        reasons,
        "legal_denied:v2/email/de/opt_in/no_consent legal_unknown:v2/email/unknown-country no_address not_compliant \
         score_below_threshold:69<70 suppressed"
    );
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_said_about_somebody_is_not_written_down_while_that_lead_is_erased() {
    let world = World::new().await;
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Rcpt => {
                Action::DelayedReply(Duration::from_secs(1), "550 5.1.1 no ann@creator.example here".to_owned())
            }
            _ => Action::Proceed,
        })
        .start()
        .await;
    world.enrich(&[creator("ann")]).await;
    let replica = world.start_smtp(&server, &[]);
    within("the recipient is named", async {
        while !server.commands().iter().any(|line| line.starts_with("RCPT")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The erasure has begun when the server's reply comes, and ends afterwards.
    let mut erasing = world.database.connect().await;
    for statement in ["BEGIN", "DELETE FROM lead_keys"] {
        test_support::postgres::execute(&mut erasing, statement).await.unwrap();
    }
    let waits = "SELECT count(*)::text FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%lead_keys%'";
    world.wait_for(waits, "1").await;
    test_support::postgres::execute(&mut erasing, "COMMIT").await.unwrap();
    world.wait_for_states("failed:smtp_550_5.1.1=1").await;
    assert_eq!(world.text("SELECT count(reply)::text FROM outreach").await, "0");
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_lead_has_a_worse_score_about_which_nobody_has_decided_yet_goes_back_to_the_queue() {
    let world = World::new().await;
    let replica = world.start(&[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("captured=1").await;
    replica.stop().await;
    world.execute("UPDATE enriched_leads SET score = 1, enrichment_version = 2").await;
    let program = world.program.program.id;
    release::release(&world.db, program, &Filter::Captured, |_| ()).await.unwrap();
    let server = FakeSmtp::start().await;
    let replica = world.start_smtp(&server, &[]);
    let waits =
        "SELECT state || ' ' || (due_at BETWEEN now() + interval '30 seconds' AND now() + interval '90 seconds')
                 FROM outreach";
    world.wait_for(waits, "queued true").await;
    assert!(server.messages().is_empty());
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_read_does_not_stop_the_mails_of_the_others() {
    let world = World::new().await;
    let replica = world.start(&[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("captured=1").await;
    replica.stop().await;
    // Its id comes first, so that it has its turn before the other.
    let added = "WITH added AS (
                     INSERT INTO programs (id, slug, name, sender_name, sender_email, wrapped_keys, created_at, updated_at)
                     VALUES ('00000000-0000-7000-8000-000000000001', 'broken', 'x', 'x', 'nobody', '', now(), now())
                     RETURNING id)
                 SELECT count(*)::text FROM added";
    assert_eq!(world.text(added).await, "1");
    let program = world.program.program.id;
    let released = release::release(&world.db, program, &Filter::Captured, |_| ()).await.unwrap();
    assert_eq!(released.queued, 1);
    let server = FakeSmtp::start().await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_states("sent=1").await;
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_in_a_mail_asks_on_get_and_suppresses_on_post() {
    let world = World::new().await;
    let server = FakeSmtp::start().await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    let messages = server.wait_for(1).await;
    world.wait_for_states("sent=1").await;
    let link = unsubscribe_link(&messages[0].data);
    let client = client();
    let suppressed = "SELECT count(*)::text FROM suppressions WHERE reason = 'unsubscribed'";

    for request in [client.get(&link), client.head(&link)] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().get("set-cookie").is_none());
        assert_eq!(response.headers()["x-robots-tag"], "noindex, nofollow");
        assert_eq!(response.headers()["referrer-policy"], "no-referrer");
        let csp = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(csp.starts_with("default-src 'none'"), "{csp}");
    }
    assert!(client.get(&link).send().await.unwrap().text().await.unwrap().contains("<form method=\"post\">"));
    assert_eq!(world.text(suppressed).await, "0", "looking changes nothing");

    // A changed token is nobody's.
    let mut other = link.clone().into_bytes();
    let last = other.len() - 3;
    other[last] = if other[last] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).unwrap();
    for bad in [other.as_str(), &format!("{}/u/x", world.pages), &format!("{}/elsewhere", world.pages)] {
        assert_eq!(client.get(bad).send().await.unwrap().status(), 404);
        assert_eq!(client.post(bad).send().await.unwrap().status(), 404);
    }
    assert_eq!(world.text(suppressed).await, "0");

    // RFC 8058 in both forms; the second time changes nothing more.
    let urlencoded = client
        .post(&link)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("List-Unsubscribe=One-Click")
        .send()
        .await
        .unwrap();
    assert_eq!(urlencoded.status(), 200);
    assert_eq!(world.text(suppressed).await, "1", "it acts at once");
    let multipart = client
        .post(&link)
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n")
        .send()
        .await
        .unwrap();
    assert_eq!(multipart.status(), 200);
    assert_eq!(world.text(suppressed).await, "1");

    // The same person, found on another network, is left alone.
    world
        .enrich(&[Creator { source: "tiktok", email: Some("ann@creator.example".to_owned()), ..creator("ann2") }])
        .await;
    world.wait_for("SELECT count(*)::text FROM enriched_leads WHERE 'suppressed' = ANY(decision_reasons)", "1").await;
    replica.stop().await;
    assert_eq!(server.messages().len(), 1);
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_one_click_alone_suppresses_and_cancels_what_waits() {
    let world = World::new().await;
    // Everything is put off, so that the mail still waits when the recipient objects.
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Rcpt => Action::reply("450 4.2.0 greylisted"),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("deferred:smtp_450_4.2.0=1").await;
    let email = EmailAddress::parse("ann@creator.example").unwrap();
    let token = world.program.keys.unsubscribe_token(world.program.keys.email_index(&email));
    let response = client()
        .post(format!("{}/u/{token}", world.pages))
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(world.states().await, "cancelled:suppressed=1");
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_mails_are_complete_and_count_as_nothing_until_they_are_released() {
    let world = World::new().await;
    let replica = world.start(&[]);
    let creators: Vec<Creator> = (0..300).map(|n| creator(&format!("c{n}"))).collect();
    world.enrich(&creators).await;
    world.wait_for_states("captured=300").await;
    replica.stop().await;
    assert_eq!(world.text("SELECT count(*)::text FROM enriched_leads WHERE sent OR contacted").await, "0");
    let (program, vault) = (world.program.program.id, world.vault.clone());
    let vault = &vault;
    let mails = world
        .db
        .transact("test.page", |tx, _| {
            Box::pin(async move { store::captured::page(tx, vault, program, None, None, 1_000).await })
        })
        .await
        .unwrap();
    assert_eq!(mails.len(), 300);
    for mail in &mails {
        let parsed = MessageParser::default().parse(&mail.message).unwrap();
        assert!(parsed.to().unwrap().first().unwrap().address().unwrap().ends_with("@creator.example"));
        assert!(unsubscribe_link(&mail.message).starts_with(&world.pages));
    }

    // Released, each goes out once, by two replicas together.
    let released = release::release(&world.db, program, &Filter::Captured, |_| ()).await.unwrap();
    assert_eq!(released.queued, 300);
    let server = FakeSmtp::start().await;
    let replicas = [world.start_smtp(&server, &[]), world.start_smtp(&server, &[])];
    world.wait_for_states("sent=300").await;
    for replica in replicas {
        replica.stop().await;
    }
    let recipients: BTreeSet<String> = server.messages().into_iter().flat_map(|message| message.rcpt_to).collect();
    assert_eq!((server.messages().len(), recipients.len()), (300, 300));
    assert_eq!(world.text("SELECT count(*)::text FROM enriched_leads WHERE sent AND contacted").await, "300");
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misbehaviour_of_a_server_ends_in_its_state() {
    let world = World::new().await;
    let server = FakeSmtp::builder()
        .script(|event| match (event.step, event.argument.split(['<', '@']).nth(1).unwrap_or_default()) {
            (Step::Rcpt, "gone") => Action::reply("550 5.1.1 no such user"),
            (Step::Rcpt, "full") => Action::reply("552 5.2.2 mailbox full"),
            (Step::Rcpt, "later") => Action::reply("450 4.2.0 greylisted"),
            (Step::Dot, _) if event.argument.starts_with("lost@") => Action::TakeAndClose,
            _ => Action::Proceed,
        })
        .start()
        .await;
    let replica = world.start_smtp(&server, &[]);
    let creators = ["good", "gone", "full", "later", "lost"].map(creator);
    world.enrich(&creators).await;
    world
        .wait_for_states(
            "deferred:smtp_450_4.2.0=1 deferred:smtp_552_5.2.2=1 failed:smtp_550_5.1.1=1 sent=1 \
             uncertain:smtp_unreadable_reply=1",
        )
        .await;
    replica.stop().await;
    assert_eq!(world.text("SELECT string_agg(reason, ' ') FROM suppressions").await, "hard_bounce");
    assert_eq!(world.text("SELECT count(*)::text FROM enriched_leads WHERE sent").await, "1");
    // Nothing of a reply, which can name a person, is readable.
    assert_eq!(
        world
            .text(
                "SELECT count(*)::text FROM outreach WHERE reply IS NOT NULL AND position('user'::bytea IN reply) = 0"
            )
            .await,
        "3"
    );
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_sender_dies_after_the_body_is_never_sent_again() {
    let world = World::new().await;
    let server =
        FakeSmtp::builder()
            .script(|event| {
                if event.step == Step::Dot && event.connection == 0 { Action::TakeAndHang } else { Action::Proceed }
            })
            .start()
            .await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    server.wait_for(1).await;
    assert_eq!(world.states().await, "transmitting=1", "the data phase was committed before the body went out");
    replica.kill().await;
    assert_eq!(world.states().await, "transmitting=1");
    world.execute("UPDATE outreach SET due_at = now() - interval '1 second'").await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_states("uncertain:lease_expired=1").await;
    // Another mail goes through meanwhile, so the first would have had its chance.
    world.enrich(&[creator("bob")]).await;
    world.wait_for_states("sent=1 uncertain:lease_expired=1").await;
    replica.stop().await;
    let to: Vec<String> = server.messages().into_iter().flat_map(|message| message.rcpt_to).collect();
    assert_eq!(to, ["ann@creator.example", "bob@creator.example"]);
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_sender_dies_before_the_body_goes_out_once() {
    let world = World::new().await;
    let server = FakeSmtp::builder()
        .script(|event| if event.step == Step::Rcpt && event.connection == 0 { Action::Hang } else { Action::Proceed })
        .start()
        .await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("connecting=1").await;
    replica.kill().await;
    world.execute("UPDATE outreach SET due_at = now() - interval '1 second'").await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_states("sent=1").await;
    replica.stop().await;
    assert_eq!(server.messages().len(), 1);
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_shared_by_all_replicas() {
    let capped = domain::program::ProgramSettings { daily_cap: Some(7), ..settings() };
    let world = World::with(capped).await;
    let server = FakeSmtp::start().await;
    let replicas = [world.start_smtp(&server, &[]), world.start_smtp(&server, &[])];
    let creators: Vec<Creator> = (0..30).map(|n| creator(&format!("c{n}"))).collect();
    world.enrich(&creators).await;
    world.wait_for_states("queued=23 sent=7").await;
    world.wait_for("SELECT used::text FROM send_budgets WHERE span = 'day'", "7").await;
    for replica in replicas {
        replica.stop().await;
    }
    assert_eq!(server.messages().len(), 7);
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_away_uses_up_no_limit() {
    let capped = domain::program::ProgramSettings { daily_cap: Some(1), ..settings() };
    let world = World::with(capped).await;
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Connect if event.connection < 2 => Action::reply("421 4.3.2 too busy"),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("sent=1").await;
    replica.stop().await;
    assert_eq!(server.connections(), 3, "two refusals, then the mail");
    assert_eq!(world.text("SELECT used::text FROM send_budgets WHERE span = 'day'").await, "1");
    world.cleanup().await;
}

#[tokio::test]
async fn a_mailer_with_nothing_to_send_sees_by_itself_that_the_server_is_back() {
    let world = World::new().await;
    let server = FakeSmtp::builder().script(|_| Action::reply("421 4.3.2 too busy")).start().await;
    let mailer = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    mailer.wait_until_mail_server_is(false).await;
    world.execute("DELETE FROM outreach").await;
    server.set_script(|_| Action::Proceed);
    mailer.wait_until_mail_server_is(true).await;
    assert!(server.messages().is_empty());
    mailer.stop().await;
    world.cleanup().await;
}

/// Makes the first `times` settlements as `sent` fail with this SQLSTATE.
async fn fail_settlements(world: &World, times: u32, code: &str) {
    for statement in [
        "CREATE SEQUENCE test_failures".to_owned(),
        format!(
            "CREATE FUNCTION test_fail() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF nextval('test_failures') <= {times} THEN
                     RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}';
                 END IF;
                 RETURN NEW;
             END $$"
        ),
        "CREATE TRIGGER test_fail BEFORE UPDATE ON outreach FOR EACH ROW WHEN (NEW.state = 'sent')
             EXECUTE FUNCTION test_fail()"
            .to_owned(),
    ] {
        world.execute(&statement).await;
    }
}

async fn a_known_result_survives(times: u32, code: &str) {
    let world = World::new().await;
    fail_settlements(&world, times, code).await;
    let server = FakeSmtp::start().await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&[creator("ann")]).await;
    world.wait_for_states("sent=1").await;
    replica.stop().await;
    assert_eq!(world.text("SELECT last_value::text FROM test_failures").await, (times + 1).to_string());
    assert_eq!(server.messages().len(), 1);
    assert_eq!(world.text("SELECT count(*)::text FROM enriched_leads WHERE sent AND contacted").await, "1");
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mail_server_said_survives_a_transaction_that_postgresql_ended_as_idle() {
    a_known_result_survives(1, "25P03").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mail_server_said_survives_an_error_that_is_no_outage() {
    a_known_result_survives(2, "P0001").await;
}
