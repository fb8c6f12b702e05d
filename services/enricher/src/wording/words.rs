//! Words of a text as they are compared.

use domain::text::folded;

/// The words: lower case, without accents, cut at everything that is neither a letter nor a digit.
pub(super) fn words(text: &str) -> Vec<String> {
    let folded: String = folded(text).collect();
    folded.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether every letter is Latin, so that none only looks like one.
pub(super) fn is_latin(text: &str) -> bool {
    text.chars()
        .filter(|c| c.is_alphabetic())
        .all(|c| matches!(c, 'A'..='Z' | 'a'..='z' | 'À'..='ſ' | 'Ș'..='ț' | 'Ḁ'..='ỹ'))
}

/// A word without the ending of its form: `baking`, `bakes` and `baked` are `bak`. Crude, and the same for all.
pub(super) fn stem(word: &str) -> &str {
    const ENDINGS: [&str; 12] = ["ings", "ing", "ies", "ied", "ers", "er", "es", "ed", "ly", "s", "e", "y"];
    let cut = |ending: &&str| word.strip_suffix(*ending).filter(|stem| stem.len() >= 3);
    let stem = ENDINGS.iter().find_map(cut).unwrap_or(word);
    // `running` is `run`.
    let bytes = stem.as_bytes();
    match bytes {
        [.., before, last] if before == last && stem.len() > 3 && word.len() > stem.len() + 1 => {
            &stem[..stem.len() - 1]
        }
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_their_forms_share_a_stem() {
        assert_eq!(words("You’ll  LOVE café-life!"), ["you", "ll", "love", "cafe", "life"]);
        for forms in [["baking", "bakes", "baked"], ["running", "runs", "runners"], ["recipe", "recipes", "recipe"]] {
            assert!(forms.iter().all(|form| stem(form) == stem(forms[0])), "{forms:?}");
        }
        assert!(is_latin("crème brûlée") && !is_latin("frее"));
    }
}
