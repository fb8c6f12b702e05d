//! Which RabbitMQ it is.
//!
//! A server says so in the first frame of every connection (`connection.start`, AMQP 0-9-1, 1.4.2.1), before anybody has
//! logged in. lapin reads that frame and keeps it to itself, so this asks on a bare connection.

use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Admin, BrokerError};

/// The protocol header of AMQP 0-9-1.
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The most bytes of the first frame that are read; RabbitMQ's is some 500 bytes long.
const FRAME_BYTES: u32 = 16 * 1024;

impl Admin {
    /// The server's product and version, such as `RabbitMQ 3.13.7`, of the first node that answers; `None` over TLS, or if
    /// it doesn't say.
    pub async fn server_version(&self) -> Result<Option<String>, BrokerError> {
        let mut found = Ok(None);
        for uri in self.config.uris()? {
            found = self.version_at(&uri).await;
            if found.is_ok() {
                break;
            }
        }
        found
    }

    async fn version_at(&self, uri: &AMQPUri) -> Result<Option<String>, BrokerError> {
        if uri.scheme != AMQPScheme::AMQP {
            return Ok(None);
        }
        let asking = async {
            let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await?;
            stream.write_all(HEADER).await?;
            let mut start = [0_u8; 7];
            stream.read_exact(&mut start).await?;
            // A frame: its type, the channel, the length of what follows.
            let length = u32::from_be_bytes([start[3], start[4], start[5], start[6]]).min(FRAME_BYTES);
            let mut frame = vec![0_u8; length as usize];
            stream.read_exact(&mut frame).await?;
            std::io::Result::Ok(frame)
        };
        match timeout(self.config.connect_timeout, asking).await {
            Ok(Ok(frame)) => Ok(text_property(&frame, "version").map(|version| {
                let product = text_property(&frame, "product").unwrap_or_else(|| "AMQP server".to_owned());
                format!("{product} {version}")
            })),
            Ok(Err(error)) => Err(BrokerError::Connect(error.into())),
            Err(_) => Err(BrokerError::Timeout { doing: "connecting", after: self.config.connect_timeout }),
        }
    }
}

/// A text among the server's properties: a length-prefixed name, `S`, and a long string.
fn text_property(frame: &[u8], name: &str) -> Option<String> {
    let mut pattern = vec![u8::try_from(name.len()).ok()?];
    pattern.extend_from_slice(name.as_bytes());
    pattern.push(b'S');
    let at = frame.windows(pattern.len()).position(|window| window == pattern)? + pattern.len();
    let length = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?) as usize;
    let text = frame.get(at + 4..at + 4 + length)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_found_by_its_whole_name() {
        let frame =
            b"\x09versionedS\x00\x00\x00\x01x\x07versionS\x00\x00\x00\x053.103\x07productS\x00\x00\x00\x08RabbitMQ";
        assert_eq!(text_property(frame, "version").as_deref(), Some("3.103"));
        assert_eq!(text_property(frame, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(text_property(frame, "platform"), None);
        assert_eq!(text_property(b"\x07versionS\x00\x00\x00\x09short", "version"), None);
    }
}
