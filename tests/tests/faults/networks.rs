//! 5: the network between each service and each server.

use std::time::Duration;

use leadmill_tests::{
    faults::{
        network::Server,
        verdict::Done,
        world::{Plan, World, asking_model},
    },
    wait::{PATIENCE, eventually},
};
use test_support::{
    llm::{Behaviour, FakeLlm},
    proxy::TcpProxy,
};
use tokio::time::sleep;

use crate::{full, short_or};

/// Between two troubles.
const PAUSE: Duration = Duration::from_millis(200);

/// What a network does.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Cut(Duration),
    HalfOpen,
    Frozen(Duration),
    Slow,
    Resets,
}

impl Trouble {
    /// About how long it lasts.
    fn time(self) -> Duration {
        match self {
            Self::Cut(time) | Self::Frozen(time) => time,
            Self::HalfOpen => Duration::from_secs(3),
            Self::Slow | Self::Resets => short_or(Duration::from_secs(1), Duration::from_secs(5)),
        }
    }

    /// Does it to a way, and ends it.
    async fn happen(self, name: &str, way: &TcpProxy) {
        match self {
            Self::Cut(time) => {
                way.cut();
                sleep(time).await;
                way.restore();
            }
            Self::HalfOpen => {
                let before = way.counts().total;
                way.strand();
                let noticed = format!("a new connection to {name}");
                eventually(&noticed, PATIENCE, async || {
                    let counts = way.counts();
                    if counts.total > before { Ok(()) } else { Err(format!("{counts:?}")) }
                })
                .await;
            }
            Self::Frozen(time) => {
                way.freeze();
                sleep(time).await;
                way.thaw();
            }
            Self::Slow => {
                way.set_delay(Duration::from_millis(200));
                sleep(self.time()).await;
                way.set_delay(Duration::ZERO);
            }
            Self::Resets => {
                way.reset_one_in(100);
                sleep(self.time()).await;
                way.reset_one_in(0);
            }
        }
    }
}

/// Does it to the way of each service to each server that it goes to, one after the other, while leads come in; gives how
/// many connections were reset.
async fn every_way(seed: u64, fault: &str, troubles: &[Trouble]) -> usize {
    let api = FakeLlm::start(|_| Behaviour::Good).await.expect("the stand-in starts");
    let base_url = api.base_url();
    let address = base_url.trim_start_matches("http://").trim_end_matches("/v1");
    let to_model = TcpProxy::start(address).await.expect("a loopback port is free");
    let base_url = to_model.through(&base_url);
    let mut env = asking_model(&base_url);
    env.extend([
        ("LEADMILL_ENRICHER_MODEL_TIMEOUT", "2s"),
        ("LEADMILL_ENRICHER_MODEL_MAX_BACKOFF", "1s"),
        ("LEADMILL_ENRICHER_MODEL_BREAKER_PAUSE", "1s"),
    ]);
    let world = World::start(Plan { seed, env: &env, ..Plan::default() }).await;
    let mailer = world.replicas("mailer").next().expect("a mailer").network();
    let mut ways = vec![("the mail server".to_owned(), &mailer.mail), ("the model".to_owned(), &to_model)];
    for service in &world.services {
        for server in [Server::RabbitMq, Server::Postgres] {
            ways.push((format!("{server:?} of the {}", service.binary()), service.network().way_to(server)));
        }
    }
    let breaking = async {
        // Connections that have carried nothing yet have nothing to lose.
        eventually("mails go out", PATIENCE, async || match world.mails().len() {
            0 => Err("none is out"),
            _ => Ok(()),
        })
        .await;
        for (name, way) in &ways {
            for trouble in troubles {
                trouble.happen(name, way).await;
                sleep(PAUSE).await;
            }
        }
    };
    let over = troubles.iter().map(|trouble| trouble.time() + PAUSE).sum::<Duration>() * ways.len() as u32;
    let leads = short_or(600, 3_000);
    let (fed, ()) = tokio::join!(world.feed(leads, over), breaking);
    let runs = (ways.len() * troubles.len()) as u64;
    // A mail on each of four connections may be on its way when the mail server, or PostgreSQL, is out of reach.
    let in_doubt = (troubles.len() * 2 * 4 + mailer.mail.counts().reset) as u64;
    let done = Done { row: 5, fault, runs, fed: Some(fed), in_doubt, ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, leads);
    let reset = ways.iter().map(|(_, way)| way.counts().reset).sum();
    world.end().await;
    reset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_that_are_cut_or_stand_still_lose_and_double_nothing() {
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(30));
    let mut troubles = vec![Trouble::Cut(short), Trouble::Frozen(short)];
    if full() {
        troubles.extend([Trouble::Cut(long), Trouble::Frozen(long)]);
    }
    every_way(501, "network cut or frozen", &troubles).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_are_noticed_and_replaced() {
    // Each is noticed by the work that goes on over it, a consumer's connection by its heartbeats.
    every_way(502, "connections half-open", &vec![Trouble::HalfOpen; short_or(1, 5)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_networks_and_those_that_break_connections_lose_and_double_nothing() {
    let reset = every_way(503, "200 ms of delay, 1 % resets", &[Trouble::Slow, Trouble::Resets]).await;
    assert!(reset > 0, "no connection was reset");
}
