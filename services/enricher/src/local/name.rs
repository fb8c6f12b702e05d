//! Whether a display name looks like a person's name. Rather no name than a wrong one: `Dear Official` costs more than
//! a mail without a name.

use domain::lead::Profile;

use super::{
    lexicon::{Lexicon, Meaning, Signal},
    tokens::Tokens,
};

/// The first name, if the display name looks like a name: one to three words of letters, none of which is known to the
/// lexicon as something else. Handles, slogans, brands and injected text give `None`.
pub(super) fn first_name(lexicon: &Lexicon, profile: &Profile) -> Option<String> {
    let name = profile.name.as_deref()?;
    // What follows a bar or a comma is a slogan: `Ann Lee | vegan recipes`.
    let name = name.split(['|', ',', '•', '·', '–', '—', '(']).next()?.trim();
    let name = name.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '.').trim();
    let words: Vec<&str> = name.split(' ').collect();
    if !(1..=3).contains(&words.len()) || !words.iter().all(|word| is_name_word(word)) {
        return None;
    }
    let first = words[0];
    if first.ends_with('.') || first.chars().count() < 2 || !first.starts_with(char::is_uppercase) {
        return None;
    }
    let mut known = false;
    lexicon.scan(&Tokens::of(name), |hit| {
        known |= matches!(hit.meaning, Meaning::Niche { .. } | Meaning::Signal(Signal::NotAPerson));
    });
    (!known).then(|| capitalised(first))
}

/// Letters, with `-`, `'` or `’` inside; or an initial such as `K.`.
fn is_name_word(word: &str) -> bool {
    let core = word.strip_suffix('.').filter(|core| core.chars().count() <= 2).unwrap_or(word);
    (1..=20).contains(&core.chars().count())
        && core.chars().all(|c| c.is_alphabetic() || "-'’".contains(c))
        && core.starts_with(char::is_alphabetic)
        && core.ends_with(char::is_alphabetic)
        // Mixed case inside is a handle or a brand (`FitLife`), except after a hyphen, an apostrophe, or `Mc`.
        && !core.chars().zip(core.chars().skip(1)).skip(2).any(|(left, right)| left.is_lowercase() && right.is_uppercase())
}

/// `ANNA` is `Anna`.
fn capitalised(word: &str) -> String {
    if word.chars().count() > 2 && word.chars().all(|c| !c.is_lowercase()) {
        let mut chars = word.chars();
        let first = chars.next().into_iter();
        first.chain(chars.flat_map(char::to_lowercase)).collect()
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::profiles::profile;

    fn first(name: &str) -> Option<String> {
        first_name(Lexicon::embedded(), &domain::lead::Profile { name: Some(name.to_owned()), ..profile() })
    }

    #[test]
    fn names_of_people_are_taken() {
        for (name, expected) in [
            ("Ann Lee", "Ann"),
            ("ANNA MÜLLER", "Anna"),
            ("José", "José"),
            ("Marie-Claire Dubois", "Marie-Claire"),
            ("Seán O'Brien", "Seán"),
            ("Ann Lee | vegan recipes", "Ann"),
            ("Li Wei", "Li"),
            ("Anna K.", "Anna"),
            ("Sofia 🌸", "Sofia"),
            ("Jo McDonald", "Jo"),
        ] {
            assert_eq!(first(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn handles_slogans_brands_and_injections_are_not() {
        for name in [
            "ann_bakes",
            "FitLife",
            "Fitness Queen",
            "The Travel Team",
            "Official",
            "ann",
            "A",
            "Ann Bcc: x@example.com",
            "Visit www.example.com",
            "<b>Ann</b>",
            "{{ name }}",
            "Dr. Ann Lee",
            "X Æ A-12",
            "One Two Three Four",
            "",
            "123",
            "Ann\r\nBcc: all@example.com",
        ] {
            assert_eq!(first(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_taken_name_is_one_word_of_letters(name in "\\PC{0,40}") {
            if let Some(first) = first(&name) {
                prop_assert!(first.chars().all(|c| c.is_alphabetic() || "-'’".contains(c)), "{first:?}");
                prop_assert!(first.chars().count() <= 60);
            }
        }
    }
}
