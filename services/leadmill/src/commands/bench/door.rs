//! A server that comes late: its address refuses every connection until it is opened, and then leads to the server.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// Connections that may wait to be let in.
const WAITING: u32 = 1024;

/// A closed door: an address of the loopback that is taken, and where nobody listens.
#[derive(Debug)]
pub struct Door {
    socket: TcpSocket,
    /// Host and port of the server behind it.
    server: (String, u16),
    url: String,
}

/// A door through which everybody comes, until it is dropped.
#[derive(Debug)]
pub struct Opened {
    _passing: AbortOnDropHandle<()>,
}

impl Door {
    /// Before the server that `url`, the value of the variable `name`, says; without a port in it, at `port`.
    ///
    /// # Errors
    /// When the URL doesn't name one server by its host, without TLS, which would take the door for an intruder.
    pub fn before(name: &str, url: &str, port: u16) -> anyhow::Result<Self> {
        // Neither the URL nor the parser's message may be shown: it can hold a password.
        let several = url.contains(",amqp");
        let parsed = Url::parse(url).ok().filter(|url| !several && url.scheme() != "amqps");
        let Some((mut url, host)) = parsed.and_then(|url| url.host_str().map(str::to_owned).map(|host| (url, host)))
        else {
            bail!(
                "to come late, the server of {name} must be one, named by its host, and without TLS: set it so, or leave \
                 this out with `--late 0s`"
            );
        };
        let socket = TcpSocket::new_v4().context("making a socket")?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("looking for a free port")?;
        let own = socket.local_addr().context("looking for a free port")?;
        let server = (host, url.port().unwrap_or(port));
        let renamed = url.set_host(Some("127.0.0.1")).is_ok() && url.set_port(Some(own.port())).is_ok();
        if !renamed {
            bail!("the URL of {name} can't be given another address");
        }
        Ok(Self { socket, server, url: url.into() })
    }

    /// The server's URL, but through the door.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets everybody through from now on.
    pub fn open(self) -> anyhow::Result<Opened> {
        let listener = self.socket.listen(WAITING).context("opening the way to a server that comes late")?;
        Ok(Opened { _passing: AbortOnDropHandle::new(tokio::spawn(pass(listener, self.server))) })
    }
}

async fn pass(listener: TcpListener, server: (String, u16)) {
    let mut passing = JoinSet::new();
    loop {
        tokio::select! {
            Ok((mut client, _)) = listener.accept() => {
                let server = server.clone();
                passing.spawn(async move {
                    // Whoever waits for an answer learns of a failure from the connection that ends.
                    let mut server = TcpStream::connect(server).await?;
                    client.set_nodelay(true)?;
                    server.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_door_refuses_until_it_is_opened_and_then_leads_to_the_server() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://me:secret@{}/%2f?heartbeat=9", server.local_addr().unwrap());
        let door = Door::before("AMQP_URL", &url, 5672).unwrap();
        let through = Url::parse(door.url()).unwrap();
        assert_eq!((through.username(), through.password(), through.path()), ("me", Some("secret"), "/%2f"));
        assert_eq!(through.query(), Some("heartbeat=9"));

        let address = (through.host_str().unwrap().to_owned(), through.port().unwrap());
        let refused = TcpStream::connect(address.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

        let _opened = door.open().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut inside, _) = server.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        inside.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    }

    #[test]
    fn a_server_that_no_door_fits_is_refused_without_its_password() {
        for url in ["postgres:///leads?host=/run/pg", "amqps://me:secret@a/", "amqp://me:secret@a/,amqp://me:secret@b/"]
        {
            let error = Door::before("AMQP_URL", url, 5672).unwrap_err().to_string();
            assert!(error.contains("AMQP_URL") && error.contains("--late 0s") && !error.contains("secret"), "{error}");
        }
    }
}
