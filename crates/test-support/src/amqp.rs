//! A test's own exchanges and queues on a RabbitMQ that others use as well.

use std::{collections::BTreeSet, env, sync::Mutex, time::Duration};

use domain::event::Queue;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{FieldTable, ShortString},
};
use uuid::Uuid;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// The server for tests: `AMQP_URL`, or the one that a local installation has.
pub fn server_url() -> String {
    env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// A prefix that no other test uses, and a raw connection to look behind the scenes with: it shares no code with the
/// broker crate. What the topology of that prefix contains, and what was declared through this, is deleted by
/// [`AmqpNamespace::cleanup`], or at the latest when it is dropped.
#[derive(Debug)]
pub struct AmqpNamespace {
    prefix: String,
    url: String,
    /// Made anew when it is found broken: some tests restart the server.
    connection: tokio::sync::Mutex<Connection>,
    /// Queues beyond those of the topology.
    declared: Mutex<BTreeSet<String>>,
    is_clean: bool,
}

impl AmqpNamespace {
    /// A fresh namespace on [`server_url`]; panics, saying so, if no server answers there.
    pub async fn new() -> Self {
        Self::on(&server_url()).await
    }

    /// A fresh namespace on another server, given by its URL.
    pub async fn on(url: &str) -> Self {
        crate::witness::talked_to("rabbitmq");
        Self {
            prefix: format!("test-{}.", Uuid::now_v7().simple()),
            url: url.to_owned(),
            connection: tokio::sync::Mutex::new(connect(url).await),
            declared: Mutex::default(),
            is_clean: false,
        }
    }

    /// What goes before each name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port` of the server, for a [`TcpProxy`](crate::proxy::TcpProxy).
    pub fn server(&self) -> &str {
        let after_scheme = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    /// The full name of something in this namespace.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A raw channel.
    pub async fn channel(&self) -> Channel {
        let mut connection = self.connection.lock().await;
        if !connection.status().connected() {
            *connection = connect(&self.url).await;
        }
        within(connection.create_channel()).await.expect("a channel")
    }

    /// Declares a durable queue and binds it to the namespace's exchange under `routing_keys`.
    pub async fn declare(&self, queue: &str, routing_keys: &[&str]) {
        let name = self.name(queue);
        self.declared.lock().expect("no test panics while declaring").insert(name.clone());
        let channel = self.channel().await;
        let options = QueueDeclareOptions::durable();
        within(channel.queue_declare(short(&name), options, FieldTable::default()))
            .await
            .expect("the queue is declared");
        for key in routing_keys {
            let exchange = short(&self.name("leads"));
            let options = QueueBindOptions::default();
            within(channel.queue_bind(short(&name), exchange, short(key), options, FieldTable::default()))
                .await
                .expect("the queue is bound");
        }
    }

    /// Puts raw bytes into a queue, as a message of this id if it is to have one, and waits until it has them.
    pub async fn publish(&self, queue: &str, body: &[u8], id: Option<&str>) {
        let properties = id.map(|id| BasicProperties::default().with_message_id(id.into())).unwrap_or_default();
        let channel = self.channel().await;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await.expect("confirms");
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let key = short(&self.name(queue));
        let confirm = within(channel.basic_publish(ShortString::default(), key, options, body, properties)).await;
        let confirmation = within(confirm.expect("the message is sent")).await.expect("the message is answered for");
        assert_eq!(confirmation, Confirmation::Ack(None), "no queue `{queue}` took the message");
    }

    /// Takes the next message off a queue, if there is one.
    pub async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        let channel = self.channel().await;
        let options = BasicGetOptions { no_ack: false };
        let message = within(channel.basic_get(short(&self.name(queue)), options)).await.expect("the queue exists")?;
        within(message.ack(BasicAckOptions::default())).await.expect("the message is acknowledged");
        Some(message)
    }

    /// How many messages wait in a queue; `None` if it doesn't exist.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        self.depth_on(&mut None, queue).await
    }

    /// The same on a channel that is kept for the next question: asking for a queue that isn't there closes it.
    async fn depth_on(&self, kept: &mut Option<Channel>, queue: &str) -> Option<u32> {
        let channel = match kept.take() {
            Some(channel) => channel,
            None => self.channel().await,
        };
        let options = QueueDeclareOptions::durable().passive();
        let declared = within(channel.queue_declare(short(&self.name(queue)), options, FieldTable::default())).await;
        let depth = declared.ok()?.message_count();
        *kept = Some(channel);
        Some(depth)
    }

    /// Waits until a queue holds `wanted` messages; panics, saying how many there are, if it takes too long.
    pub async fn wait_for_depth(&self, queue: &str, wanted: u32) {
        let mut last = None;
        let mut channel = None;
        let waiting = async {
            loop {
                last = self.depth_on(&mut channel, queue).await;
                if last == Some(wanted) {
                    return;
                }
                // RabbitMQ tells nobody about depths, so there is nothing to wait for but the next look.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "`{queue}` holds {last:?} messages instead of {wanted}");
    }

    /// Empties a queue.
    pub async fn purge(&self, queue: &str) {
        let channel = self.channel().await;
        within(channel.queue_purge(short(&self.name(queue)), QueuePurgeOptions::default()))
            .await
            .expect("the queue exists");
    }

    /// Deletes a queue, whatever is in it and whoever consumes it.
    pub async fn delete_queue(&self, queue: &str) {
        let channel = self.channel().await;
        within(channel.queue_delete(short(&self.name(queue)), QueueDeleteOptions::default()))
            .await
            .expect("the queue is deleted");
    }

    /// Deletes the namespace's exchange.
    pub async fn delete_exchange(&self) {
        let channel = self.channel().await;
        within(channel.exchange_delete(short(&self.name("leads")), ExchangeDeleteOptions::default()))
            .await
            .expect("the exchange is deleted");
        leave(channel).await;
    }

    /// Deletes all queues, as a disaster would; the exchange stays.
    pub async fn delete_all_queues(&self) {
        let channel = self.channel().await;
        for name in self.queue_names() {
            within(channel.queue_delete(short(&name), QueueDeleteOptions::default()))
                .await
                .expect("a queue is deleted");
        }
        leave(channel).await;
    }

    /// Deletes everything. Call it at the end of a test; what the drop does instead is slower.
    pub async fn cleanup(mut self) {
        self.delete_all_queues().await;
        self.delete_exchange().await;
        self.is_clean = true;
        let _ = within(self.connection.get_mut().close(200, "OK".into())).await;
    }

    fn queue_names(&self) -> BTreeSet<String> {
        let topology = Queue::ALL.into_iter().flat_map(|queue| [queue.name(), queue.dead_name()]);
        let mut names: BTreeSet<_> = topology.map(|name| self.name(name)).collect();
        names.extend(self.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned());
        names
    }
}

impl Drop for AmqpNamespace {
    fn drop(&mut self) {
        if self.is_clean {
            return;
        }
        let (url, queues, exchange) = (self.url.clone(), self.queue_names(), self.name("leads"));
        // The test's own runtime may be about to end, or busy waiting for this.
        let cleaning = std::thread::spawn(move || -> Option<()> {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
            let cleaning = async move {
                let connection = Connection::connect(&url, ConnectionProperties::default()).await.ok()?;
                let channel = connection.create_channel().await.ok()?;
                for queue in queues {
                    channel.queue_delete(short(&queue), QueueDeleteOptions::default()).await.ok()?;
                }
                channel.exchange_delete(short(&exchange), ExchangeDeleteOptions::default()).await.ok()?;
                connection.close(200, "OK".into()).await.ok()
            };
            let done = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), cleaning).await });
            runtime.shutdown_background();
            done.ok().flatten()
        });
        // Best effort: the test has its result already.
        let _ = cleaning.join();
    }
}

async fn connect(url: &str) -> Connection {
    let connecting = Connection::connect(url, ConnectionProperties::default().with_connection_name("test".into()));
    within(connecting).await.unwrap_or_else(|error| {
        panic!("this test needs a RabbitMQ; set AMQP_URL if it isn't on 127.0.0.1:5672: {error}")
    })
}

async fn within<T>(what: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    tokio::time::timeout(PATIENCE, what).await.expect("RabbitMQ answers in time")
}

/// Closes a channel before its connection is closed. A channel that is only dropped is closed in the background: lapin
/// 4.12 takes the connection for broken if it comes to that while the connection is closing, and the answer to
/// `connection.close` may then never come.
async fn leave(channel: Channel) {
    within(channel.close(200, "OK".into())).await.expect("the channel is closed");
}

fn short(name: &str) -> ShortString {
    ShortString::try_new(name).expect("a name of a test is shorter than 256 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_into_a_queue_is_counted_and_comes_out() {
        let namespace = AmqpNamespace::new().await;
        assert_eq!(namespace.depth("mine").await, None);
        namespace.declare("mine", &[]).await;
        namespace.publish("mine", b"\x00raw\xff", None).await;
        namespace.wait_for_depth("mine", 1).await;
        assert_eq!(namespace.get("mine").await.unwrap().data, b"\x00raw\xff");
        assert!(namespace.get("mine").await.is_none());
        namespace.cleanup().await;
    }

    #[tokio::test]
    async fn a_dropped_namespace_leaves_nothing_behind() {
        let witness = AmqpNamespace::new().await;
        let namespace = AmqpNamespace::new().await;
        namespace.declare("mine", &[]).await;
        let name = namespace.name("mine");
        drop(namespace);
        let options = QueueDeclareOptions::durable().passive();
        let found = witness.channel().await.queue_declare(short(&name), options, FieldTable::default()).await;
        assert!(found.is_err());
        witness.cleanup().await;
    }
}
