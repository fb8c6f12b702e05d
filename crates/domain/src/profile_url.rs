//! Profile addresses.

use std::{fmt, str::FromStr};

use url::Url;

/// The address of a creator's public page: `https`, a host name with a dot, no credentials, no fragment, no tracking
/// parameters, no trailing slash, at most 512 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProfileUrl(String);

/// The text is no address of a public page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a profile URL: {reason}")]
pub struct InvalidProfileUrl {
    /// Why, without the text itself (it may be personal).
    pub reason: &'static str,
}

const fn invalid(reason: &'static str) -> InvalidProfileUrl {
    InvalidProfileUrl { reason }
}

/// Query parameters that say where a click came from, not which page it is.
const TRACKING: [&str; 8] = ["igsh", "igshid", "fbclid", "gclid", "ref", "si", "feature", "_t"];

impl ProfileUrl {
    /// Parses and canonicalises an address. A missing scheme means `https`; `http` becomes `https`.
    pub fn parse(text: &str) -> Result<Self, InvalidProfileUrl> {
        let text = text.trim();
        if text.is_empty() {
            return Err(invalid("empty"));
        }
        if text.len() > 2_000 {
            return Err(invalid("longer than 512 bytes"));
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut url = Url::parse(&with_scheme).map_err(|_| invalid("cannot be read as a URL"))?;
        match url.scheme() {
            "https" => {}
            "http" => url.set_scheme("https").map_err(|()| invalid("cannot be read as a URL"))?,
            _ => return Err(invalid("its scheme is neither http nor https")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it carries credentials"));
        }
        let Some(url::Host::Domain(host)) = url.host() else {
            return Err(invalid("its host is not a name"));
        };
        let host = host.trim_end_matches('.').to_owned();
        if !host.contains('.') {
            return Err(invalid("its host has no dot"));
        }
        let bare = host.strip_prefix("www.").filter(|rest| rest.contains('.')).unwrap_or(&host);
        let bare = bare.to_owned();
        url.set_host(Some(&bare)).map_err(|_| invalid("its host is not a name"))?;
        url.set_fragment(None);
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(key, _)| !key.starts_with("utm_") && !TRACKING.contains(&key.as_ref()))
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        if kept.is_empty() {
            url.set_query(None);
        } else {
            url.query_pairs_mut().clear().extend_pairs(kept);
        }
        let canonical = url.as_str().trim_end_matches('/').to_owned();
        if canonical.len() > 512 {
            return Err(invalid("longer than 512 bytes"));
        }
        Ok(Self(canonical))
    }

    /// The canonical address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without `www.`.
    pub fn host(&self) -> &str {
        self.0.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', ':']).next()).unwrap_or_default()
    }
}

impl FromStr for ProfileUrl {
    type Err = InvalidProfileUrl;

    fn from_str(text: &str) -> Result<Self, InvalidProfileUrl> {
        Self::parse(text)
    }
}

/// Debug output shows no personal data.
impl fmt::Debug for ProfileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProfileUrl(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_page_are_one() {
        for text in [
            "https://instagram.com/ann",
            "http://www.instagram.com/ann/",
            "www.instagram.com/ann?igshid=x&utm_source=y#top",
            " INSTAGRAM.com/ann ",
        ] {
            assert_eq!(ProfileUrl::parse(text).unwrap().as_str(), "https://instagram.com/ann");
        }
    }

    #[test]
    fn a_meaningful_query_stays() {
        let url = ProfileUrl::parse("https://example.com/u?id=7&utm_medium=x").unwrap();
        assert_eq!(url.as_str(), "https://example.com/u?id=7");
        assert_eq!(url.host(), "example.com");
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for text in [
            "",
            "javascript:alert(1)",
            "javascript://example.com/%0aalert(1)",
            "ftp://example.com/x",
            "https://user:pw@example.com/",
            "https://127.0.0.1/x",
            "https://localhost/x",
            "not a url",
        ] {
            assert!(ProfileUrl::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
