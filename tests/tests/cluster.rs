//! RabbitMQ as a cluster of three nodes. It takes a cluster, so it runs by
//! `deploy/rabbitmq-cluster.sh cargo test -p leadmill-tests --test cluster -- --ignored`.

use std::{env, fs, path::PathBuf, process::Command, time::Duration};

use domain::event::Queue;
use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    stack::Stack,
    truth,
    wait::{PATIENCE, eventually},
};

const LEADS: u64 = 8_000;
const LIMIT: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it needs deploy/rabbitmq-cluster.sh"]
async fn a_cluster_whose_leader_is_killed_under_load_loses_nothing_and_goes_on() {
    let cluster = Cluster::of_the_environment();
    let stack = Stack::start().await;

    // Whoever declares a queue gets its leader: here the second node, since the test itself is a client of the first.
    let first = stack.service("collector").envs(&[("AMQP_URL", &cluster.urls[1])]).start().await;
    for queue in Queue::ALL {
        for name in [queue.name(), queue.dead_name()] {
            let name = stack.amqp().name(name);
            eventually("the queue has a member on every node, and its leader on the second", PATIENCE, async || {
                let (leader, members) = cluster.members(&name);
                if leader == "node2@localhost" && members == 3 { Ok(()) } else { Err(format!("{leader} {members}")) }
            })
            .await;
        }
    }
    drop(first);

    let all = cluster.urls.join(",");
    let env = [("AMQP_URL", all.as_str())];
    let services = stack.fleet(&["collector", "enricher", "mailer"], 2, &env).await;
    let key = stack.api_key().await;
    let profiles = creators::creators(13, LEADS);
    for (index, page) in profiles.chunks(100).enumerate() {
        if index == 20 {
            cluster.kill(1);
        }
        // Accepted whatever RabbitMQ does.
        creators::post(services[index % 2].address("ingest.address").await, &key, page).await;
    }
    stack.settle(LIMIT).await;

    assert_eq!(truth::count(&stack, "SELECT count(*) FROM leads").await, LEADS as i64);
    audit(&stack, Planted::default()).await;
    let (leader, members) = cluster.members(&stack.amqp().name(Queue::LeadCreated.name()));
    assert!(leader != "node2@localhost" && members == 3, "{leader} leads {members}");
    for mut service in services {
        service.terminate().await;
    }
    stack.cleanup().await;
}

/// What `deploy/rabbitmq-cluster.sh` has started.
struct Cluster {
    folder: PathBuf,
    urls: Vec<String>,
}

impl Cluster {
    fn of_the_environment() -> Self {
        let folder = PathBuf::from(env::var_os("TEST_CLUSTER").expect("run it by deploy/rabbitmq-cluster.sh"));
        let urls = fs::read_to_string(folder.join("urls")).expect("the nodes' addresses");
        Self { folder, urls: urls.lines().map(str::to_owned).collect() }
    }

    /// The queue's leader, and how many members it has.
    fn members(&self, queue: &str) -> (String, usize) {
        let output = Command::new(self.folder.join("ctl"))
            .args(["list_queues", "name", "leader", "members", "--silent", "--no-table-headers"])
            .output()
            .expect("rabbitmqctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with(&format!("{queue}\t"))).unwrap_or_default();
        let mut columns = line.split('\t').skip(1);
        let leader = columns.next().unwrap_or_default().to_owned();
        (leader, columns.next().unwrap_or_default().matches('@').count())
    }

    /// Ends a node as a power cut would.
    fn kill(&self, index: usize) {
        let pids = fs::read_to_string(self.folder.join("pids")).expect("the nodes' processes");
        let pid = pids.lines().nth(index).expect("a process per node");
        let killed = Command::new("kill").args(["-9", pid]).status().expect("kill is installed");
        assert!(killed.success());
    }
}
