//! The networks: which one a profile URL belongs to, which handle it names, and the one spelling of that URL.

use domain::{handle::Handle, lead::SourceName, profile_url::ProfileUrl};

/// What a profile URL tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The network.
    pub network: &'static str,
    /// The handle, unless the URL names a page by number or isn't a profile.
    pub handle: Option<Handle>,
}

/// Where on a network's site a handle stands.
enum Form {
    /// `/ann` or `/@ann`.
    First,
    /// `/@ann` only.
    At,
    /// `/in/ann`, behind one of these.
    Behind(&'static [&'static str]),
    /// `ann.example.com`.
    Subdomain,
}

/// Hosts (or the end of a host's name), network, form.
const NETWORKS: [(&[&str], &str, Form); 18] = [
    (&["instagram.com", "instagr.am"], "instagram", Form::First),
    (&["tiktok.com"], "tiktok", Form::At),
    (&["youtube.com"], "youtube", Form::Behind(&["c", "user", "channel"])),
    (&["x.com", "twitter.com"], "x", Form::First),
    (&["facebook.com", "fb.com"], "facebook", Form::First),
    (&["twitch.tv"], "twitch", Form::First),
    (&["pinterest.com"], "pinterest", Form::First),
    (&["linkedin.com"], "linkedin", Form::Behind(&["in"])),
    (&["threads.net", "threads.com"], "threads", Form::At),
    (&["snapchat.com"], "snapchat", Form::Behind(&["add"])),
    (&["substack.com"], "substack", Form::Subdomain),
    (&["medium.com"], "medium", Form::At),
    (&["patreon.com"], "patreon", Form::First),
    (&["t.me", "telegram.me"], "telegram", Form::First),
    (&["bsky.app"], "bluesky", Form::Behind(&["profile"])),
    (&["reddit.com"], "reddit", Form::Behind(&["user", "u"])),
    (&["soundcloud.com"], "soundcloud", Form::First),
    (&["kick.com"], "kick", Form::First),
];

/// First path segments that are pages of the site, not people.
const RESERVED: [&str; 30] = [
    "p",
    "reel",
    "reels",
    "tv",
    "explore",
    "stories",
    "accounts",
    "about",
    "watch",
    "shorts",
    "playlist",
    "results",
    "hashtag",
    "intent",
    "share",
    "sharer",
    "sharer.php",
    "home",
    "search",
    "i",
    "login",
    "settings",
    "groups",
    "pages",
    "people",
    "profile.php",
    "events",
    "pin",
    "directory",
    "embed",
];

/// The network and handle of a profile URL, when it is one of a known network.
pub fn place(url: &ProfileUrl) -> Option<Place> {
    let host = url.host();
    let (network, form) = NETWORKS
        .iter()
        .find(|(hosts, ..)| hosts.iter().any(|known| host == *known || is_subdomain(host, known)))
        .map(|(_, network, form)| (*network, form))?;
    let path = url.as_str().split_once(host).map_or("", |(_, rest)| rest.split(['?', '#']).next().unwrap_or(""));
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).map(decoded);
    let first = segments.next();
    let handle = match form {
        Form::Subdomain => host.split('.').next().filter(|label| *label != "open").map(str::to_owned),
        Form::First => first.filter(|segment| !RESERVED.contains(&segment.to_ascii_lowercase().as_str())),
        Form::At => first.filter(|segment| segment.starts_with('@')),
        Form::Behind(places) => match first {
            Some(segment) if segment.starts_with('@') => Some(segment),
            Some(segment) if places.contains(&segment.as_str()) => segments.next(),
            _ => None,
        },
    };
    Some(Place { network, handle: handle.and_then(|handle| Handle::parse(&handle).ok()) })
}

/// The usual URL of a handle on a known network.
pub fn profile_url(source: &SourceName, handle: &Handle) -> Option<ProfileUrl> {
    let handle = handle.as_str();
    let url = match source.as_str() {
        "instagram" => format!("https://instagram.com/{handle}"),
        "tiktok" => format!("https://tiktok.com/@{handle}"),
        "youtube" if is_channel_id(handle) => format!("https://youtube.com/channel/{handle}"),
        "youtube" => format!("https://youtube.com/@{handle}"),
        "x" => format!("https://x.com/{handle}"),
        "facebook" => format!("https://facebook.com/{handle}"),
        "twitch" => format!("https://twitch.tv/{handle}"),
        "pinterest" => format!("https://pinterest.com/{handle}"),
        "linkedin" => format!("https://linkedin.com/in/{handle}"),
        "threads" => format!("https://threads.net/@{handle}"),
        "snapchat" => format!("https://snapchat.com/add/{handle}"),
        "medium" => format!("https://medium.com/@{handle}"),
        "patreon" => format!("https://patreon.com/{handle}"),
        "telegram" => format!("https://t.me/{handle}"),
        "bluesky" => format!("https://bsky.app/profile/{handle}"),
        "reddit" => format!("https://reddit.com/user/{handle}"),
        "soundcloud" => format!("https://soundcloud.com/{handle}"),
        "kick" => format!("https://kick.com/{handle}"),
        _ => return None,
    };
    ProfileUrl::parse(&url).ok()
}

/// The one spelling of a profile's URL: that of its network and handle when both are known.
pub fn canonical(url: ProfileUrl) -> ProfileUrl {
    let known = place(&url).and_then(|place| {
        // YouTube's older forms don't name the handle of today.
        let old_form =
            place.network == "youtube" && !url.as_str().contains("/@") && !url.as_str().contains("/channel/");
        let source = SourceName::parse(place.network).ok()?;
        profile_url(&source, &place.handle.filter(|_| !old_form)?)
    });
    known.unwrap_or(url)
}

/// The source that a text names, in its usual other spellings too.
pub fn source(text: &str) -> Option<SourceName> {
    let folded = text.trim().to_lowercase();
    let known = match folded.as_str() {
        "tik tok" | "tik-tok" | "tiktok.com" => Some("tiktok"),
        "x (twitter)" | "twitter (x)" | "twitter/x" | "x/twitter" | "x (formerly twitter)" => Some("x"),
        "you tube" | "youtube.com" => Some("youtube"),
        "instagram.com" => Some("instagram"),
        "linked in" | "linked-in" => Some("linkedin"),
        _ => None,
    };
    SourceName::parse(known.unwrap_or(&folded)).ok()
}

fn is_subdomain(host: &str, known: &str) -> bool {
    host.strip_suffix(known).is_some_and(|rest| rest.ends_with('.'))
}

fn is_channel_id(handle: &str) -> bool {
    handle.len() == 24 && handle.starts_with("UC")
}

/// A path segment without percent-encoding.
fn decoded(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let query = format!("v={}", segment.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Option<(&'static str, Option<String>)> {
        place(&ProfileUrl::parse(url).unwrap())
            .map(|place| (place.network, place.handle.map(|handle| handle.as_str().to_owned())))
    }

    #[test]
    fn a_profile_url_names_network_and_handle() {
        for (url, network) in [
            ("https://www.instagram.com/ann.b/?hl=en", "instagram"),
            ("tiktok.com/@ann.b", "tiktok"),
            ("https://m.youtube.com/@ann.b/videos", "youtube"),
            ("https://twitter.com/ann.b", "x"),
            ("https://de.linkedin.com/in/ann.b/", "linkedin"),
            ("https://www.twitch.tv/ann.b", "twitch"),
            ("https://youtube.com/c/ann.b", "youtube"),
        ] {
            assert_eq!(at(url), Some((network, Some("ann.b".to_owned()))), "{url}");
        }
        assert_eq!(at("https://ann.substack.com"), Some(("substack", Some("ann".to_owned()))));
        assert_eq!(at("https://instagram.com/%40ann"), Some(("instagram", Some("ann".to_owned()))));
    }

    #[test]
    fn a_post_or_a_stranger_site_names_no_handle() {
        for (url, network) in [
            ("https://instagram.com/p/Cx123", "instagram"),
            ("https://youtube.com/watch?v=1", "youtube"),
            ("https://facebook.com/profile.php?id=7", "facebook"),
            ("https://tiktok.com/ann", "tiktok"),
        ] {
            assert_eq!(at(url), Some((network, None)), "{url}");
        }
        assert_eq!(at("https://example.com/ann"), None);
        assert_eq!(at("https://notinstagram.com/ann"), None);
        assert_eq!(at("https://instagram.com.example.com/ann"), None);
    }

    #[test]
    fn spellings_of_one_profile_are_one() {
        for url in ["http://m.tiktok.com/@ann?lang=de", "https://www.tiktok.com/@ann/video/1"] {
            assert_eq!(canonical(ProfileUrl::parse(url).unwrap()).as_str(), "https://tiktok.com/@ann");
        }
        let old = "https://youtube.com/c/ann";
        assert_eq!(canonical(ProfileUrl::parse(old).unwrap()).as_str(), old);
        let post = "https://instagram.com/p/Cx123";
        assert_eq!(canonical(ProfileUrl::parse(post).unwrap()).as_str(), post);
    }

    #[test]
    fn every_network_url_leads_back_to_its_handle() {
        let handle = Handle::parse("ann_b").unwrap();
        for (_, network, form) in &NETWORKS {
            if matches!(form, Form::Subdomain) {
                continue;
            }
            let url = profile_url(&SourceName::parse(network).unwrap(), &handle).unwrap();
            assert_eq!(place(&url), Some(Place { network, handle: Some(handle.clone()) }), "{network}");
        }
    }
}
