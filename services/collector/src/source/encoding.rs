//! Bytes of a file as UTF-8: UTF-8 and UTF-16 are detected, anything else can be named.
//!
//! UTF-8 is passed on as it is, so that a row that isn't UTF-8 can be refused alone. In other encodings, what can't be
//! decoded becomes a byte that is never valid in UTF-8, to the same end.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

const CHUNK: usize = 256 * 1024;

/// Never part of valid UTF-8 (RFC 3629 §3).
const INVALID: u8 = 0xFF;

/// A reader's bytes, turned into UTF-8 piece by piece.
pub struct TextStream {
    reader: Box<dyn Read + Send>,
    encoding: &'static Encoding,
    decoder: Option<Decoder>,
    /// Read but not yet decoded.
    pending: Vec<u8>,
    ended: bool,
}

impl TextStream {
    /// Looks at the first bytes and decides how to read the rest. `named` overrides what is detected.
    pub fn open(mut reader: Box<dyn Read + Send>, named: Option<&'static Encoding>) -> io::Result<Self> {
        let mut pending = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut pending)?;
        let (encoding, bom) = match Encoding::for_bom(&pending) {
            Some((encoding, length)) => (encoding, length),
            None => (named.unwrap_or_else(|| guess(&pending)), 0),
        };
        pending.drain(..bom);
        let decoder = (encoding != UTF_8).then(|| encoding.new_decoder_without_bom_handling());
        let ended = pending.len() + bom < CHUNK;
        Ok(Self { reader, encoding, decoder, pending, ended })
    }

    /// The name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.encoding.name()
    }

    /// Appends some more UTF-8 to `text`; returns whether there was any.
    pub fn fill(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let before = text.len();
        loop {
            if self.pending.is_empty() && !self.ended {
                self.pending.resize(CHUNK, 0);
                let read = match self.reader.read(&mut self.pending) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(error) => return Err(error),
                    Ok(0) => {
                        self.ended = true;
                        0
                    }
                    Ok(read) => read,
                };
                self.pending.truncate(read);
                if read == 0 && !self.ended {
                    continue;
                }
            }
            match &mut self.decoder {
                None => text.append(&mut self.pending),
                Some(decoder) => {
                    decode(decoder, &self.pending, self.ended, text);
                    self.pending.clear();
                    if self.ended {
                        // A decoder must not be used after its last piece.
                        self.decoder = None;
                    }
                }
            }
            if text.len() > before || self.ended {
                return Ok(text.len() > before);
            }
        }
    }
}

fn decode(decoder: &mut Decoder, mut bytes: &[u8], last: bool, text: &mut Vec<u8>) {
    loop {
        let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(CHUNK * 4);
        let start = text.len();
        text.resize(start + room, 0);
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(bytes, &mut text[start..], last);
        text.truncate(start + written);
        bytes = &bytes[read..];
        match result {
            DecoderResult::InputEmpty => return,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => text.push(INVALID),
        }
    }
}

/// UTF-16 without a byte order mark shows itself by a zero in every other byte of what is mostly ASCII.
fn guess(sample: &[u8]) -> &'static Encoding {
    let sample = &sample[..sample.len().min(1024) & !1];
    let zeros = |offset: usize| sample.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let pairs = sample.len() / 2;
    if pairs < 4 {
        UTF_8
    } else if zeros(1) * 10 >= pairs * 7 && zeros(0) * 10 < pairs {
        UTF_16LE
    } else if zeros(0) * 10 >= pairs * 7 && zeros(1) * 10 < pairs {
        UTF_16BE
    } else {
        UTF_8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], named: Option<&'static Encoding>) -> (Vec<u8>, &'static str) {
        let mut stream = TextStream::open(Box::new(io::Cursor::new(bytes.to_vec())), named).unwrap();
        let mut text = Vec::new();
        while stream.fill(&mut text).unwrap() {}
        (text, stream.encoding())
    }

    fn utf16(text: &str, big: bool, bom: bool) -> Vec<u8> {
        let units = bom.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    #[test]
    fn byte_order_marks_decide_and_go() {
        let text = "username,email\nänn,ann@example.com\n";
        assert_eq!(read(&[b"\xEF\xBB\xBF", text.as_bytes()].concat(), None), (text.into(), "UTF-8"));
        assert_eq!(read(&utf16(text, false, true), None), (text.into(), "UTF-16LE"));
        assert_eq!(read(&utf16(text, true, true), None), (text.into(), "UTF-16BE"));
    }

    #[test]
    fn utf_16_without_a_mark_is_seen() {
        let text = "username,email\nann,ann@example.com\n";
        assert_eq!(read(&utf16(text, false, false), None), (text.into(), "UTF-16LE"));
        assert_eq!(read(&utf16(text, true, false), None), (text.into(), "UTF-16BE"));
    }

    #[test]
    fn a_long_utf_16_file_is_the_same_text() {
        let text = "name,bio\n".to_owned() + &"ann,😀 zażółć 漢字\n".repeat(60_000);
        assert_eq!(read(&utf16(&text, false, true), None).0, text.as_bytes());
    }

    #[test]
    fn what_cannot_be_decoded_leaves_a_mark() {
        let mut bytes = utf16("ab", false, true);
        bytes.extend_from_slice(&0xD800_u16.to_le_bytes());
        bytes.extend_from_slice(&u16::from(b'c').to_le_bytes());
        assert_eq!(read(&bytes, None).0, b"ab\xFFc");
        assert_eq!(read(b"a\xFFb", None).0, b"a\xFFb");
    }

    #[test]
    fn an_encoding_can_be_named() {
        assert_eq!(read(b"\xE4nn", Some(encoding_rs::WINDOWS_1252)).0, "änn".as_bytes());
    }
}
