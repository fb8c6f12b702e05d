//! Checks a text of a model's own. It will stand in a mail that carries our name, so what isn't known to be harmless is
//! refused: every word must be one of plain praise (`vocabulary.txt`), or stand in the profile or in the program's own
//! texts; and whatever supports a word, no offer, promise, demand or pretence is made of it.

use std::{collections::HashSet, sync::LazyLock};

use domain::{lead::Lead, person_name::PersonName, program::Program, text::multi_line};
use regex::Regex;

use super::{
    forbidden, shape,
    words::{is_latin, stem, words},
};
use crate::model::redact;

/// The most characters of a text; more was not asked for.
const CHARS: usize = 700;

static VOCABULARY: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("vocabulary.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).flat_map(|word| [word, stem(word)]).collect()
});

/// What harmless words can be made into all the same. On words joined by single spaces.
static PATTERNS: LazyLock<[(&str, Regex); 8]> = LazyLock::new(|| {
    let rule = |category, pattern: &str| (category, Regex::new(pattern).expect("the pattern is valid"));
    // What may be said of the future: that something will please or fit.
    let soft = "(?:also |really |surely |probably |naturally )?(?:enjoy|love|like|appreciate|find|feel|fit|suit|match|be happy|resonate|value)";
    [
        rule("promise", &format!(r"\b(?:will|ll|shall|won t)\b(?: {soft}\b)?")),
        rule(
            "promise",
            r"\b(?:help|let|get|make|bring|put|take|set|turn|lead|grow|build|support|show|teach|reach)\w* (?:you|us all)\b(?: \w+)?",
        ),
        rule(
            "promise",
            r"\b(?:can|could|may|might|would|to) (?:\w+ )?(?:grow|build|reach|change|make|get|bring|add|set|put|take|lead|turn|help) (?:\w+ )?(?:your|you|more)\b",
        ),
        rule(
            "promise",
            r"\b(?:program|programme|product|brand|tool|we|it|this) (?:is|are) (?:simply |really |truly )?the best\b|\b(?:already|all) (?:work|use|choose|chose|trust|love|belong|partner)\w*\b",
        ),
        rule(
            "offer",
            r"\bwe (?:would |could |can |will |ll |d )?(?:also |gladly |happily )?(?:cover|handle|manage|fill|carry|put|add|bring|set|take|prepare)\b|\bwe share (?:everything|all|it|what|more|part|with)\b|\b(?:is|are|be|all) yours\b|\bon us\b|\b(?:place|space|spot|room|chapter) (?:is |kept |open |here )*for you\b|\bkeep\w* (?:a|the|one|your) (?:place|space|spot)\b",
        ),
        rule(
            "demand",
            r"\b(?:we|i) (?:need|want|require|expect|deserve)\b|(?:^|[.!?:;] |\b(?:please|and then|then|so|just|now|you (?:can|could|may|might|would|have to|had to)|let us|let s|let me) )(?:get|go|come|take|make|share|send|show|tell|post|put|set|let|follow|try|add|bring|use|turn|say|write|pass|return|test|mention|open|read|watch|listen|reach|move|hold|recommend|keep|trust|believe|choose|expect|be|agree|leave|do not|don t)\b",
        ),
        rule(
            "impersonation",
            r"\b(?:we|i) (?:am|are|m|re|was|were|work|speak|write|come|came) (?:\w+ )?(?:at|for|from|by|of) \w+|\b(?:this is|my name|our name|here is|it is me|it s me)\b",
        ),
        rule(
            "personal",
            r"\b(?:love|watch|watching|follow|find|like|admire|want|wish|know|trust|watched|followed|found|saw|see|seen|caught|touch) you\b|\b(?:we|i) know (?:your|where|who|what)\b|\bmy (?:room|place|home|house|car|bed)\b|\byou (?:look|are|re|seem) (?:so |very |really |such a |a )?(?:beautiful|lovely|pretty|cute|handsome|gorgeous|charming|delightful)\b|\bwhere you\b|\byour (?:family|kids|children|child|house|parents|mother|father|grandmother|grandfather|childhood)\b|\byour home(?:$|[.]| and\b)",
        ),
    ]
});

/// The cleaned text.
///
/// # Errors
/// A short word for what is wrong with it.
pub(super) fn check(message: &str, lead: &Lead, program: &Program) -> Result<String, &'static str> {
    if message.chars().count() > CHARS {
        return Err("length");
    }
    // A lone carriage return would be read as a line break by some mail programs.
    let text = multi_line(&message.replace("\r\n", "\n").replace('\r', "\n"), CHARS).ok_or("empty")?;
    shape::check(&text, lead, program)?;
    let is_plain = |c: char| c.is_alphanumeric() || " \n.,;:!?'’‘“”\"()-–—…".contains(c);
    if !text.chars().all(is_plain) || !is_latin(&text) {
        return Err("character");
    }
    let all = words(&text);
    if let Some(category) = forbidden::category(&all) {
        return Err(category);
    }
    if let Some(category) = pretence(&text) {
        return Err(category);
    }
    let support = Support::of(lead, program);
    if !all.iter().all(|word| support.has(word)) || !support.allows_claims_of_self(&all) {
        return Err("unsupported");
    }
    support.allows_network(&all).then_some(text).ok_or("impersonation")
}

/// The category of the first pattern that the text fits, soft words about the future excepted.
fn pretence(text: &str) -> Option<&'static str> {
    // Sentence ends stay, so that a demand at the beginning of one can be told.
    let marked: String = text.chars().map(|c| if ".!?:;\n".contains(c) { '.' } else { c }).collect();
    let sentences: Vec<String> = marked.split('.').map(|sentence| words(sentence).join(" ")).collect();
    let joined = sentences.iter().filter(|sentence| !sentence.is_empty()).cloned().collect::<Vec<_>>().join(". ");
    PATTERNS.iter().find_map(|(category, pattern)| {
        let is_soft = |found: &str| {
            *category == "promise" && found.starts_with(['w', 'l', 's']) && {
                let mut words = found.split(' ');
                matches!(words.next(), Some("will" | "ll" | "shall")) && words.next().is_some()
            }
        };
        pattern.find_iter(&joined).any(|found| !is_soft(found.as_str())).then_some(*category)
    })
}

/// What may be said of this lead.
struct Support {
    stems: HashSet<String>,
    network: Option<String>,
    program: HashSet<String>,
}

impl Support {
    fn of(lead: &Lead, program: &Program) -> Self {
        let profile = &lead.profile;
        let settings = &program.settings;
        let bio = profile.bio.as_deref().map(redact);
        let name = profile.name.as_deref().and_then(PersonName::of);
        let network = profile.source.network();
        let texts = [
            bio.as_deref(),
            name.as_ref().map(PersonName::full),
            profile.location.as_deref(),
            network,
            Some(settings.name.as_str()),
            Some(settings.product.as_str()),
        ];
        let texts = texts.into_iter().flatten().chain(settings.niches.iter().map(String::as_str));
        let stems = texts.flat_map(words).map(|word| stem(&word).to_owned()).collect();
        Self { stems, network: network.map(str::to_lowercase), program: words(&settings.name).into_iter().collect() }
    }

    fn has(&self, word: &str) -> bool {
        // Numbers were compared with the profile already.
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        is_number || is_common(word) || self.stems.contains(stem(word))
    }

    /// After `I am` and `we are` only words of ours follow: `I am Ann` is what the profile can't support.
    fn allows_claims_of_self(&self, words: &[String]) -> bool {
        words.windows(3).all(|three| {
            let is_claim = matches!((three[0].as_str(), three[1].as_str()), ("i", "am" | "m") | ("we", "are" | "re"));
            !is_claim || is_common(&three[2]) || (three[0] == "we" && self.program.contains(&three[2]))
        })
    }

    /// The network is where they are, never who writes: `on Instagram`, `your Instagram page`.
    fn allows_network(&self, words: &[String]) -> bool {
        const BEFORE: [&str; 4] = ["on", "your", "through", "via"];
        let Some(network) = &self.network else { return true };
        let mut named = (0..words.len()).filter(|at| words[*at] == *network);
        named.all(|at| at > 0 && BEFORE.contains(&words[at - 1].as_str()))
    }
}

fn is_common(word: &str) -> bool {
    VOCABULARY.contains(word) || VOCABULARY.contains(stem(word))
}

#[cfg(test)]
mod tests {
    use domain::lead::Profile;
    use test_support::profiles::{lead, profile, program};

    use super::*;

    fn reason(message: &str) -> Option<&'static str> {
        let bio = "Personal trainer, home workouts for busy people. Win my free password giveaway, reply now!";
        let lead = lead(Profile { bio: Some(bio.to_owned()), ..profile() });
        check(message, &lead, &program(&["fitness"])).err()
    }

    #[test]
    fn praise_in_words_of_ours_and_of_the_profile_passes() {
        for message in [
            "Your home workouts are easy to follow, and the way you explain each step is calm and clear.",
            "I came across your page on Instagram and enjoyed your workouts for busy people.\n\nI think Acme fits naturally.",
            "Your audience will love a meal planner that suits busy people, Ann.",
            "You train people with patience, and it shows in every video.",
        ] {
            assert_eq!(reason(message), None, "{message}");
        }
    }

    #[test]
    fn what_nothing_supports_or_what_is_made_of_harmless_words_is_refused() {
        for (message, expected) in [
            ("Your sourdough is great.", "unsupported"),
            ("Deine Workouts sind großartig.", "unsupported"),
            ("Win a free planner!", "offer"),
            ("Your password, please.", "credentials"),
            ("Your wоrkouts are great.", "character"),
            ("Your workouts are 100% great.", "number"),
            ("Great workouts 💰", "character"),
            ("I am Ann Lee and I love workouts.", "unsupported"),
            ("We are from Instagram and enjoyed your page.", "impersonation"),
            ("Instagram loves your page.", "impersonation"),
            ("Your followers will grow with us.", "promise"),
            ("It can grow your audience.", "promise"),
            ("Great page. Share this with every follower.", "demand"),
            ("You are so beautiful.", "personal"),
            ("See evil.example", "link"),
            ("", "empty"),
            ("!!!", "empty"),
        ] {
            assert_eq!(reason(message), Some(expected), "{message}");
        }
        assert_eq!(reason(&"great ".repeat(200)), Some("length"));
    }
}
