//! Made-up creators on their way in, over HTTP like anybody's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use collector::source::simulated::{SimulatedSource, SimulationMix};
use collector::source::{Field, RawProfile};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::http;
use super::place::BenchProgram;

/// Leads of one request.
const REQUEST_LEADS: u64 = 500;
/// Requests under way at once.
const REQUESTS: u64 = 4;

/// Who is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Population {
    /// Creators as they come: some without an address, some where a first mail isn't lawful.
    Usual,
    /// Creators who can all be written to.
    Reachable,
}

/// Posts creators to collectors.
#[derive(Debug, Clone)]
pub struct Load {
    creators: SimulatedSource,
    population: Population,
    ingests: Vec<SocketAddr>,
    key: String,
}

impl Load {
    /// Creators of this population for a program. The same seed gives the same ones.
    pub fn new(seed: u64, population: Population, ingests: Vec<SocketAddr>, program: &BenchProgram) -> Self {
        let creators = SimulatedSource::new(seed, u64::MAX, SimulationMix::CLEAN);
        Self { creators, population, ingests, key: program.key.clone() }
    }

    /// Posts `count` creators as fast as they are taken.
    pub async fn at_full_speed(&self, count: u64) -> anyhow::Result<()> {
        let next = Arc::new(AtomicU64::new(0));
        let mut posting: JoinSet<anyhow::Result<()>> = JoinSet::new();
        for number in 0..REQUESTS {
            let (load, next) = (self.clone(), Arc::clone(&next));
            posting.spawn(async move {
                loop {
                    let first = next.fetch_add(REQUEST_LEADS, Ordering::Relaxed);
                    if first >= count {
                        return Ok(());
                    }
                    load.post(number, first, count.min(first + REQUEST_LEADS)).await?;
                }
            });
        }
        while let Some(ended) = posting.join_next().await {
            ended.context("posting leads")??;
        }
        Ok(())
    }

    /// Posts the creators from `first` on, `count` of them, one by one and so many a second.
    pub async fn at_rate(&self, first: u64, count: u64, rate: f64) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut posting = JoinSet::new();
        for number in 0..count {
            sleep_until(started + Duration::from_secs_f64(number as f64 / rate)).await;
            // Not awaited here: a slow answer must not slow down those who come after it.
            let load = self.clone();
            posting.spawn(async move { load.post(number, first + number, first + number + 1).await });
        }
        while let Some(ended) = posting.join_next().await {
            ended.context("posting leads")??;
        }
        Ok(())
    }

    async fn post(&self, number: u64, first: u64, end: u64) -> anyhow::Result<()> {
        let leads: Vec<Value> = (first..end).map(|index| self.item(index)).collect();
        let ingest = self.ingests[number as usize % self.ingests.len()];
        http::post(ingest, "/v1/leads", &self.key, json!({ "leads": leads }).to_string().as_bytes()).await?;
        Ok(())
    }

    fn item(&self, index: u64) -> Value {
        let creator = creator(&self.creators, self.population, index);
        let fields =
            Field::ALL.into_iter().filter_map(|field| Some((field.name().to_owned(), creator.get(field)?.into())));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// The creator at an index.
pub fn creator(creators: &SimulatedSource, population: Population, index: u64) -> RawProfile {
    let mut creator = creators.row(index);
    if population == Population::Reachable {
        let handle = creator.username.clone().unwrap_or_default().to_lowercase();
        creator.email.get_or_insert_with(|| format!("{handle}@studio.example.com"));
        creator.country = Some("US".to_owned());
        creator.location = None;
        creator.forget_evidence();
    }
    creator
}
