//! People who object: the unsubscribe pages, asked as mail programs do, and who had been told that it was done.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use domain::email::EmailAddress;
use tokio::time::{Instant, sleep};
use vault::ProgramKeys;

use crate::{
    faults::{history, verdict::Complaint},
    stack::Stack,
};

/// How long one objection may be tried for.
const LIMIT: Duration = Duration::from_mins(2);
/// How long to wait for one answer, and before asking again.
const ANSWER: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The pages, wherever they are served.
#[derive(Debug, Clone)]
pub struct Pages {
    addresses: Vec<SocketAddr>,
    client: reqwest::Client,
}

impl Pages {
    /// The pages at these addresses, asked in turn.
    pub fn at(addresses: Vec<SocketAddr>) -> Self {
        let client = reqwest::Client::builder().timeout(ANSWER).build().expect("a plain client");
        Self { addresses, client }
    }

    /// Objects with one click (RFC 8058), however often it takes; gives when the answer 200 was read, as [`history::now`].
    ///
    /// # Panics
    /// When the token isn't known, or nobody answers for minutes.
    pub async fn object(&self, token: &str) -> f64 {
        let deadline = Instant::now() + LIMIT;
        for address in self.addresses.iter().cycle() {
            let request = self.client.post(format!("http://{address}/u/{token}"));
            let request = request.header("Content-Type", "application/x-www-form-urlencoded");
            let why = match request.body("List-Unsubscribe=One-Click").send().await {
                Ok(answer) if answer.status().is_success() => return history::now(),
                Ok(answer) if answer.status().is_client_error() => panic!("a token was refused: {}", answer.status()),
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "an objection wasn't taken within {LIMIT:?}: {why}");
            sleep(AGAIN_AFTER).await;
        }
        unreachable!("the addresses are asked again and again")
    }
}

/// Recipients who objected, each with the time from which on they could rely on it.
#[derive(Debug, Clone)]
pub struct Objections<'a> {
    pages: &'a Pages,
    keys: &'a ProgramKeys,
    taken: BTreeMap<Vec<u8>, f64>,
}

impl<'a> Objections<'a> {
    /// None yet.
    pub fn new(pages: &'a Pages, keys: &'a ProgramKeys) -> Self {
        Self { pages, keys, taken: BTreeMap::new() }
    }

    /// How many people objected.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether nobody did.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Objects for an address, by the link of a mail to it, or else by one that the program would make.
    ///
    /// # Panics
    /// When it is no address.
    pub async fn object(&mut self, address: &str, token: Option<&str>) {
        let address = EmailAddress::parse(address).expect("an address");
        let recipient = self.keys.email_index(&address);
        let made = self.keys.unsubscribe_token(recipient);
        let accepted = self.pages.object(token.unwrap_or(&made)).await;
        self.note(recipient.to_vec(), accepted);
    }

    /// Adds those that another has.
    pub fn join(&mut self, others: Self) {
        for (recipient, accepted) in others.taken {
            self.note(recipient, accepted);
        }
    }

    fn note(&mut self, recipient: Vec<u8>, taken: f64) {
        match self.taken.entry(recipient) {
            Entry::Vacant(first) => _ = first.insert(taken),
            Entry::Occupied(mut known) => *known.get_mut() = known.get().min(taken),
        }
    }

    /// Complains about each mail that was begun for somebody who had read before that the objection was taken.
    pub async fn complaints(&self, stack: &Stack) -> Vec<Complaint> {
        let entries = history::entries(stack).await;
        let begun = entries.iter().filter(|entry| entry.state == "transmitting");
        begun
            .filter(|entry| self.taken.get(&entry.recipient).is_some_and(|taken| entry.statement_at > *taken))
            .map(|entry| Complaint::new("a mail was begun for somebody who had objected", entry.outreach.to_string()))
            .collect()
    }
}
