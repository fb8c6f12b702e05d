//! The stage: from `lead.created` (or `lead.updated`) to a stored enrichment and `lead.enriched`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{
    clock::Clock,
    enrichment::Enrichment,
    event::{Envelope, Event, Queue},
    id::{LeadId, ProgramId},
};
use futures_util::future::BoxFuture;
use opentelemetry::{KeyValue, global, metrics::Counter};
use pipeline::{Batcher, Effect, Outcome, Stage};
use store::{
    Connection, Db, StoreError,
    analysis_claims::{self, AnalysisClaim},
    enrichments::{self, SealedEnrichment, Written},
    leads::{self, Found},
    model_usage,
    programs::Directory,
    suppressions::{self, Standing},
};

use crate::{
    analyst::{Analysis, Analyst},
    claims::{Claimed, Claims},
    model::Budget,
};

/// Leads that are read with one statement, at most.
const READ_BATCH: usize = 256;

/// How much longer than the claim of another delivery to wait: its answer may be stored at the last moment.
const AFTER_CLAIM: Duration = Duration::from_secs(1);

/// Where tokens are booked, and how it is seen to that none are spent twice on the same lead.
#[derive(Debug)]
pub struct Spending {
    /// The model that they were spent on.
    pub model: String,
    /// What is told of the total.
    pub budget: Arc<Budget>,
    /// How long a lead is claimed while the model is asked about it.
    pub claim_life: Duration,
}

/// The enricher's stage.
pub struct EnrichStage {
    analyst: Analyst,
    leads: Batcher<(ProgramId, LeadId), Found, StoreError>,
    standing: Batcher<(ProgramId, LeadId), Standing, StoreError>,
    programs: Directory,
    clock: Arc<dyn Clock>,
    spending: Option<Spending>,
    /// There for an analyst that costs tokens.
    claims: Option<Claims>,
    analysed: Counter<u64>,
}

/// What is to be written about a lead.
#[derive(Debug)]
pub struct Prepared {
    program_id: ProgramId,
    lead_id: LeadId,
    revision: i32,
    /// None for a person who must not be written to: their profile is not analysed.
    analysis: Option<Sealed>,
}

/// An analysis, sealed and ready to be written.
#[derive(Debug)]
struct Sealed {
    score: i16,
    enrichment: SealedEnrichment,
    tokens: u64,
    claim: Option<AnalysisClaim>,
}

impl EnrichStage {
    /// A stage that reads leads from `db` with the keys of `programs`. `spending` is for an analyst that costs tokens.
    pub fn new(
        db: Db,
        programs: Directory,
        analyst: Analyst,
        spending: Option<Spending>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let vault = programs.vault().clone();
        let claims = spending.as_ref().map(|spending| Claims::new(db.clone(), spending.claim_life));
        let asked = db.clone();
        let standing = Batcher::new(READ_BATCH, move |keys: Vec<(ProgramId, LeadId)>| {
            let db = asked.clone();
            async move {
                let keys = keys.as_slice();
                db.transact("enricher.standing", |tx, _| Box::pin(suppressions::standing(tx, keys))).await
            }
        });
        let leads = Batcher::new(READ_BATCH, move |keys: Vec<(ProgramId, LeadId)>| {
            let (db, vault) = (db.clone(), vault.clone());
            async move { leads::open(&db, &vault, &keys).await }
        });
        let analysed = global::meter("leadmill")
            .u64_counter("enricher.analysed")
            .with_description("Leads analysed, by provider and reason of a fallback")
            .build();
        Self { analyst, leads, standing, programs, clock, spending, claims, analysed }
    }

    fn count(&self, enrichment: &Enrichment) {
        let reason = enrichment.fallback_reason.clone().unwrap_or_default();
        let labels = [KeyValue::new("provider", enrichment.provider.name()), KeyValue::new("reason", reason)];
        self.analysed.add(1, &labels);
    }

    async fn book(&self, tx: &mut Connection, batch: &[Prepared]) -> Result<(), StoreError> {
        let Some(Spending { model, budget, .. }) = &self.spending else { return Ok(()) };
        let mut spent: BTreeMap<ProgramId, u64> = BTreeMap::new();
        for item in batch {
            let tokens = item.analysis.as_ref().map_or(0, |analysis| analysis.tokens);
            if tokens > 0 {
                *spent.entry(item.program_id).or_default() += tokens;
            }
        }
        if !spent.is_empty() {
            let today = self.clock.now().date();
            let total = model_usage::add(tx, today, model, &spent).await?;
            budget.learn(today, total);
        }
        Ok(())
    }
}

impl Stage for EnrichStage {
    const NAME: &'static str = "enricher";
    const QUEUE: Queue = Queue::LeadCreated;

    type Prepared = Prepared;

    async fn prepare(&self, envelope: &Envelope) -> Outcome<Prepared> {
        let key = (envelope.program_id, envelope.lead_id);
        let open = match self.leads.load(key).await {
            Ok(Some(Found::Lead(open))) => open,
            Ok(Some(Found::Erased)) => return Outcome::Done("erased"),
            Ok(Some(Found::Unreadable(error))) => return Outcome::reject(&*error),
            Ok(Some(Found::Unknown) | None) => {
                return Outcome::Reject { reason: format!("there is no lead {} in program {}", key.1, key.0) };
            }
            Err(error) => return Outcome::failed(error),
        };
        // An event tells that something changed, not what: the newest revision is what gets analysed.
        if open.enriched_revision.is_some_and(|enriched| enriched >= open.lead.revision) {
            return Outcome::Done("stale");
        }
        let program = match self.programs.get(key.0).await {
            Ok(Some(program)) => program,
            Ok(None) => return Outcome::Reject { reason: format!("there is no program {}", key.0) },
            Err(error) => return Outcome::failed(error),
        };
        // First the permit, so that the claim lasts no longer than the work: what waits here may be analysed elsewhere.
        let permit = self.analyst.permit().await;
        // Last before the analysis: who objects while the lead waits here isn't analysed any more.
        match self.standing.load(key).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                let revision = open.lead.revision;
                return Outcome::Apply(Prepared { program_id: key.0, lead_id: key.1, revision, analysis: None });
            }
            Err(error) => return Outcome::failed(error),
        }
        let claim = match &self.claims {
            None => None,
            Some(claims) => match claims.take(key, open.lead.revision).await {
                Ok(Claimed::Taken(claim)) => claim.begin(),
                Ok(Claimed::Elsewhere { remaining }) => {
                    let after = retry::jittered(AFTER_CLAIM).saturating_add(remaining);
                    return Outcome::InProgress { after, reason: "another delivery is analysing the lead".to_owned() };
                }
                Ok(Claimed::Enriched) => return Outcome::Done("stale"),
                Err(error) => return Outcome::failed(error),
            },
        };
        let Analysis { enrichment, tokens } = permit.analyse(&open.lead, &program.program).await;
        self.count(&enrichment);
        Outcome::Apply(Prepared {
            program_id: key.0,
            lead_id: key.1,
            revision: open.lead.revision,
            analysis: Some(Sealed {
                score: enrichment.score.get(),
                tokens,
                claim,
                enrichment: enrichments::seal(&open, &program.program.settings.niches, enrichment),
            }),
        })
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Connection,
        batch: &'a mut [Prepared],
    ) -> BoxFuture<'a, Result<Vec<Effect>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            // Copies, since the same batch may have to be applied again.
            let done = || batch.iter().filter_map(|item| item.analysis.as_ref());
            let sealed: Vec<SealedEnrichment> = done().map(|analysis| analysis.enrichment.clone()).collect();
            let mut written = enrichments::write(tx, &sealed, now).await?.into_iter();
            let claims: Vec<AnalysisClaim> = done().filter_map(|analysis| analysis.claim).collect();
            analysis_claims::release(tx, &claims).await?;
            let skipped: Vec<_> = batch
                .iter()
                .filter(|item| item.analysis.is_none())
                .map(|item| (item.program_id, item.lead_id, item.revision))
                .collect();
            suppressions::skip_analysis(tx, &skipped).await?;
            // Last, so that all replicas take their locks in one order.
            self.book(tx, batch).await?;
            Ok(batch
                .iter()
                .map(|item| {
                    let Some(analysis) = &item.analysis else { return Effect::silent("suppressed") };
                    match written.next() {
                        Some(Written::New { version }) => {
                            let event = Event::LeadEnriched { enrichment_version: version, score: analysis.score };
                            Effect::telling(
                                "written",
                                Envelope::new(item.program_id, item.lead_id, item.revision, now, event),
                            )
                        }
                        Some(Written::Stale) | None => Effect::silent("stale"),
                        Some(Written::Erased) => Effect::silent("erased"),
                    }
                })
                .collect())
        })
    }
}

impl std::fmt::Debug for EnrichStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrichStage").field("analyst", &self.analyst).finish_non_exhaustive()
    }
}
