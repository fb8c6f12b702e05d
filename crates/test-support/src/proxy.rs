//! A TCP proxy that breaks connections on command.
//!
//! It knows no protocol, so it serves for RabbitMQ, PostgreSQL, SMTP and HTTP alike.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Stands between a client and a server, on a port of its own on 127.0.0.1. Dropping it cuts everything.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let proxy = test_support::proxy::TcpProxy::start("127.0.0.1:5672").await?;
/// let url = proxy.through("amqp://guest:guest@127.0.0.1:5672/%2f");
/// // … connect to `url` …
/// proxy.cut(); // the server is gone
/// proxy.restore(); // and back
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    upstream: String,
    control: Arc<watch::Sender<Control>>,
    counts: watch::Receiver<Counts>,
    accepting: JoinHandle<()>,
}

/// What the proxy does to connections.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    cut: bool,
    frozen: bool,
    delay: Duration,
    /// One piece of data in so many takes its connection with it; 0 for none.
    reset_one_in: u32,
    /// Connections of an earlier generation are cut.
    generation: u64,
    /// Nothing gets through connections of an earlier era, for ever.
    era: u64,
}

/// How many connections there are and were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are forwarded at present.
    pub open: usize,
    /// Connections that were forwarded since the start, open ones included.
    pub total: usize,
    /// Connections that were turned away while the proxy was cut.
    pub refused: usize,
    /// Connections that were reset by chance.
    pub reset: usize,
}

impl TcpProxy {
    /// A proxy in front of `upstream`, a `host:port`.
    pub async fn start(upstream: impl Into<String>) -> io::Result<Self> {
        let upstream = upstream.into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let control = Arc::new(watch::Sender::new(Control::default()));
        let (count, counts) = watch::channel(Counts::default());
        let accepting = tokio::spawn(accept(listener, upstream.clone(), Arc::clone(&control), Arc::new(count)));
        Ok(Self { address, upstream, control, counts, accepting })
    }

    /// Where to connect to instead of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with the proxy in the place of the server that the proxy stands in front of.
    pub fn through(&self, url: &str) -> String {
        assert!(url.contains(&self.upstream), "the URL doesn't name `{}`", self.upstream);
        url.replacen(&self.upstream, &self.address.to_string(), 1)
    }

    /// Cuts all connections, and every new one as soon as it is accepted, until [`TcpProxy::restore`].
    pub fn cut(&self) {
        self.control.send_modify(|control| {
            control.cut = true;
            control.generation += 1;
        });
    }

    /// Forwards again.
    pub fn restore(&self) {
        self.control.send_modify(|control| control.cut = false);
    }

    /// Cuts all connections once; new ones are forwarded.
    pub fn cut_once(&self) {
        self.control.send_modify(|control| control.generation += 1);
    }

    /// Stops forwarding without telling anybody, as when a cable is pulled: connections stay open, new ones are
    /// accepted, and not a byte gets through until [`TcpProxy::thaw`]. What was sent meanwhile is not lost.
    pub fn freeze(&self) {
        self.control.send_modify(|control| control.frozen = true);
    }

    /// Forwards again what was held up.
    pub fn thaw(&self) {
        self.control.send_modify(|control| control.frozen = false);
    }

    /// Leaves all connections half-open, as when the other side lost its power: not a byte gets through any more, and
    /// nobody is told. New ones are forwarded.
    pub fn strand(&self) {
        self.control.send_modify(|control| control.era += 1);
    }

    /// Holds up each piece of data by `delay`, in both directions.
    pub fn set_delay(&self, delay: Duration) {
        self.control.send_modify(|control| control.delay = delay);
    }

    /// Resets a connection (RST, on both sides) at one piece of data in `pieces`, by chance; 0 for never.
    pub fn reset_one_in(&self, pieces: u32) {
        self.control.send_modify(|control| control.reset_one_in = pieces);
    }

    /// Ends every misbehaviour.
    pub fn calm(&self) {
        self.control.send_modify(|control| {
            *control = Control { generation: control.generation, era: control.era, ..Control::default() };
        });
    }

    /// How many connections there are and were.
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until the counts are as wanted; panics after ten seconds.
    pub async fn wait_for(&self, wanted: impl Fn(&Counts) -> bool) -> Counts {
        let mut counts = self.counts.clone();
        let waiting = async { *counts.wait_for(wanted).await.expect("the proxy outlives this borrow of it") };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap_or_else(|_| panic!("not within ten seconds; the counts are {:?}", self.counts()))
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    control: Arc<watch::Sender<Control>>,
    counts: Arc<watch::Sender<Counts>>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        if control.borrow().cut {
            counts.send_modify(|counts| counts.refused += 1);
            continue;
        }
        let mut control = control.subscribe();
        let birth = *control.borrow_and_update();
        let (counts, upstream) = (Arc::clone(&counts), upstream.clone());
        tokio::spawn(async move {
            counts.send_modify(|counts| {
                counts.open += 1;
                counts.total += 1;
            });
            // An unreachable server looks like one that hangs up.
            let end = match TcpStream::connect(&upstream).await {
                Ok(server) => forward(client, server, control, birth).await,
                Err(_) => End::Other,
            };
            counts.send_modify(|counts| {
                counts.open -= 1;
                counts.reset += usize::from(end == End::Reset);
            });
        });
    }
}

/// Forwards in both directions until both are through, or the connection is cut or reset.
async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    control: watch::Receiver<Control>,
    birth: Control,
) -> End {
    // Whatever is delayed here is delayed on purpose.
    for stream in [&client, &server] {
        if stream.set_nodelay(true).is_err() {
            return End::Other;
        }
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let mut cut = control.clone();
    let ended = tokio::select! {
        _ = cut.wait_for(|control| control.generation != birth.generation) => return End::Other,
        ended = async { tokio::try_join!(
            pump(from_client, to_server, control.clone(), birth.era),
            pump(from_server, to_client, control, birth.era),
        ) } => ended,
    };
    if !matches!(ended, Err(End::Reset)) {
        return End::Other;
    }
    for stream in [&client, &server] {
        // Closed without it, the connection ends all the same, if more politely.
        let _ = stream.set_zero_linger();
    }
    End::Reset
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was reset by chance.
    Reset,
    /// In any other way.
    Other,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Other
    }
}

/// Forwards in one direction, to the end of it; a half-closed connection goes on in the other one.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut control: watch::Receiver<Control>,
    era: u64,
) -> Result<(), End> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let (delay, reset_one_in) = match control.wait_for(|control| !control.frozen && control.era == era).await {
            Ok(control) => (control.delay, control.reset_one_in),
            // The proxy is gone, and with it the reason to go on.
            Err(_) => return Ok(()),
        };
        if reset_one_in > 0 && rand::random_ratio(1, reset_one_in) {
            return Err(End::Reset);
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    /// A server that answers each connection with what it says.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, word: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(word).await?;
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_forwards_both_ways_and_passes_on_the_end() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, b"hello").await.unwrap(), b"hello");
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last words");
        let counts = proxy.wait_for(|counts| counts.open == 0).await;
        assert_eq!(counts, Counts { open: 0, total: 1, refused: 0, reset: 0 });
    }

    #[tokio::test]
    async fn a_cut_ends_old_connections_and_refuses_new_ones_until_it_is_restored() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut old, b"hello").await.unwrap();
        proxy.cut();
        assert!(say(&mut old, b"hello").await.is_err());
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(say(&mut refused, b"hello").await.is_err());
        proxy.restore();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut new, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn nothing_gets_through_while_it_is_frozen_and_everything_afterwards() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream, b"hello").await.unwrap();
        proxy.freeze();
        stream.write_all(b"frozen").await.unwrap();
        let mut answer = [0; 6];
        assert!(timeout(Duration::from_millis(100), stream.read(&mut answer)).await.is_err());
        proxy.thaw();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"frozen");
    }

    #[tokio::test]
    async fn a_stranded_connection_stays_silent_while_new_ones_work() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut old, b"hello").await.unwrap();
        proxy.strand();
        assert!(timeout(Duration::from_millis(100), say(&mut old, b"hello")).await.is_err());
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut new, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_reset_ends_its_own_connection_and_no_other() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut one = TcpStream::connect(proxy.address()).await.unwrap();
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut other, b"hello").await.unwrap();
        proxy.reset_one_in(1);
        assert_eq!(say(&mut one, b"hello").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        proxy.calm();
        assert_eq!(say(&mut other, b"again").await.unwrap(), b"again");
        assert_eq!(proxy.wait_for(|counts| counts.open == 1).await.reset, 1);
    }

    #[tokio::test]
    async fn a_delay_counts_in_both_directions() {
        let proxy = TcpProxy::start(echo().await.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set_delay(Duration::from_millis(50));
        let start = Instant::now();
        say(&mut stream, b"hello").await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}
