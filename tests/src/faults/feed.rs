//! Leads that go in, however often the collector has to be asked.

use std::{net::SocketAddr, time::Duration};

use collector::source::RawProfile;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::creators;

/// How long one page may be asked for.
const LIMIT: Duration = Duration::from_mins(3);
/// How long to wait for one answer, and before asking again.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A client of the HTTP ingest that never gives up: each page has an idempotency key of its own.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The collectors, asked in turn.
    pub ingests: Vec<SocketAddr>,
    /// The key to the ingest.
    pub key: String,
    /// Leads of one request.
    pub page: usize,
    /// The pause between two requests.
    pub pause: Duration,
}

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fed {
    /// New leads.
    pub accepted: u64,
    /// Known leads.
    pub duplicates: u64,
    /// Refused rows.
    pub rejected: u64,
}

impl Feed {
    /// Posts all of them.
    ///
    /// # Panics
    /// When a page is refused for good, or isn't taken for minutes.
    pub async fn post(&self, profiles: &[RawProfile]) -> Fed {
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a plain client");
        let mut fed = Fed::default();
        for (index, page) in profiles.chunks(self.page).enumerate() {
            let answer = self.post_page(&client, index, page).await;
            let count = |name: &str| answer["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {answer}"));
            fed.accepted += count("accepted");
            fed.duplicates += count("duplicates");
            fed.rejected += count("rejected");
            sleep(self.pause).await;
        }
        fed
    }

    /// A request whose body doesn't end as long as what this gives is held.
    pub async fn stalled(&self) -> TcpStream {
        let ingest = self.ingests[0];
        let mut stream = TcpStream::connect(ingest).await.expect("the collector listens");
        let head = format!(
            "POST /v1/leads HTTP/1.1\r\nHost: {ingest}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{",
            self.key
        );
        stream.write_all(head.as_bytes()).await.expect("the collector reads");
        stream
    }

    async fn post_page(&self, client: &reqwest::Client, index: usize, page: &[RawProfile]) -> Value {
        let items: Vec<Value> = page.iter().map(creators::item).collect();
        let (key, body) = (Uuid::now_v7().to_string(), json!({ "leads": items }));
        let deadline = Instant::now() + LIMIT;
        for attempt in index.. {
            let ingest = self.ingests[attempt % self.ingests.len()];
            let request = client.post(format!("http://{ingest}/v1/leads")).bearer_auth(&self.key);
            let why = match request.header("Idempotency-Key", &key).json(&body).send().await {
                Ok(answer) if answer.status().is_success() => match answer.json().await {
                    Ok(body) => return body,
                    Err(error) => error.to_string(),
                },
                Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => {
                    panic!("page {index} was refused: {} {:?}", answer.status(), answer.text().await)
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "page {index} wasn't taken within {LIMIT:?}: {why}");
            sleep(AGAIN_AFTER).await;
        }
        unreachable!("the attempts don't end")
    }
}
