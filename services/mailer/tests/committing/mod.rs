//! What one transaction for many mails may wait for, and what it may not.

use std::{sync::Arc, time::Duration};

use domain::{
    clock::SystemClock,
    email::EmailAddress,
    event::TraceContext,
    id::{LeadId, LeaseToken},
};
use mailer::sender::commit::Committer;
use store::{
    outreach::{
        claim::{self, Claimed},
        plan::{self, Occasion, PlanItem},
        settle::{Outcome, Settlement},
    },
    suppressions::{self, SuppressionReason},
};
use test_support::postgres;
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};

use crate::world::{Creator, World, creator, within};

/// Long enough for a write to be in the queue, and for a transaction to have come to what it waits for.
const MOMENT: Duration = Duration::from_millis(300);

/// Transactions of the committer at once.
const PLACES: [&str; 2] = ["first", "second"];

/// Mails under lease, and who writes down what becomes of them.
struct Desk {
    world: World,
    committer: Committer,
    mails: Vec<(String, Claimed)>,
}

impl Desk {
    async fn with(names: &[&str]) -> Self {
        let world = World::new().await;
        let names: Vec<String> = PLACES.iter().chain(names).map(|name| (*name).to_owned()).collect();
        let creators: Vec<Creator> = names.iter().map(|name| creator(name)).collect();
        let (leads, _) = world.enrich(&creators).await;
        let program = world.program.program.id;
        let item =
            |lead: &LeadId| PlanItem { occasion: Occasion::Enriched { version: 1 }, ..PlanItem::again(program, *lead) };
        let items: Vec<PlanItem> = leads.iter().map(item).collect();
        let items = items.as_slice();
        let token = LeaseToken::generate();
        let claim = world
            .db
            .transact("test.claim", |tx, _| {
                Box::pin(async move {
                    plan::plan(tx, items).await?;
                    claim::claim(tx, program, 100, token, 60).await
                })
            })
            .await
            .unwrap();
        let name_of = |lead: LeadId| names[leads.iter().position(|one| *one == lead).unwrap()].clone();
        let mails: Vec<_> = claim.claimed.into_iter().map(|mail| (name_of(mail.lead_id), mail)).collect();
        assert_eq!(mails.len(), names.len(), "all are claimed");
        let committer = Committer::start(world.db.clone(), world.outbox.clone(), Arc::new(SystemClock), 60);
        let desk = Self { world, committer, mails };
        for name in PLACES {
            desk.send(name).await;
        }
        desk
    }

    fn mail(&self, name: &str) -> &Claimed {
        &self.mails.iter().find(|(of, _)| of == name).unwrap().1
    }

    /// Asks for the move to the data phase.
    fn begin(&self, name: &str) -> JoinHandle<bool> {
        let (committer, mail) = (self.committer.clone(), self.mail(name));
        let lease = (mail.program_id, mail.id, mail.token);
        tokio::spawn(async move { committer.begin(lease).await.unwrap() })
    }

    /// Lets a body go out.
    async fn send(&self, name: &str) {
        assert!(within("the move", self.begin(name)).await.unwrap(), "{name}");
    }

    /// Says that a mail was sent.
    fn settle(&self, name: &str) -> JoinHandle<bool> {
        let (committer, mail) = (self.committer.clone(), self.mail(name));
        let settlement = Settlement {
            program_id: mail.program_id,
            id: mail.id,
            lead_id: mail.lead_id,
            token: mail.token,
            outcome: Outcome::Sent,
            reply_code: Some(250),
            reply: None,
        };
        tokio::spawn(async move { committer.settle(settlement, TraceContext::default()).await.unwrap() })
    }

    /// Keeps every place of the committer busy until the lock is given up: what is asked for meanwhile comes into one
    /// transaction.
    async fn gather(&self) -> Lock {
        let leads: Vec<String> = PLACES.iter().map(|name| format!("'{}'", self.mail(name).lead_id)).collect();
        let lock = Lock::of(&self.world, "enriched_leads", &format!("lead_id IN ({})", leads.join(", "))).await;
        for name in PLACES {
            drop(self.settle(name));
            sleep(MOMENT).await;
        }
        lock
    }

    async fn object(&self, name: &str) {
        let program = self.world.program.program.id;
        let address = EmailAddress::parse(&format!("{name}@creator.example")).unwrap();
        let recipient = self.world.program.keys.email_index(&address);
        self.world
            .db
            .transact("test.object", |tx, _| {
                Box::pin(
                    async move { suppressions::add(tx, program, &[recipient], SuppressionReason::Unsubscribed).await },
                )
            })
            .await
            .unwrap();
    }

    async fn state(&self, name: &str) -> String {
        self.world.text(&format!("SELECT state::text FROM outreach WHERE id = '{}'", self.mail(name).id)).await
    }
}

/// Rows that somebody else has locked.
struct Lock {
    release: oneshot::Sender<()>,
    released: JoinHandle<()>,
}

impl Lock {
    async fn of(world: &World, table: &str, which: &str) -> Self {
        let mut connection = world.database.connect().await;
        postgres::execute(&mut connection, "BEGIN").await.unwrap();
        postgres::execute(&mut connection, &format!("SELECT FROM {table} WHERE {which} FOR UPDATE")).await.unwrap();
        let (release, wanted) = oneshot::channel();
        let released = tokio::spawn(async move {
            let _ = wanted.await;
            postgres::execute(&mut connection, "COMMIT").await.unwrap();
        });
        Self { release, released }
    }

    async fn release(self) {
        self.release.send(()).unwrap();
        self.released.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objection_that_is_committed_while_other_mails_of_the_transaction_wait_stops_the_body() {
    let desk = Desk::with(&["ann", "bob"]).await;
    desk.send("bob").await;
    let bob = Lock::of(&desk.world, "enriched_leads", &format!("lead_id = '{}'", desk.mail("bob").lead_id)).await;
    let gathering = desk.gather().await;
    let (begun, settled) = (desk.begin("ann"), desk.settle("bob"));
    sleep(MOMENT).await;
    gathering.release().await;
    sleep(MOMENT).await;
    desk.object("ann").await;
    bob.release().await;
    assert!(within("bob's settlement", settled).await.unwrap());
    assert!(!within("ann's move", begun).await.unwrap(), "ann has objected before anything of her mail went out");
    assert_eq!(desk.state("ann").await, "cancelled");
    desk.world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_given_up_keeps_no_other_from_being_sent() {
    let desk = Desk::with(&["ann", "bob"]).await;
    let bob = Lock::of(&desk.world, "outreach", &format!("id = '{}'", desk.mail("bob").id)).await;
    let gathering = desk.gather().await;
    let (ann, bobs) = (desk.begin("ann"), desk.begin("bob"));
    sleep(MOMENT).await;
    gathering.release().await;
    assert!(within("ann's move, while bob's row is locked", ann).await.unwrap());
    assert_eq!(desk.state("ann").await, "transmitting");
    bob.release().await;
    assert!(!within("bob's move", bobs).await.unwrap());
    assert_eq!(desk.state("bob").await, "queued");
    let attempts = format!("SELECT attempts::text FROM outreach WHERE id = '{}'", desk.mail("bob").id);
    assert_eq!(desk.world.text(&attempts).await, "0", "nothing of it went out");
    desk.world.cleanup().await;
}
