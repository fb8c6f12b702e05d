//! Deciding about enriched leads, recording the decisions, and planning the mails that follow.
//!
//! A decision is made inside of the transaction that records it, from what is stored at that moment: the program's settings,
//! the enrichment, the address, the suppressions. So no decision rests on something that a cache or a queue remembers.
//! [`plan`] serves the stage behind `lead.enriched`, each change of a program's settings, held mails whose time has come, and
//! mails whose lead has another address than they were planned for: all of them end in the same rows.

mod facts;
mod rows;

use std::collections::HashMap;

use domain::{
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    law::Ruling,
    outreach::CampaignStep,
    program::ProgramSettings,
    qualification::Decision,
};
use time::OffsetDateTime;

pub(super) use self::facts::{Facts, decide, name_of, programs_of, read as read_facts};
use vault::BlindIndex;

use super::recipients;
use crate::{Connection, StoreError, leads, programs, suppressions};

/// A lead to decide about.
#[derive(Debug, Clone)]
pub struct PlanItem {
    /// The program.
    pub program_id: ProgramId,
    /// The lead.
    pub lead_id: LeadId,
    /// What asks for a decision.
    pub occasion: Occasion,
    /// The row's id, if one is inserted.
    pub id: OutreachId,
    /// Which mail of which campaign.
    pub step: CampaignStep,
    /// Whether the planner is ready to send it at once.
    pub start: Start,
}

impl PlanItem {
    /// The first mail of the built-in campaign, for a lead that was decided about before.
    pub fn again(program: ProgramId, lead: LeadId) -> Self {
        Self {
            program_id: program,
            lead_id: lead,
            occasion: Occasion::Again { lease: None },
            id: OutreachId::generate(),
            step: CampaignStep::first(),
            start: Start::Queued,
        }
    }
}

/// What asks for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A new enrichment, of this version; done if this or a newer one was decided about.
    Enriched {
        /// The enrichment's version, from 1.
        version: i32,
    },
    /// Something else has changed about a lead that was decided about before.
    Again {
        /// The lease under which the caller has the lead's mail in hand, if it has; the row is given back with the decision.
        lease: Option<LeaseToken>,
    },
}

/// When a planned mail starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, by the planner, under this lease.
    Claimed {
        /// The lease.
        token: LeaseToken,
        /// Its length in seconds.
        seconds: i32,
        /// The address that the planner has read. If the lead has another one by now, its mail waits for a claim.
        recipient: BlindIndex,
        /// Whether a program's daily cap doesn't matter. Otherwise a mail of a program that has one waits for a claim, which is
        /// where tokens are taken.
        ignores_cap: bool,
    },
    /// When somebody claims it.
    Queued,
}

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// The row is there, and leased to the planner.
    Claimed(OutreachId),
    /// The row is there, and waits for a claim.
    Queued(OutreachId),
    /// The row is there, and held: for the decision's reason, or because another lead has the same address.
    Held(OutreachId),
    /// There was a row already; if nothing of it had gone out, it follows the decision.
    Existing,
    /// No mail.
    Declined,
    /// Nothing to do: this or a newer enrichment was decided about before, or the item is about an older one than is stored; or,
    /// for a lead that is decided about again, there is no decision yet.
    Stale,
    /// The lead was erased.
    Erased,
}

/// A lead with its decision, in the order in which rows are locked.
struct Decided<'a> {
    item: &'a PlanItem,
    facts: Facts,
    decision: Decision,
    permission: Permission,
    message_id: String,
    may_start: bool,
}

/// What lets a planned mail go out, as its row remembers it; nothing while it isn't planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Permission {
    law_version: Option<i16>,
    rule: Option<String>,
    /// When the consent expires that it rests on.
    until: Option<OffsetDateTime>,
}

impl Permission {
    fn of(facts: &Facts, settings: &ProgramSettings, decision: &Decision) -> Self {
        let verdict = facts::judge(facts, settings);
        if !matches!(decision, Decision::Plan) || verdict.ruling != Ruling::Allow {
            return Self::default();
        }
        Self {
            law_version: Some(programs::law_version()),
            rule: Some(verdict.rule),
            until: facts.shown.consent_until.filter(|_| verdict.rests_on_consent),
        }
    }
}

/// Decides about leads, records the decisions and plans the mails that follow; returns what became of each item, in order.
pub async fn plan(connection: &mut Connection, items: &[PlanItem]) -> Result<Vec<Planned>, StoreError> {
    let mut ids: Vec<_> = items.iter().map(|item| (item.program_id, item.lead_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    // Of two decisions about one lead, the second waits here and then reads what the first has written: otherwise the one that is
    // recorded last could be made from older facts, and its mail follow the other.
    let alive = leads::lock_keys_for_update(connection, &ids).await?;
    ids.retain(|id| alive.contains(id));
    let newest = newest(items);
    let programs = programs_of(connection, &ids).await?;
    let mut facts = read_facts(connection, &ids).await?;
    let mut decided: Vec<Decided<'_>> = Vec::with_capacity(ids.len());
    for id in &ids {
        let item = &items[newest[id]];
        let (Some(program), Some(facts)) = (programs.get(&id.0), facts.remove(id)) else { continue };
        if !facts.wants(item.occasion) {
            continue;
        }
        let decision = decide(&facts, &program.program.settings);
        let message_id = domain::outreach::message_id(id.0, id.1, &item.step, &program.program.message_id_domain());
        let may_start = match item.start {
            Start::Claimed { ignores_cap, recipient, .. } => {
                facts.recipient.as_deref() == Some(recipient.to_vec().as_slice())
                    && program.may_claim
                    && (ignores_cap || program.program.settings.daily_cap.is_none())
            }
            Start::Queued => false,
        };
        let permission = Permission::of(&facts, &program.program.settings, &decision);
        decided.push(Decided { item, facts, decision, permission, message_id, may_start });
    }
    let recorded = facts::record(connection, &decided).await?;
    decided.retain(|lead| recorded.contains(&lead.id()));

    // What a claim looks at. A cause that covers the lead otherwise than by its address may have come before the lead.
    suppressions::cover_standing(connection, decided.iter().map(|lead| (lead.item.program_id, &lead.facts.standing)))
        .await?;
    let written = rows::write(connection, &decided).await?;
    recipients::inherit(connection, &written.free).await?;

    let outcomes: HashMap<_, Planned> = decided
        .iter()
        .map(|lead| (lead.id(), written.outcomes.get(&lead.item.id).copied().unwrap_or(lead.existing())))
        .collect();
    Ok(items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let id = (item.program_id, item.lead_id);
            match outcomes.get(&id) {
                _ if !alive.contains(&id) => Planned::Erased,
                Some(outcome) if newest[&id] == index => *outcome,
                _ => Planned::Stale,
            }
        })
        .collect())
}

/// One item per lead: the one about the newest enrichment.
fn newest(items: &[PlanItem]) -> HashMap<(ProgramId, LeadId), usize> {
    let version = |item: &PlanItem| match item.occasion {
        Occasion::Enriched { version } => version,
        Occasion::Again { .. } => 0,
    };
    let mut newest: HashMap<(ProgramId, LeadId), usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let kept = newest.entry((item.program_id, item.lead_id)).or_insert(index);
        if version(item) > version(&items[*kept]) {
            *kept = index;
        }
    }
    newest
}

impl Decided<'_> {
    const fn id(&self) -> (ProgramId, LeadId) {
        (self.item.program_id, self.item.lead_id)
    }

    /// What became of it if no row was inserted.
    const fn existing(&self) -> Planned {
        if matches!(self.decision, Decision::Decline(_)) { Planned::Declined } else { Planned::Existing }
    }
}
