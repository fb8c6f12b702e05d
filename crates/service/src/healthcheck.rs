//! A process asking another one's admin server whether it is ready: the health check of a container, which has no other
//! HTTP client in it.
//!
//! The request is HTTP/1.0 over a plain socket, since the answer's first line is all that decides.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, asking and the answer may each take.
const LIMIT: Duration = Duration::from_secs(3);
/// The most of an answer that is read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Why a process isn't ready, or can't be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unready {
    /// Nothing answers at the address.
    #[error("the admin server at {address} does not answer")]
    Silent {
        /// The address that was asked.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It answers, but not with 200.
    #[error("not ready: {answer}")]
    NotReady {
        /// The body of the answer, which says what is missing.
        answer: String,
    },
}

/// Asks `/readyz` of the admin server that listens on `listen`.
///
/// # Errors
/// [`Unready`] unless the process is ready.
pub fn ask(listen: SocketAddr) -> Result<(), Unready> {
    let address = reachable(listen);
    let answer = get(address).map_err(|source| Unready::Silent { address, source })?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or(status, |(_, body)| body);
    Err(Unready::NotReady { answer: body.trim().to_owned() })
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// An address to connect to: who listens on all addresses is asked on the loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        assert_eq!(reachable("0.0.0.0:9101".parse().unwrap()), "127.0.0.1:9101".parse().unwrap());
        assert_eq!(reachable("[::]:9101".parse().unwrap()), "[::1]:9101".parse().unwrap());
        assert_eq!(reachable("10.0.0.7:9101".parse().unwrap()), "10.0.0.7:9101".parse().unwrap());
    }
}
