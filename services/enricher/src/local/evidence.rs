//! What the words of a profile tell, gathered in one pass.

use domain::lead::Profile;

use super::{
    UNKNOWN_NICHE,
    lexicon::{Lexicon, Meaning, Signal},
    tokens::Tokens,
};

/// The least points from which a niche is believed: one telling word in the user name, or two weak ones.
const LEAST_POINTS: u32 = 3;
/// A word in the bio counts twice as much as one in a name, which is often a joke.
const BIO_FACTOR: u32 = 2;
const NAME_FACTOR: u32 = 1;

/// What was found.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// The words of the bio.
    pub bio: Tokens,
    /// The niche with the most points, if it has enough.
    pub niche: Option<usize>,
    /// Points of the best niche, and of the one after it.
    pub points: (u32, u32),
    /// Words for the niche that a message may repeat, in the order of the bio; they come from the lexicon, not from the
    /// profile.
    pub topics: Vec<&'a str>,
    /// How often each kind of signal was seen in the bio, each word once.
    signals: [u32; 8],
}

impl<'a> Evidence<'a> {
    /// Reads the bio, the name and the user name.
    pub fn gather(lexicon: &'a Lexicon, profile: &Profile) -> Self {
        let bio = Tokens::of(profile.bio.as_deref().unwrap_or_default());
        let name = Tokens::of(profile.name.as_deref().unwrap_or_default());
        let username = Tokens::of(profile.username.as_str());
        let mut points = vec![0_u32; lexicon.niches().count()];
        let mut topics: Vec<(usize, &str)> = Vec::new();
        let mut signals = [0; 8];
        let mut seen = vec![0_u64; lexicon.len().div_ceil(64)];
        for (tokens, factor) in [(&bio, BIO_FACTOR), (&name, NAME_FACTOR), (&username, NAME_FACTOR)] {
            let in_bio = factor == BIO_FACTOR;
            lexicon.scan(tokens, |hit| {
                let (word, bit) = (hit.entry / 64, 1 << (hit.entry % 64));
                if seen[word] & bit != 0 {
                    return;
                }
                seen[word] |= bit;
                match hit.meaning {
                    Meaning::Niche { niche, weight } => {
                        points[niche] += weight * factor;
                        if let Some(topic) = hit.topic.filter(|_| in_bio) {
                            topics.push((niche, topic));
                        }
                    }
                    Meaning::Signal(signal) if in_bio => signals[signal as usize] += 1,
                    // A display name can say `parent run` or `18+ only`, too; but `active` or `contact` there mean nothing.
                    Meaning::Signal(
                        signal @ (Signal::Minor | Signal::Adult | Signal::Gambling | Signal::Memorial | Signal::Hacked),
                    ) => {
                        signals[signal as usize] += 1;
                    }
                    Meaning::Signal(_) => {}
                }
            });
        }
        let (niche, points) = best_two(&points);
        topics.retain(|(of, _)| Some(*of) == niche);
        Self { bio, niche, points, topics: topics.into_iter().map(|(_, topic)| topic).collect(), signals }
    }

    /// How many different words of this kind there are.
    pub fn count(&self, signal: Signal) -> u32 {
        self.signals[signal as usize]
    }

    /// Whether there is any word of this kind.
    pub fn shows(&self, signal: Signal) -> bool {
        self.count(signal) > 0
    }

    /// The niche's name.
    pub fn niche_name(&self, lexicon: &'a Lexicon) -> &'a str {
        self.niche.map_or(UNKNOWN_NICHE, |niche| lexicon.niche_name(niche))
    }
}

/// The best niche, and the points of the two best. Of equal ones the first wins.
fn best_two(points: &[u32]) -> (Option<usize>, (u32, u32)) {
    let (mut best, mut first, mut second) = (None, 0, 0);
    for (niche, &points) in points.iter().enumerate() {
        if points > first {
            (best, second, first) = (Some(niche), first, points);
        } else if points > second {
            second = points;
        }
    }
    (best.filter(|_| first >= LEAST_POINTS), (first, second))
}
