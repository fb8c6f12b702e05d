//! Organisations: each program has one, whichever release created it.

use domain::{email::EmailAddress, program::Slug};
use store::{organisations, programs};
use test_support::postgres::{TestDatabase, number, text, workspace_migrations};

use crate::world::{NOW, World, settings};

/// As the release before organisations creates a program.
const OLDER_INSERT: &str =
    "INSERT INTO programs (id, slug, name, sender_name, sender_email, reply_to, postal_address, privacy_url, threshold, niches,
                           product, basis, daily_cap, paused, wrapped_keys, created_at, updated_at)
     VALUES (gen_random_uuid(), '$slug', 'Tea', 'Ann', NULL, NULL, NULL, NULL, 70, '{}', '', 'legitimate_interest', NULL,
             false, '\\x00', now(), now())
     ON CONFLICT (slug) DO NOTHING";

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_program_has_an_organisation_of_its_own_unless_it_names_one_whose_hashes_it_shares() {
    let world = World::new().await;
    organisations::create(&world.db, &world.vault, &slug("group"), "The Group", NOW).await.unwrap();
    let taken = organisations::create(&world.db, &world.vault, &slug("group"), "Another", NOW).await.unwrap_err();
    assert!(taken.conflict().is_some(), "{taken}");
    let group = organisations::open(&world.db, &world.vault, &slug("group")).await.unwrap().unwrap();
    let mut inside = Vec::new();
    for name in ["one", "two"] {
        let program =
            programs::create_in(&world.db, &world.vault, &group, &slug(name), &settings(), NOW).await.unwrap();
        inside.push(program);
    }
    let email = EmailAddress::parse("ann@example.com").unwrap();
    let hashes: Vec<_> = inside.iter().map(|program| program.keys.email_index(&email)).collect();
    assert_eq!(hashes, [group.keys.index().email(&email); 2]);
    assert_ne!(world.program.keys.email_index(&email), hashes[0]);

    let own = organisations::open(&world.db, &world.vault, &slug("acme")).await.unwrap().unwrap();
    assert_eq!(own.organisation.id.as_uuid(), world.id().as_uuid());
    assert_eq!(own.keys.index().email(&email), world.program.keys.email_index(&email));
    let list = world.db.transact("test.list", |tx, _| Box::pin(organisations::list(tx))).await.unwrap();
    let programs: Vec<_> = list.iter().map(|organisation| organisation.programs.join(" ")).collect();
    assert_eq!(programs, ["acme", "one two"]);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_program_of_an_older_release_gets_one_and_one_that_is_there_already_leaves_none_behind() {
    let world = World::new().await;
    let tea = OLDER_INSERT.replace("$slug", "tea");
    for _ in 0..2 {
        world.execute(&tea).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM organisations").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM programs WHERE organisation_id = id").await, 2);
    // An organisation may have the short name that a program takes.
    organisations::create(&world.db, &world.vault, &slug("soap"), "Soap", NOW).await.unwrap();
    world.execute(&OLDER_INSERT.replace("$slug", "soap")).await;
    let named = "SELECT o.slug FROM organisations o JOIN programs p ON p.organisation_id = o.id WHERE p.slug = 'soap'";
    assert!(world.text(named).await.starts_with("p-"), "a name of its own");
    world.database.cleanup().await;
}

#[tokio::test]
async fn the_migration_moves_keys_up_unchanged_and_records_what_was_suppressed() {
    let database = TestDatabase::create_empty().await;
    let mut connection = database.connect().await;
    for migration in
        workspace_migrations().await.unwrap().iter().filter(|migration| migration.version < 20_261_129_001_000)
    {
        sqlx::raw_sql(&migration.sql).execute(&mut connection).await.unwrap();
    }
    let before = OLDER_INSERT.replace("$slug", "tea").replace("'\\x00'", "'\\x0102'")
        + "; INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
             SELECT id, decode(repeat(n::text, 32), 'hex'), 1, r, ('2026-01-0' || n)::timestamptz
             FROM programs, UNNEST('{unsubscribed,hard_bounce,complaint,manual}'::text[]) WITH ORDINALITY AS u (r, n)";
    sqlx::raw_sql(&before).execute(&mut connection).await.unwrap();
    for migration in
        workspace_migrations().await.unwrap().iter().filter(|migration| migration.version >= 20_261_129_001_000)
    {
        sqlx::raw_sql(&migration.sql).execute(&mut connection).await.unwrap();
    }
    let same = "SELECT count(*) FROM programs p JOIN organisations o
                ON o.id = p.organisation_id AND o.id = p.id AND o.slug = p.slug AND o.wrapped_keys = p.wrapped_keys";
    assert_eq!(number(&mut connection, same).await.unwrap(), 1);
    let causes = "SELECT string_agg(concat_ws(' ', kind, cause, to_char(c.created_at, 'DD')), ', ' ORDER BY c.created_at)
                  FROM suppression_causes c JOIN programs p ON p.id = c.program_id AND p.organisation_id = c.organisation_id";
    assert_eq!(
        text(&mut connection, causes).await.unwrap(),
        "email objection 01, email hard_bounce 02, email complaint 03, email manual 04"
    );
    database.cleanup().await;
}
