//! As much of HTTP as the benchmarks need: one request per connection, as HTTP/1.0 has it (RFC 1945).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take.
const LIMIT: Duration = Duration::from_mins(1);

/// The body of a page that is there.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    exchange(address, path, format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").into_bytes()).await
}

/// The body of the answer to JSON that was taken.
pub async fn post(address: SocketAddr, path: &str, bearer: &str, json: &[u8]) -> anyhow::Result<String> {
    let mut request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        json.len()
    )
    .into_bytes();
    request.extend_from_slice(json);
    exchange(address, path, request).await
}

async fn exchange(address: SocketAddr, path: &str, request: Vec<u8>) -> anyhow::Result<String> {
    let exchanging = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(LIMIT, exchanging).await.with_context(|| format!("{address}{path} does not answer"))?;
    let answer = answer.with_context(|| format!("asking {address}{path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{address}{path} answered with status {status}: {body}");
    Ok(body.to_owned())
}
