//! Suppressions: causes that stand apart, what follows from each, and what an older release leaves behind.

use domain::{
    email::EmailAddress,
    handle::Handle,
    id::{CauseId, LeadId, LiftId, ProgramId},
    lead::SourceName,
    suppression::{Cause, ContactList, Subject},
};
use store::{
    intake::Dedupe,
    organisations::{self, OpenOrganisation},
    outreach::plan::{Planned, Start},
    programs,
    suppressions::{self, Evidence, Hashed, Lift, Lifted, NewCause, SubjectIndex, SuppressionReason, SuppressionScope},
};
use vault::Column;

use crate::world::{NOW, World, profile, settings};

const CUSTOMER: Cause = Cause::DoNotContact(ContactList::Customer);

impl World {
    /// What holds for this program alone.
    fn here(&self) -> SuppressionScope {
        SuppressionScope { program: Some(self.id()), ..self.everywhere() }
    }

    /// What holds for the program's organisation, which is its own.
    fn everywhere(&self) -> SuppressionScope {
        SuppressionScope { organisation: self.id().as_uuid().into(), program: None }
    }

    fn subject(&self, text: &str) -> SubjectIndex {
        SubjectIndex::of(&Subject::parse(text).unwrap(), self.program.keys.index())
    }

    async fn suppress(&self, scope: SuppressionScope, text: &str, cause: Cause) -> u64 {
        let causes = [NewCause { id: CauseId::generate(), subject: self.subject(text), cause, evidence: None }];
        let causes = causes.as_slice();
        let recorded = self
            .db
            .transact("test.record", |tx, _| Box::pin(suppressions::record(tx, scope, causes, "person:test")))
            .await
            .unwrap();
        suppressions::cancel(&self.db, &recorded.suppressed).await.unwrap();
        recorded.suppressed.len() as u64
    }

    async fn lift(&self, scope: SuppressionScope, text: &str, cause: Cause, evidence: Option<Evidence>) -> Lifted {
        let lift = Lift {
            id: LiftId::generate(),
            scope,
            subject: self.subject(text),
            cause,
            evidence,
            by: "person:test".to_owned(),
        };
        let lift = &lift;
        let lifted = self.db.transact("test.lift", |tx, _| Box::pin(suppressions::lift(tx, lift))).await.unwrap();
        if let Lifted::Done { subject, .. } = &lifted {
            suppressions::decide_again(&self.db, scope.organisation, lift.id, subject).await.unwrap();
        }
        lifted
    }

    async fn object(&self, address: &str) {
        self.end(address, SuppressionReason::Unsubscribed).await;
    }

    async fn end(&self, address: &str, reason: SuppressionReason) {
        let (program, recipient) = (self.id(), self.subject(address).index);
        self.db
            .transact("test.add", |tx, _| {
                Box::pin(async move { suppressions::add(tx, program, &[recipient], reason).await })
            })
            .await
            .unwrap();
        suppressions::cancel(&self.db, &[(program, recipient)]).await.unwrap();
    }

    async fn causes(&self) -> String {
        self.text("SELECT coalesce(string_agg(cause, ' ' ORDER BY cause), '') FROM suppression_causes").await
    }

    async fn effective(&self) -> i64 {
        self.count("SELECT count(*) FROM suppressions").await
    }

    async fn reasons(&self, lead: LeadId) -> String {
        self.text(&format!(
            "SELECT array_to_string(decision_reasons, ' ') FROM enriched_leads WHERE lead_id = '{lead}'"
        ))
        .await
    }

    async fn group(&self) -> OpenOrganisation {
        let slug = "group".parse().unwrap();
        organisations::create(&self.db, &self.vault, &slug, "Group", NOW).await.unwrap();
        organisations::open(&self.db, &self.vault, &slug).await.unwrap().unwrap()
    }

    async fn standing(&self, lead: LeadId) -> Vec<Cause> {
        let ids = [(self.id(), lead)];
        let ids = ids.as_slice();
        let found = self.db.transact("test.standing", |tx, _| Box::pin(suppressions::standing(tx, ids))).await.unwrap();
        found.into_values().next().unwrap_or_default().causes
    }
}

const ANN: &str = "ann@studio.example.com";

#[tokio::test]
async fn lifting_one_cause_leaves_the_others_and_the_last_one_plans_the_mail_again() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mail = world.planned(lead, 1).await;
    world.end(ANN, SuppressionReason::HardBounce).await;
    world.end(ANN, SuppressionReason::Manual).await;
    world.suppress(world.here(), ANN, CUSTOMER).await;
    assert_eq!(world.causes().await, "do_not_contact hard_bounce manual");
    assert_eq!((world.effective().await, world.state(mail).await.as_str()), (1, "cancelled suppressed"));

    let Lifted::Done { others, .. } = world.lift(world.here(), ANN, Cause::HardBounce, None).await else {
        panic!("it stood")
    };
    assert_eq!(others, [CUSTOMER, Cause::Manual]);
    assert!(matches!(world.lift(world.here(), ANN, Cause::HardBounce, None).await, Lifted::NotThere { .. }));
    world.lift(world.here(), ANN, CUSTOMER, None).await;
    assert_eq!((world.effective().await, world.state(mail).await.as_str()), (1, "cancelled suppressed"));

    world.lift(world.here(), ANN, Cause::Manual, None).await;
    assert_eq!((world.causes().await.as_str(), world.effective().await), ("", 0));
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(world.claim(10).await.claimed.len(), 1);
    assert_eq!(world.count("SELECT count(*) FROM suppression_lifts WHERE applied_at IS NOT NULL").await, 3);
    world.database.cleanup().await;
}

#[tokio::test]
async fn an_objection_ends_by_a_new_consent_alone_which_is_sealed_under_the_leads_key() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    world.object(ANN).await;
    assert_eq!(world.lift(world.here(), ANN, Cause::Objection, None).await, Lifted::NeedsConsent);
    assert_eq!((world.causes().await.as_str(), world.effective().await), ("objection", 1));

    let key = world.open_lead(lead).await.key;
    let id = LiftId::generate();
    let sealed = key.seal_row(Column::LiftEvidence, id.as_uuid(), b"a form");
    let evidence = Some(Evidence { sealed: sealed.clone(), lead: Some((world.id(), lead)) });
    assert!(matches!(world.lift(world.here(), ANN, Cause::Objection, evidence).await, Lifted::Done { .. }));
    let kept = world.text("SELECT encode(evidence, 'hex') FROM suppression_lifts").await;
    assert_eq!(hex::decode(kept).unwrap(), sealed);
    assert_eq!(world.effective().await, 0);
    world.database.cleanup().await;
}

#[tokio::test]
async fn what_an_older_release_suppresses_has_its_cause_also_beside_another_one() {
    let world = World::new().await;
    world.end(ANN, SuppressionReason::HardBounce).await;
    // ON CONFLICT DO NOTHING stores no row of it, and still somebody has objected.
    let (program, recipient) = (world.id(), hex::encode(world.subject(ANN).index.to_vec()));
    world
        .execute(&format!(
            "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
             SELECT '{program}', '\\x{recipient}', 1, 'unsubscribed', now()
             ON CONFLICT (program_id, recipient_index) DO NOTHING"
        ))
        .await;
    assert_eq!(world.causes().await, "hard_bounce objection");
    world.lift(world.here(), ANN, Cause::HardBounce, None).await;
    assert_eq!((world.causes().await.as_str(), world.effective().await), ("objection", 1));
    // Of a program that nobody knows there is no organisation.
    world
        .execute(
            "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
             VALUES (gen_random_uuid(), '\\x00112233445566778899aabbccddeeff', 1, 'complaint', now())",
        )
        .await;
    assert_eq!(world.causes().await, "objection");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_row_of_ours_makes_the_trigger_record_nothing() {
    let world = World::new().await;
    world.accept_one(profile("ann")).await;
    assert_eq!(world.suppress(world.here(), "studio.example.com", CUSTOMER).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM suppression_causes WHERE kind = 'email'").await, 0);
    world.lift(world.here(), "studio.example.com", CUSTOMER, None).await;
    assert_eq!(world.effective().await, 0);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_domain_a_wildcard_and_a_user_name_cover_leads_that_are_there_and_that_come() {
    let world = World::new().await;
    for (subject, covered) in [
        ("studio.example.com", true),
        ("*.example.com", true),
        ("*.studio.example.com", false),
        ("example.com", false),
        ("@ANN", true),
        ("@bob", false),
    ] {
        let mut lead = profile("ann");
        lead.source = SourceName::parse("tiktok").unwrap();
        let there = world.enriched(lead.clone()).await;
        let mail = world.planned(there, 1).await;
        world.suppress(world.here(), subject, CUSTOMER).await;
        let state = world.state(mail).await;
        assert_eq!(state, if covered { "cancelled do_not_contact" } else { "queued" }, "{subject}");

        // On another network: the user name is the same, and so is the domain.
        lead.source = SourceName::parse("instagram").unwrap();
        lead.email = EmailAddress::parse("ann.two@studio.example.com").ok();
        let comes = world.accept_one(lead).await;
        assert_eq!(world.standing(comes).await, if covered { vec![CUSTOMER] } else { vec![] }, "{subject}");
        assert_eq!(world.effective().await, if covered { 2 } else { 0 }, "{subject}");
        world.enrich(&world.open_lead(comes).await, 90).await;
        let planned = world.plan(&[world.plan_item(comes, 1, Start::Queued)]).await;
        assert_eq!(planned == [Planned::Declined], covered, "{subject}: {planned:?}");
        if covered {
            assert_eq!(world.reasons(comes).await, "do_not_contact:customer");
        }
        world.lift(world.here(), subject, CUSTOMER, None).await;
        assert_eq!((world.effective().await, world.state(mail).await.as_str()), (0, "queued"), "{subject}");
        world
            .execute("TRUNCATE outreach, enriched_leads, lead_keys, leads, suppressions, suppression_causes CASCADE")
            .await;
    }
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_person_who_is_listed_and_has_objected_is_declined_for_both() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world.suppress(world.here(), "*.example.com", CUSTOMER).await;
    world.object(ANN).await;
    assert_eq!(world.plan(&[world.plan_item(lead, 1, Start::Queued)]).await, [Planned::Declined]);
    assert_eq!(world.reasons(lead).await, "suppressed do_not_contact:customer");
    world.database.cleanup().await;
}

#[tokio::test]
async fn what_holds_for_an_organisation_holds_in_each_program_also_in_one_that_comes_later() {
    let mut world = World::new().await;
    let group = world.group().await;
    let join = async |world: &mut World, slug: &str| {
        let slug = slug.parse().unwrap();
        world.program = programs::create_in(&world.db, &world.vault, &group, &slug, &settings(), NOW).await.unwrap();
        world.run = domain::id::RunId::generate();
        world.start_run().await;
    };
    join(&mut world, "one").await;
    let everywhere = SuppressionScope { organisation: group.organisation.id, program: None };
    let here = SuppressionScope { program: Some(world.id()), ..everywhere };
    world.suppress(everywhere, ANN, CUSTOMER).await;
    world.suppress(here, ANN, Cause::Manual).await;
    assert_eq!(world.effective().await, 1);

    join(&mut world, "two").await;
    let lead = world.accept_one(profile("ann")).await;
    assert_eq!(world.standing(lead).await, [CUSTOMER]);
    assert_eq!(world.effective().await, 2, "it has its row from the moment that it is taken in");
    // Only what is for the other program alone stays there.
    world.lift(everywhere, ANN, CUSTOMER, None).await;
    assert_eq!(world.standing(lead).await, []);
    assert_eq!(world.effective().await, 1);
    world.database.cleanup().await;
}

#[tokio::test]
async fn whoever_shares_an_address_stays_suppressed_by_what_covers_the_other() {
    let world = World::new().await;
    let mut other = profile("bob");
    other.email = EmailAddress::parse(ANN).ok();
    world.accept(vec![profile("ann"), other], Dedupe::Skip).await;
    world.suppress(world.here(), "@ann", Cause::Manual).await;
    world.suppress(world.here(), "@bob", CUSTOMER).await;
    assert_eq!(world.effective().await, 1);
    world.lift(world.here(), "@ann", Cause::Manual, None).await;
    assert_eq!(world.effective().await, 1, "a mail to ann would reach bob");
    world.lift(world.here(), "@bob", CUSTOMER, None).await;
    assert_eq!(world.effective().await, 0);
    world.database.cleanup().await;
}

#[tokio::test]
async fn leads_of_an_older_release_are_hashed_and_covered_and_those_that_cannot_be_opened_are_counted() {
    let world = World::new().await;
    for name in ["ann", "bob", "carl", "dora"] {
        world.accept_one(profile(name)).await;
    }
    let [bob, carl] = ["bob", "carl"].map(|name| world.program.keys.username_index(&Handle::parse(name).unwrap()));
    // As an older release leaves them: without hashes, or with those of an address that it has changed.
    world.execute("UPDATE leads SET domain_indexes = NULL, domain_indexes_of = NULL").await;
    world
        .execute(&format!(
            "UPDATE leads SET domain_indexes = '{{}}', domain_indexes_of = '\\x00' WHERE username_index = '\\x{}';
             UPDATE leads SET email = '\\x0000' WHERE username_index = '\\x{}';
             DELETE FROM lead_keys k USING leads l WHERE l.id = k.lead_id AND l.username_index = '\\x{}'",
            hex::encode(bob.to_vec()),
            hex::encode(carl.to_vec()),
            hex::encode(world.program.keys.username_index(&Handle::parse("dora").unwrap()).to_vec()),
        ))
        .await;
    world.suppress(world.here(), "studio.example.com", CUSTOMER).await;
    assert_eq!(world.effective().await, 0, "nobody knows their domains");
    let hashed = suppressions::hash_domains(&world.db, &world.vault, None, |_| ()).await.unwrap();
    assert_eq!(hashed, Hashed { leads: 2, skipped: 2 });
    assert_eq!(world.effective().await, 2);
    assert_eq!(
        suppressions::hash_domains(&world.db, &world.vault, None, |_| ()).await.unwrap(),
        Hashed::default(),
        "who can't be opened isn't looked at for ever"
    );
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_lead_that_was_stored_at_the_same_moment_is_covered_by_the_job() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mail = world.planned(lead, 1).await;
    world.suppress(world.here(), "studio.example.com", CUSTOMER).await;
    // As if its transaction had ended after the look at the leads.
    world.execute("DELETE FROM suppressions; UPDATE outreach SET state = 'queued', recipient_key = recipient_index, reason = NULL, due_at = now()").await;
    assert_eq!(suppressions::apply_causes(world.db.clone()).await.unwrap(), 1);
    assert_eq!((world.effective().await, world.state(mail).await.as_str()), (1, "cancelled do_not_contact"));
    let open = "SELECT count(*) FROM suppression_causes WHERE applied_at IS NULL";
    assert_eq!(world.count(open).await, 1, "others may still be on their way");
    world.execute("UPDATE suppression_causes SET created_at = now() - interval '3 minutes'").await;
    assert_eq!(suppressions::apply_causes(world.db.clone()).await.unwrap(), 0);
    assert_eq!(world.count(open).await, 0);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_lift_that_was_cut_short_is_finished_by_the_job() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mail = world.planned(lead, 1).await;
    world.end(ANN, SuppressionReason::Manual).await;
    world.plan(&[store::outreach::plan::PlanItem::again(world.id(), lead)]).await;
    let lift = Lift {
        id: LiftId::generate(),
        scope: world.here(),
        subject: world.subject(ANN),
        cause: Cause::Manual,
        evidence: None,
        by: "person:test".to_owned(),
    };
    let lift = &lift;
    world.db.transact("test.lift", |tx, _| Box::pin(suppressions::lift(tx, lift))).await.unwrap();
    assert_eq!(world.state(mail).await, "cancelled suppressed");
    assert_eq!(suppressions::apply_causes(world.db.clone()).await.unwrap(), 1);
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(suppressions::apply_causes(world.db.clone()).await.unwrap(), 0);
    world.database.cleanup().await;
}

#[tokio::test]
async fn who_was_not_analysed_because_of_a_cause_waits_for_it_again_when_it_is_lifted() {
    let world = World::new().await;
    let lead = world.accept_one(profile("ann")).await;
    world.object(ANN).await;
    let waiting = "SELECT count(*) FROM lead_keys WHERE awaited_revision IS NOT NULL";
    let skip = async |world: &World| {
        let revisions = [(world.id(), lead, 1)];
        let revisions = revisions.as_slice();
        let skipping = world.db.transact("test.skip", |tx, _| Box::pin(suppressions::skip_analysis(tx, revisions)));
        skipping.await.unwrap();
    };
    skip(&world).await;
    assert_eq!(world.count(waiting).await, 0);
    let evidence = Evidence { sealed: b"sealed".to_vec(), lead: None };
    world.execute("DELETE FROM outbox").await;
    world.lift(world.here(), ANN, Cause::Objection, Some(evidence)).await;
    assert_eq!((world.count(waiting).await, world.count("SELECT count(*) FROM outbox").await), (1, 1));
    // One that is not suppressed any more is not taken off the list by who has seen it suppressed.
    skip(&world).await;
    assert_eq!(world.count(waiting).await, 1);
    world.database.cleanup().await;
}

#[tokio::test]
async fn causes_are_found_by_index_among_many() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world.suppress(world.everywhere(), "*.example.com", CUSTOMER).await;
    let program: ProgramId = world.id();
    world
        .execute(&format!(
            "INSERT INTO suppression_causes (organisation_id, id, kind, subject_index, index_version, cause, list, created_at,
                                             created_by)
             SELECT '{program}', gen_random_uuid(), CASE n % 2 WHEN 0 THEN 'domain' ELSE 'handle' END,
                    decode(md5(n::text), 'hex'), 1, 'do_not_contact', 'customer', now(), 'person:test'
             FROM generate_series(1, 100000) AS n"
        ))
        .await;
    let mut world = world;
    let before = world.entries_read("suppression_causes").await;
    assert_eq!(world.plan(&[world.plan_item(lead, 1, Start::Queued)]).await, [Planned::Declined]);
    let read = world.entries_read("suppression_causes").await - before;
    assert!(read <= 10, "{read} entries were read for one lead");

    world.accept_one(profile("bob")).await;
    let read = world.entries_read("suppression_causes").await - before - read;
    assert!(read <= 20, "{read} entries were read for one new lead");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_domain_finds_its_leads_by_index_among_many() {
    let world = World::new().await;
    world.accept_one(profile("ann")).await;
    let program = world.id();
    world
        .execute(&format!(
            "INSERT INTO leads (program_id, id, source, username, email, username_index, email_index, index_version, created_at,
                                updated_at, domain_indexes, domain_indexes_of)
             SELECT '{program}', gen_random_uuid(), 'instagram', '\\x00', '\\x00', decode(md5('u' || n), 'hex'),
                    decode(md5(n::text), 'hex'), 1, now(), now(), ARRAY[decode(md5('d' || n % 1000), 'hex')],
                    decode(md5(n::text), 'hex')
             FROM generate_series(1, 50000) AS n"
        ))
        .await;
    let mut world = world;
    let before = world.entries_read("leads").await;
    assert_eq!(world.suppress(world.here(), "studio.example.com", CUSTOMER).await, 1);
    let read = world.entries_read("leads").await - before;
    assert!(read <= 20, "{read} entries were read for one domain");
    world.database.cleanup().await;
}
