//! 5: the network between each service and each server.

use std::time::Duration;

use leadmill_tests::{
    faults::{
        network::Server,
        verdict::Done,
        world::{Plan, World},
    },
    wait::{PATIENCE, eventually},
};
use tokio::time::sleep;

use crate::{full, short_or};

/// What a network does.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Cut(Duration),
    HalfOpen,
    Frozen(Duration),
    Slow,
    Resets,
}

/// Does it to the way of each service to each server, one after the other, while leads come in `over` this time.
async fn every_way(seed: u64, fault: &str, over: Duration, troubles: Vec<Trouble>) {
    let world = World::start(Plan { seed, ..Plan::default() }).await;
    let leads = short_or(600, 3_000);
    let mut runs = 0;
    let breaking = async {
        // Connections that have carried nothing yet have nothing to lose.
        eventually("mails go out", PATIENCE, async || match world.mails().len() {
            0 => Err("none is out"),
            _ => Ok(()),
        })
        .await;
        for trouble in troubles {
            for service in &world.services {
                for server in [Server::RabbitMq, Server::Postgres] {
                    let way = service.network().way_to(server);
                    match trouble {
                        Trouble::Cut(time) => {
                            way.cut();
                            sleep(time).await;
                            way.restore();
                        }
                        Trouble::HalfOpen => {
                            let before = way.counts().total;
                            way.strand();
                            eventually("it is noticed", PATIENCE, async || {
                                if way.counts().total > before { Ok(()) } else { Err(service.binary().to_owned()) }
                            })
                            .await;
                        }
                        Trouble::Frozen(time) => {
                            way.freeze();
                            sleep(time).await;
                            way.thaw();
                        }
                        Trouble::Slow => {
                            way.set_delay(Duration::from_millis(200));
                            sleep(short_or(Duration::from_secs(1), Duration::from_secs(5))).await;
                            way.set_delay(Duration::ZERO);
                        }
                        Trouble::Resets => {
                            way.reset_one_in(100);
                            sleep(short_or(Duration::from_secs(1), Duration::from_secs(5))).await;
                            way.reset_one_in(0);
                        }
                    }
                    runs += 1;
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    };
    let (fed, ()) = tokio::join!(world.feed(leads, over), breaking);
    let tally = world.judge(Done { row: 5, fault, runs, fed: Some(fed), ..Done::default() }).await;
    assert_eq!(tally.leads, leads);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_that_are_cut_or_stand_still_lose_and_double_nothing() {
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(30));
    let mut troubles = vec![Trouble::Cut(short), Trouble::Frozen(short)];
    if full() {
        troubles.extend([Trouble::Cut(long), Trouble::Frozen(long)]);
    }
    every_way(501, "network cut or frozen", Duration::from_secs(8), troubles).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_are_noticed_and_replaced() {
    // Each is noticed by the work that goes on over it, a consumer's connection by its heartbeats.
    let (runs, over) = short_or((1, Duration::from_secs(20)), (5, Duration::from_secs(100)));
    every_way(502, "connections half-open", over, vec![Trouble::HalfOpen; runs]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_networks_and_those_that_break_connections_lose_and_double_nothing() {
    let troubles = vec![Trouble::Slow, Trouble::Resets];
    every_way(503, "200 ms of delay, 1 % resets", Duration::from_secs(8), troubles).await;
}
