//! The tokens of limits that a claimed mail has taken, and giving them back.

use domain::id::ProgramId;
use store::{
    Connection, Db, StoreError,
    outreach::{
        budget::{self, Span, Window},
        claim::{self, Claim},
    },
    programs,
};

/// The windows from which one mail has taken a token each. A window is remembered, because a token goes back to the window that
/// it was taken from, however late that is: in another one it would let a mail too many through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Window>);

/// What a claim has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Mails a minute; `None` for no limit.
    pub(super) per_minute: Option<i32>,
    /// Whether the program's daily cap holds.
    pub(super) daily: bool,
}

impl Limits {
    /// For mails that leave nothing: captured ones.
    pub(super) const NONE: Self = Self { per_minute: None, daily: false };
}

/// Claims up to `wanted` mails within the limits, in one transaction; returns them with what each has taken.
pub(super) async fn claim_within(
    tx: &mut Connection,
    program: ProgramId,
    wanted: i32,
    limits: Limits,
    lease: (domain::id::LeaseToken, i32),
) -> Result<(Claim, Tokens), StoreError> {
    let cap = if limits.daily { programs::daily_cap(tx, program).await? } else { None };
    let mut granted = wanted;
    let mut windows = Vec::new();
    for (span, limit) in [(Span::Day, cap), (Span::Minute, limits.per_minute)] {
        let Some(limit) = limit else { continue };
        let (window, tokens) = budget::take(tx, program, span, limit, granted).await?;
        granted = tokens;
        windows.push((window, tokens));
    }
    let claim = if granted > 0 {
        let (token, seconds) = lease;
        claim::claim(tx, program, granted.into(), token, seconds).await?
    } else {
        Claim::default()
    };
    for (window, tokens) in &windows {
        budget::give_back(tx, program, *window, tokens - claim.claimed.len() as i32).await?;
    }
    Ok((claim, Tokens(windows.into_iter().map(|(window, _)| window).collect())))
}

impl Tokens {
    /// Gives back the tokens of `mails` mails of which nothing went out, through no fault of their own: an outage of the mail
    /// server must not use up a day's mails.
    pub(super) async fn give_back(&self, db: &Db, program: ProgramId, mails: i32) {
        if self.0.is_empty() || mails == 0 {
            return;
        }
        let windows = &self.0;
        let returned = db
            .transact("mailer.return_tokens", |tx, _| {
                Box::pin(async move {
                    for window in windows {
                        budget::give_back(tx, program, *window, mails).await?;
                    }
                    Ok(())
                })
            })
            .await;
        if let Err(error) = returned {
            // A token too few errs on the safe side.
            tracing::debug!(program.id = %program, error = &error as &dyn std::error::Error, "a token could not be given back");
        }
    }
}
