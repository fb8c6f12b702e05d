//! One row that can't be read doesn't hide the others.

use crate::world::{NOW, World, profile, settings};
use domain::reject::{Defect, RejectReason};
use store::{
    captured,
    intake::Dedupe,
    outreach::{
        self,
        settle::{self, Outcome, Settlement},
    },
    programs, rejects,
    rejects::Reject,
};

#[tokio::test]
async fn a_program_that_cannot_be_read_is_left_out_of_the_list() {
    let world = World::new().await;
    programs::create(&world.db, &world.vault, &"broken".parse().unwrap(), &settings(), NOW).await.unwrap();
    world.execute("UPDATE programs SET sender_email = 'nobody' WHERE slug = 'broken'").await;
    let listed = world.db.transact("test.list", |tx, _| Box::pin(programs::list(tx))).await.unwrap();
    assert_eq!(listed.iter().map(|program| program.slug.as_str()).collect::<Vec<_>>(), ["acme"]);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_captured_mail_that_cannot_be_opened_is_left_out_and_a_page_of_such_mails_is_no_end() {
    let world = World::new().await;
    for name in ["ann", "bob", "eve"] {
        capture(&world, name).await;
    }
    world
        .execute(
            "UPDATE captured_mails SET mail = set_byte(mail, 30, get_byte(mail, 30) # 1)
             WHERE outreach_id IN (SELECT outreach_id FROM captured_mails ORDER BY outreach_id LIMIT 2)",
        )
        .await;
    let (program, vault) = (world.id(), &world.vault);
    for limit in [1, 2, 10] {
        let page = world.db.transact("test.page", |tx, _| {
            Box::pin(async move { captured::page(tx, vault, program, None, None, limit).await })
        });
        let page = page.await.unwrap();
        assert_eq!(page.len(), 1, "limit {limit}");
        assert_eq!(page[0].message, b"Subject: eve\r\n\r\nhello\r\n");
    }
    // Here it is this process that can't read: an empty list would be a lie.
    let stranger = &vault::Vault::new(vault::MasterKey::generate(), vec![]);
    let page = world.db.transact("test.page", |tx, _| {
        Box::pin(async move { captured::page(tx, stranger, program, None, None, 10).await })
    });
    assert!(page.await.is_err());
    world.database.cleanup().await;
}

async fn capture(world: &World, name: &str) {
    let lead = world.enriched(profile(name)).await;
    let id = world.planned(lead, 1).await;
    let claimed = world.claim(1).await.claimed.remove(0);
    assert_eq!(claimed.id, id);
    let key = world.open_lead(lead).await.key;
    let mail = captured::seal(&key, id, format!("Subject: {name}\r\n\r\nhello\r\n").as_bytes());
    let settlement = [Settlement {
        program_id: world.id(),
        id,
        lead_id: lead,
        token: claimed.token,
        outcome: Outcome::Captured(mail),
        reply_code: None,
        reply: None,
    }];
    let settlement = settlement.as_slice();
    world
        .db
        .transact("test.settle", |tx, _| Box::pin(async move { settle::settle(tx, settlement).await }))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mail_in_a_state_of_a_newer_version_is_left_out_of_the_list() {
    let world = World::new().await;
    for name in ["ann", "bob"] {
        capture(&world, name).await;
    }
    // This version's life cycle, which tests hold to, doesn't know the state either.
    world.execute("ALTER TABLE outreach DISABLE TRIGGER USER").await;
    world.execute("ALTER TYPE outreach_state ADD VALUE 'delivered'").await;
    world
        .execute("UPDATE outreach SET state = 'delivered' WHERE id = (SELECT id FROM outreach ORDER BY id LIMIT 1)")
        .await;
    let program = world.id();
    let listed = world
        .db
        .transact("test.list", |tx, _| Box::pin(async move { outreach::list(tx, program, None, None, 10).await }))
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_rejected_row_that_cannot_be_opened_is_left_out() {
    let world = World::new().await;
    let reject = |line| Reject {
        source_digest: [7; 32],
        line,
        defect: Defect {
            reason: RejectReason::Invalid,
            field: "email".to_owned(),
            detail: "not an e-mail address".to_owned(),
        },
        raw: b"instagram,ann,not an address".to_vec(),
        username: None,
        email: None,
    };
    world.try_accept(world.batch(vec![], (1..=3).map(reject).collect(), Dedupe::Skip)).await.unwrap();
    world.execute("UPDATE rejected_leads SET raw = set_byte(raw, 30, get_byte(raw, 30) # 1) WHERE line < 3").await;
    let keys = &world.program.keys;
    for limit in [1, 10] {
        let page = world
            .db
            .transact("test.page", |tx, _| Box::pin(async move { rejects::page(tx, keys, None, None, limit).await }));
        let lines: Vec<i64> = page.await.unwrap().iter().map(|reject| reject.line).collect();
        assert_eq!(lines, [3], "limit {limit}");
    }
    world.database.cleanup().await;
}
