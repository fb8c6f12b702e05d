//! Faults that can happen at any time, by chance.

use std::time::Duration;

use rand::{RngExt as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use sqlx::Executor as _;
use tokio::time::sleep;

use crate::faults::{mood::Mood, network::Server, service::Service, world::World};

/// A kind of fault; where and for how long is up to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and started again at once.
    Kill,
    /// SIGTERM, and started again.
    Restart,
    /// Suspended for a while, and continued.
    Suspend,
    /// A network that is cut.
    Cut(Server),
    /// A network in which nothing moves for a while.
    Freeze(Server),
    /// Connections that die without a word, while new ones work.
    HalfOpen(Server),
    /// 200 ms more for each piece of data.
    Delay(Server),
    /// Connections that break at one piece of data in a hundred.
    Resets(Server),
    /// Every connection ended by PostgreSQL.
    EndBackends,
    /// All queues deleted, with what is in them.
    DeleteQueues,
    /// A mail server that refuses, hangs and hangs up.
    BadMood,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::Kill,
        Self::Restart,
        Self::Suspend,
        Self::Cut(Server::Postgres),
        Self::Cut(Server::RabbitMq),
        Self::Cut(Server::Mail),
        Self::Freeze(Server::Postgres),
        Self::Freeze(Server::RabbitMq),
        Self::Freeze(Server::Mail),
        Self::HalfOpen(Server::Postgres),
        Self::HalfOpen(Server::RabbitMq),
        Self::HalfOpen(Server::Mail),
        Self::Delay(Server::Postgres),
        Self::Delay(Server::RabbitMq),
        Self::Delay(Server::Mail),
        Self::Resets(Server::Postgres),
        Self::Resets(Server::RabbitMq),
        Self::Resets(Server::Mail),
        Self::EndBackends,
        Self::DeleteQueues,
        Self::BadMood,
    ];

    /// Injects it into one of the services, chosen by chance, and takes it back after a while of up to `longest`.
    pub async fn inject(self, world: &World, rng: &mut ChaCha8Rng, longest: Duration) {
        let concerned: Vec<&Service> = match self {
            Self::Cut(Server::Mail)
            | Self::Freeze(Server::Mail)
            | Self::HalfOpen(Server::Mail)
            | Self::Delay(Server::Mail)
            | Self::Resets(Server::Mail) => world.replicas("mailer").collect(),
            _ => world.services.iter().collect(),
        };
        let service = *concerned.choose(rng).expect("a world has services");
        let network = service.network();
        let a_while = longest.mul_f64(rng.random_range(0.1..1.0));
        match self {
            Self::Kill => service.kill().await,
            Self::Restart => service.restart().await,
            Self::Suspend => {
                service.signal("STOP").await;
                sleep(a_while).await;
                service.signal("CONT").await;
            }
            Self::Cut(server) => {
                network.way_to(server).cut();
                sleep(a_while).await;
                network.way_to(server).restore();
            }
            Self::Freeze(server) => {
                network.way_to(server).freeze();
                sleep(a_while).await;
                network.way_to(server).thaw();
            }
            Self::HalfOpen(server) => network.way_to(server).strand(),
            Self::Delay(server) => {
                network.way_to(server).set_delay(Duration::from_millis(200));
                sleep(a_while).await;
                network.way_to(server).set_delay(Duration::ZERO);
            }
            Self::Resets(server) => {
                network.way_to(server).reset_one_in(100);
                sleep(a_while).await;
                network.way_to(server).reset_one_in(0);
            }
            Self::EndBackends => {
                let everybody = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
                world.stack.connect().await.execute(everybody).await.expect("backends can be ended");
            }
            Self::DeleteQueues => world.stack.amqp().delete_all_queues().await,
            Self::BadMood => {
                let mood = Mood { seed: rng.random(), share: 0.1 };
                world.mailbox.set_script(move |event| mood.action(event));
                sleep(a_while).await;
                world.mailbox.set_script(|_| test_support::smtp::Action::Proceed);
            }
        }
    }
}
