//! The stage behind the queue `lead.enriched`: decides, records the decision, and plans the mail.
//!
//! The decision itself is made by the store, in the transaction that records it; here it is foreseen, so that a mail which will
//! be sent at once has a slot and its lead is read. A plan that may be sent now is inserted already claimed and handed to the
//! [`Sender`] after the commit; what finds no free slot soon, or wants a token of a limited budget, is inserted as queued and
//! found by polling.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    event::{Envelope, Queue, TraceContext},
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    law::{Contact, Law, is_relevant},
    outreach::{CampaignStep, message_id},
    program::Program,
    qualification::{Candidate, Decision, qualify},
};
use futures_util::future::BoxFuture;
use pipeline::{Batcher, Effect, Outcome, Stage};
use store::{
    Connection, Db, StoreError,
    enrichments::{self, EnrichedLead, FoundEnriched},
    outreach::{
        claim::Claimed,
        plan::{Occasion, PlanItem, Planned, Start, plan},
    },
    programs::{Directory, OpenProgram},
};

use crate::sender::{Job, Sender, Slot, Tokens};

/// Leads that are read in one statement.
const READ_BATCH: usize = 256;

/// The stage.
pub struct PlanStage {
    directory: Directory,
    leads: Batcher<(ProgramId, LeadId), FoundEnriched, StoreError>,
    sender: Sender,
}

impl PlanStage {
    /// A stage that hands what can start at once to `sender`.
    pub fn new(db: Db, directory: Directory, sender: Sender) -> Self {
        let vault = directory.vault().clone();
        let leads = Batcher::new(READ_BATCH, move |ids: Vec<(ProgramId, LeadId)>| {
            let (db, vault) = (db.clone(), vault.clone());
            async move { enrichments::open(&db, &vault, &ids).await as Result<HashMap<_, _>, _> }
        });
        Self { directory, leads, sender }
    }
}

/// A lead that was decided about.
#[derive(Debug)]
pub struct Decided {
    item: PlanItem,
    lead: Box<EnrichedLead>,
    program: Arc<OpenProgram>,
    trace: TraceContext,
    /// The right to start its mail at once.
    slot: Option<Slot>,
    /// Whether the row was inserted under our lease.
    claimed: bool,
}

/// Decides about a lead by everything that is known of it now.
pub fn decide(lead: &EnrichedLead, program: &Program) -> Decision {
    let settings = &program.settings;
    let profile = &lead.lead.lead.profile;
    let relevant = is_relevant(&lead.enrichment.niche, &settings.niches);
    let contact = Contact { consent: lead.shown.consent, address: lead.shown.address, relevant };
    qualify(&Candidate {
        score: lead.enrichment.score,
        threshold: settings.threshold,
        compliant: lead.enrichment.compliant,
        sent: lead.sent,
        suppressed: lead.suppressed,
        // Whoever is on a list is suppressed as well; the store's decision tells the two apart.
        do_not_contact: None,
        has_address: profile.email.is_some(),
        legal: Law::current().judge(profile.country, contact),
        incomplete_sender: !settings.can_send(),
    })
}

impl Stage for PlanStage {
    const NAME: &'static str = "mailer";
    const QUEUE: Queue = Queue::LeadEnriched;

    type Prepared = Decided;

    async fn prepare(&self, envelope: &Envelope) -> Outcome<Decided> {
        let program = match self.directory.get(envelope.program_id).await {
            Ok(Some(program)) => program,
            Ok(None) => return Outcome::Reject { reason: format!("there is no program {}", envelope.program_id) },
            Err(error) => return Outcome::failed(error),
        };
        let lead = match self.leads.load((envelope.program_id, envelope.lead_id)).await {
            Ok(Some(FoundEnriched::Enriched(lead))) => lead,
            Ok(Some(FoundEnriched::Erased)) => return Outcome::Done("erased"),
            Ok(Some(FoundEnriched::NotEnriched)) => {
                // Only a restored backup can have lost the enrichment that the event tells of.
                let after = Duration::from_secs(30);
                return Outcome::RetryLater { after, reason: "the lead is not enriched".to_owned() };
            }
            Ok(Some(FoundEnriched::Unknown) | None) => {
                return Outcome::Reject { reason: format!("there is no lead {}", envelope.lead_id) };
            }
            Ok(Some(FoundEnriched::Unreadable(error))) => return Outcome::reject(&*error),
            Err(error) => return Outcome::failed(error),
        };
        if lead.decided_version.is_some_and(|decided| decided >= lead.version) {
            return Outcome::Done("stale");
        }
        let mut slot = None;
        if decide(&lead, &program.program) == Decision::Plan
            && !program.program.settings.paused
            && !self.sender.is_limited(&program)
        {
            slot = self.sender.slot_soon().await;
        }
        let recipient = lead.lead.lead.profile.email.as_ref().map(|email| program.keys.email_index(email));
        let start = match (&slot, recipient) {
            (Some(_), Some(recipient)) => Start::Claimed {
                recipient,
                token: LeaseToken::generate(),
                seconds: self.sender.lease_seconds(),
                ignores_cap: self.sender.captures(),
            },
            _ => Start::Queued,
        };
        let item = PlanItem {
            program_id: envelope.program_id,
            lead_id: envelope.lead_id,
            occasion: Occasion::Enriched { version: lead.version },
            id: OutreachId::generate(),
            step: CampaignStep::first(),
            start,
        };
        Outcome::Apply(Decided { item, lead, program, trace: pipeline::current_trace(), slot, claimed: false })
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Connection,
        batch: &'a mut [Decided],
    ) -> BoxFuture<'a, Result<Vec<Effect>, StoreError>> {
        Box::pin(async move {
            let items: Vec<PlanItem> = batch.iter().map(|decided| decided.item.clone()).collect();
            let planned = plan(tx, &items).await?;
            let mut effects = Vec::with_capacity(batch.len());
            for (decided, planned) in batch.iter_mut().zip(planned) {
                decided.claimed = matches!(planned, Planned::Claimed(_));
                effects.push(Effect::silent(name_of(planned)));
            }
            Ok(effects)
        })
    }

    async fn committed(&self, batch: Vec<Decided>) {
        let mut jobs = Vec::new();
        let mut queued = false;
        for decided in batch {
            let Decided { item, lead, program, trace, slot, claimed } = decided;
            let (Start::Claimed { token, recipient, .. }, Some(slot), true) = (item.start, slot, claimed) else {
                queued = true;
                continue;
            };
            let claimed = Claimed {
                program_id: item.program_id,
                id: item.id,
                lead_id: item.lead_id,
                recipient,
                message_id: message_id(item.program_id, item.lead_id, &item.step, &program.program.message_id_domain()),
                step: item.step,
                attempts: 1,
                token,
            };
            jobs.push(Job { claimed, lead, program, slot, tokens: Tokens::default(), trace });
        }
        if queued {
            self.sender.notify_queued();
        }
        self.sender.start(jobs).await;
    }
}

const fn name_of(planned: Planned) -> &'static str {
    match planned {
        Planned::Claimed(_) => "claimed",
        Planned::Queued(_) => "queued",
        Planned::Held(_) => "held",
        Planned::Existing => "existing",
        Planned::Declined => "declined",
        Planned::Stale => "stale",
        Planned::Erased => "erased",
    }
}
