//! What a mail server in a bad mood does: at each step, by chance and by seed, something that servers really do.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use test_support::smtp::{Action, Step, StepEvent};

/// A mood: what happens at a step, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mood {
    /// Tells one storm from another.
    pub seed: u64,
    /// The share of steps at which something goes wrong, from 0.0 to 1.0.
    pub share: f64,
}

impl Mood {
    /// What the server does.
    pub fn action(&self, event: &StepEvent<'_>) -> Action {
        // A client that says goodbye is let go.
        if matches!(event.step, Step::Quit | Step::Rset | Step::Noop) {
            return Action::Proceed;
        }
        let place = (event.connection as u64) << 24 | (event.transaction as u64) << 8 | event.step as u64;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place);
        if !rng.random_bool(self.share) {
            return Action::Proceed;
        }
        let choices = misbehaviours(event.step);
        choices.choose(&mut rng).cloned().unwrap_or(Action::Proceed)
    }
}

/// What can go wrong at a step.
pub fn misbehaviours(step: Step) -> Vec<Action> {
    let mut all = vec![
        Action::reply("451 4.3.0 try again later"),
        Action::ReplyAndClose("421 4.3.2 shutting down".to_owned()),
        Action::Close,
        Action::Hang,
        Action::Delay(Duration::from_millis(300)),
        Action::reply("gibberish"),
    ];
    match step {
        // None that stops the mailer until somebody has looked: a refusal of its credentials, or by policy (5.7.x).
        Step::Connect => all.push(Action::reply("554 5.3.2 no service here")),
        Step::Ehlo => all.push(Action::reply("502 5.5.1 no such command")),
        Step::StartTls => all.push(Action::reply("554 5.3.0 no TLS today")),
        Step::Mail => all.push(Action::reply("552 5.2.2 too much mail")),
        Step::Rcpt => all.push(Action::reply("550 5.1.1 no such user")),
        Step::Data => all.push(Action::reply("554 5.6.0 no")),
        Step::Dot => {
            all.extend([Action::reply("554 5.6.0 message refused"), Action::TakeAndClose, Action::TakeAndHang]);
        }
        Step::Body => {
            // In the middle of a body a server can only go away.
            all = vec![Action::Close, Action::Hang];
        }
        _ => {}
    }
    all
}
