//! Claims on paid analyses: one delivery at a time asks the model about a lead, whichever replica has it.
//!
//! The claim is committed before the model is asked, and deleted in the transaction that stores the answer. Whoever dies in
//! between leaves a claim that ends by its time: only then is the lead asked about, and paid for, again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::id::{LeadId, LeaseToken, ProgramId};
use pipeline::Batcher;
use store::{
    Db, StoreError,
    analysis_claims::{self, AnalysisClaim, ClaimResult},
};
use tokio::runtime::Handle;

/// Claims that are made with one statement, at most.
const CLAIM_BATCH: usize = 256;

/// Makes claims, many with one statement.
#[derive(Debug)]
pub(crate) struct Claims {
    batcher: Batcher<AnalysisClaim, Claimed, StoreError>,
}

/// What became of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is ours.
    Taken(HeldClaim),
    /// Another delivery is at work on the lead.
    Elsewhere {
        /// How long its claim still lasts.
        remaining: Duration,
    },
    /// There is nothing to analyse any more.
    Enriched,
}

/// A claim that is ours. Dropped before [`HeldClaim::begin`], it is given back: nothing was asked.
#[derive(Debug)]
pub(crate) struct HeldClaim {
    db: Db,
    claim: Option<AnalysisClaim>,
}

impl Claims {
    /// Makes claims in `db` that last for `life`.
    pub(crate) fn new(db: Db, life: Duration) -> Self {
        let batcher = Batcher::new(CLAIM_BATCH, move |claims: Vec<AnalysisClaim>| {
            let db = db.clone();
            async move { take(&db, &claims, life).await }
        });
        Self { batcher }
    }

    /// Claims the analysis of a lead in this revision.
    pub(crate) async fn take(
        &self,
        (program_id, lead_id): (ProgramId, LeadId),
        lead_revision: i32,
    ) -> Result<Claimed, Arc<StoreError>> {
        let claim = AnalysisClaim { program_id, lead_id, lead_revision, holder: LeaseToken::generate() };
        Ok(self.batcher.load(claim).await?.unwrap_or(Claimed::Elsewhere { remaining: Duration::ZERO }))
    }
}

async fn take(
    db: &Db,
    claims: &[AnalysisClaim],
    life: Duration,
) -> Result<HashMap<AnalysisClaim, Claimed>, StoreError> {
    let results = db
        .transact("enricher.claim", |tx, _| Box::pin(async move { analysis_claims::take(tx, claims, life).await }))
        .await?;
    let claimed = results.into_iter().map(|(claim, result)| {
        let claimed = match result {
            ClaimResult::Taken => Claimed::Taken(HeldClaim { db: db.clone(), claim: Some(claim) }),
            ClaimResult::Held { remaining } => Claimed::Elsewhere { remaining },
            ClaimResult::Enriched => Claimed::Enriched,
        };
        (claim, claimed)
    });
    Ok(claimed.collect())
}

impl HeldClaim {
    /// The model is asked now: from here on the claim ends with the stored answer, or by its time.
    pub(crate) fn begin(mut self) -> Option<AnalysisClaim> {
        self.claim.take()
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        let (Some(claim), Ok(runtime)) = (self.claim.take(), Handle::try_current()) else { return };
        let db = self.db.clone();
        runtime.spawn(async move {
            let claims = [claim];
            let claims = claims.as_slice();
            let releasing = db.transact("enricher.release", |tx, _| Box::pin(analysis_claims::release(tx, claims)));
            // If it fails, or the process ends first, the claim ends by its time.
            if let Err(error) = releasing.await {
                tracing::debug!(lead.id = %claim.lead_id, error = &error as &dyn std::error::Error, "a claim was not given back");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use store::DbConfig;
    use test_support::postgres::{TestDatabase, number};

    use super::*;

    const CLAIMS: &str = "SELECT count(*) FROM analysis_claims";

    #[tokio::test]
    async fn a_claim_is_given_back_unless_the_model_was_asked() {
        let database = TestDatabase::create().await;
        let db = Db::new(&DbConfig { max_connections: 2, ..DbConfig::new(database.url()) }).unwrap();
        let claims = Claims::new(db.clone(), Duration::from_mins(1));
        let lead = (ProgramId::generate(), LeadId::generate());
        let mut witness = database.connect().await;

        let Claimed::Taken(claim) = claims.take(lead, 1).await.unwrap() else { panic!("nobody else has it") };
        drop(claim);
        let given_back = async { while number(&mut witness, CLAIMS).await.unwrap() > 0 {} };
        tokio::time::timeout(Duration::from_secs(10), given_back).await.expect("it is given back");

        let Claimed::Taken(claim) = claims.take(lead, 1).await.unwrap() else { panic!("it was given back") };
        assert!(claim.begin().is_some());
        assert!(matches!(claims.take(lead, 1).await.unwrap(), Claimed::Elsewhere { .. }));
        db.close().await;
        assert_eq!(number(&mut witness, CLAIMS).await.unwrap(), 1);
        database.cleanup().await;
    }
}
