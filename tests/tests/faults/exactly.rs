//! 2: kill -9 of the mailer at exactly the moments that matter.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use leadmill_tests::{
    faults::{
        gate::{Gate, Moment},
        service::Service,
        verdict::Done,
        world::{Plan, World},
    },
    truth,
};
use test_support::smtp::{Action, Step};
use tokio::sync::Notify;

/// Where the mailer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// While the claim is being written.
    BeforeClaim,
    /// The claim is committed; the server hasn't greeted.
    AfterClaim,
    /// MAIL was answered.
    AfterMail,
    /// RCPT was answered; the move to the data phase is being written.
    AfterRcpt,
    /// The move to the data phase is in its COMMIT, which then succeeds.
    InPhaseCommit,
    /// The move to the data phase is in its COMMIT, which then fails.
    InLostPhaseCommit,
    /// The server has DATA, and says nothing.
    DataUnanswered,
    /// The first line of the body has arrived.
    FirstBodyByte,
    /// The server has the message, and says nothing.
    DotUnanswered,
    /// The server has said 250; the settling statement runs.
    BeforeSettling,
    /// The settling transaction is in its COMMIT, which then succeeds.
    InSettlingCommit,
    /// The settling transaction is in its COMMIT, which then fails.
    InLostSettlingCommit,
}

const DEATHS: [Death; 12] = [
    Death::BeforeClaim,
    Death::AfterClaim,
    Death::AfterMail,
    Death::AfterRcpt,
    Death::InPhaseCommit,
    Death::InLostPhaseCommit,
    Death::DataUnanswered,
    Death::FirstBodyByte,
    Death::DotUnanswered,
    Death::BeforeSettling,
    Death::InSettlingCommit,
    Death::InLostSettlingCommit,
];

impl Death {
    /// The step of the dialogue at which the server falls silent for good, if it is one.
    const fn step(self) -> Option<Step> {
        match self {
            Self::AfterClaim => Some(Step::Connect),
            // The client sends the next command only when it has read the answer to the one before.
            Self::AfterMail => Some(Step::Rcpt),
            Self::DataUnanswered => Some(Step::Data),
            Self::FirstBodyByte => Some(Step::Body),
            Self::DotUnanswered => Some(Step::Dot),
            _ => None,
        }
    }

    /// Whether it leaves a mail of unknown fate. Otherwise nothing had gone out, and that is written down, or it has, and
    /// that is.
    const fn leaves_doubt(self) -> bool {
        matches!(
            self,
            Self::InPhaseCommit
                | Self::DataUnanswered
                | Self::FirstBodyByte
                | Self::DotUnanswered
                | Self::BeforeSettling
                | Self::InLostSettlingCommit
        )
    }

    /// Where in PostgreSQL it happens, if it happens there.
    const fn gate(self) -> Option<(Moment, &'static str)> {
        match self {
            Self::BeforeClaim => Some((Moment::Statement, "NEW.state = 'connecting'")),
            Self::AfterRcpt => Some((Moment::Statement, "NEW.state = 'transmitting'")),
            Self::InPhaseCommit | Self::InLostPhaseCommit => Some((Moment::Commit, "NEW.state = 'transmitting'")),
            Self::BeforeSettling => Some((Moment::Statement, "NEW.state = 'sent'")),
            Self::InSettlingCommit | Self::InLostSettlingCommit => Some((Moment::Commit, "NEW.state = 'sent'")),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailer_killed_at_any_exact_moment_sends_nothing_twice() {
    // A few at a time: each waits for leases most of its time.
    for deaths in DEATHS.chunks(4) {
        futures_util::future::join_all(deaths.iter().map(|death| dies(*death))).await;
    }
}

async fn dies(death: Death) {
    // One connection, so that one mail at a time is on its way.
    let env = [("LEADMILL_MAILER_SMTP_CONNECTIONS", "1")];
    let world = World::start(Plan { seed: 200 + death as u64, env: &env, ..Plan::default() }).await;
    let mailer = world.replicas("mailer").next().expect("a mailer");
    let (fed, ()) = match (death.step(), death.gate()) {
        (Some(step), _) => tokio::join!(world.feed(20, Duration::ZERO), killed_at_step(&world, mailer, step)),
        (_, Some((moment, condition))) => {
            let gate = Gate::close(&world.stack, moment, condition).await;
            tokio::join!(world.feed(20, Duration::ZERO), killed_at_gate(gate, mailer, death))
        }
        _ => unreachable!("each has a place"),
    };
    let fault = format!("mailer killed: {death:?}");
    let in_doubt = u64::from(death.leaves_doubt());
    let done = Done { row: 2, fault: &fault, runs: 1, fed: Some(fed), in_doubt, ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.uncertain, in_doubt, "{death:?}: {tally}");
    let sent = truth::count(&world.stack, "SELECT count(*) FROM outreach WHERE state = 'sent'").await as u64;
    assert!(sent > 5, "{death:?}: only {sent} mails went out afterwards");
    world.end().await;
}

/// The server falls silent at the first time it comes to `step`, and the mailer dies then.
async fn killed_at_step(world: &World, mailer: &Service, step: Step) {
    let reached = Arc::new(Notify::new());
    let (told, silent) = (Arc::clone(&reached), AtomicBool::new(false));
    world.mailbox.set_script(move |event| {
        if event.step != step || silent.swap(true, Ordering::SeqCst) {
            return Action::Proceed;
        }
        told.notify_one();
        if step == Step::Dot { Action::TakeAndHang } else { Action::Hang }
    });
    reached.notified().await;
    mailer.kill().await;
}

/// The mailer dies while its transaction waits in PostgreSQL; then that transaction comes to its end, one or the other.
async fn killed_at_gate(mut gate: Gate, mailer: &Service, death: Death) {
    let visitors = gate.visitors().await;
    mailer.crash().await;
    if matches!(death, Death::InLostPhaseCommit | Death::InLostSettlingCommit) {
        gate.dismiss(&visitors).await;
    }
    gate.open().await;
    mailer.revive().await;
}
