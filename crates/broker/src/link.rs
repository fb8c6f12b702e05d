//! One connection to RabbitMQ that can always be got rid of.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    Channel, Connection, ConnectionProperties,
    tcp::AsyncTcpStream,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;

use crate::{config::BrokerConfig, error::BrokerError};

/// A connection. Dropping it cuts the socket at once; [`Link::close`] says goodbye first.
///
/// lapin closes a dropped connection politely: it waits for a handshake that may never end, or for permission to write
/// on a connection that RabbitMQ has blocked. Until then it keeps a thread, a socket and its buffers. A service that
/// reconnects for an hour would collect hundreds of them, so the link keeps a second handle on the socket.
pub(crate) struct Link {
    connection: Connection,
    socket: Arc<Socket>,
    timeout: Duration,
}

impl Link {
    /// Connects under a name that RabbitMQ's management pages show: to the first node that lets us in, each tried once.
    pub(crate) async fn open(config: &BrokerConfig, name: &str) -> Result<Self, BrokerError> {
        config.validate()?;
        let mut uris = config.uris()?;
        // From anywhere in the list, so that the connections are spread over the nodes; the process-wide generator will do.
        let start = rand::random_range(0..uris.len());
        uris.rotate_left(start);
        let last = uris.pop().expect("a URL gives an address, or is refused");
        for uri in uris {
            let node = format!("{}:{}", uri.authority.host, uri.authority.port);
            match Self::open_at(uri, config, name).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    tracing::debug!(node, error = %crate::error::chain(&error), "no connection; trying the next node");
                }
            }
        }
        Self::open_at(last, config, name).await
    }

    async fn open_at(uri: AMQPUri, config: &BrokerConfig, name: &str) -> Result<Self, BrokerError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "leadmill".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let socket = Arc::new(Socket::default());
        let kept = Arc::clone(&socket);
        let patience = config.connect_timeout;
        let connecting = Connection::connector(
            uri,
            lapin::runtime::default_runtime().map_err(BrokerError::Connect)?,
            async move |uri, runtime| {
                // On lapin's own thread, which the outer timeout doesn't end: hence one in here as well.
                let dial = async {
                    let address = (uri.authority.host.as_str(), uri.authority.port);
                    let addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        kept.keep(plain.get_ref().as_fd().try_clone_to_owned()?.into());
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls_defaults().as_ref()).await,
                    }
                };
                match timeout(patience, dial).await {
                    Ok(result) => result.map_err(lapin::Error::from),
                    Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                }
            },
            properties,
        );
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => Ok(Self { connection, socket, timeout: patience }),
            Ok(Err(error)) => {
                socket.cut();
                Err(BrokerError::Connect(error))
            }
            Err(_) => {
                socket.cut();
                Err(BrokerError::Timeout { doing: "connecting", after: patience })
            }
        }
    }

    /// Opens a channel.
    pub(crate) async fn channel(&self) -> Result<Channel, BrokerError> {
        self.ask("opening a channel", self.connection.create_channel()).await
    }

    /// Awaits something that is asked of RabbitMQ, but not for ever.
    pub(crate) async fn ask<T>(
        &self,
        doing: &'static str,
        question: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match timeout(self.timeout, question).await {
            Ok(result) => result.map_err(|source| BrokerError::Amqp { doing, source }),
            Err(_) => Err(BrokerError::Timeout { doing, after: self.timeout }),
        }
    }

    /// Whether the connection works, as far as anybody knows.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether RabbitMQ takes no messages from it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says goodbye, if there is anybody to say it to, and disconnects.
    pub(crate) async fn close(&self) {
        if self.is_open() && !self.is_blocked() {
            let goodbye = self.ask("closing the connection", self.connection.close(200, "OK".into())).await;
            if let Err(error) = goodbye {
                tracing::debug!(error = %crate::error::chain(&error), "the connection didn't close in an orderly way");
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.cut();
    }
}

fn tls_defaults() -> lapin::tcp::OwnedTLSConfig {
    lapin::tcp::OwnedTLSConfig::default()
}

/// A second handle on a connection's socket.
#[derive(Default)]
struct Socket(Mutex<Option<TcpStream>>);

impl Socket {
    fn keep(&self, stream: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// Ends the connection for both sides, whatever lapin is waiting for.
    fn cut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails only when the socket is disconnected already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
