//! Whether a profile states an age below eighteen as its owner's. Somebody else's age (`mom of a 15 year old`), a time
//! (`for 15 years`) and a past (`since I was 15`) are none; in doubt it is the owner's, so that nobody is written to who may
//! be a child.

use domain::lead::Profile;

use super::{segments::segments, tokens::Tokens};

/// The ages that are read as such.
const AGES: std::ops::RangeInclusive<u8> = 4..=17;
/// A bare number in a piece of its own (`16 | fitness`) is an age from here on.
const BARE_AGE: u8 = 10;

/// Whether the bio or the display name states it; `words` are those of the bio.
pub(super) fn states_minor_age(profile: &Profile, words: &Tokens) -> bool {
    // Most profiles have no number at all.
    let may_have_age =
        |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) || word.ends_with("enne") || age(word).is_some();
    let bio = profile.bio.as_deref().filter(|_| words.iter().any(may_have_age));
    let name = profile.name.as_deref().filter(|name| name.contains(|c: char| c.is_numeric()));
    [bio, name].into_iter().flatten().any(in_text)
}

fn in_text(text: &str) -> bool {
    let pieces: Vec<Tokens> = segments(text).map(Tokens::of).filter(|tokens| tokens.len() > 0).collect();
    pieces
        .iter()
        .enumerate()
        .any(|(at, piece)| is_bare(&pieces, at) || (0..piece.len()).any(|index| states(piece, index)))
}

/// `16`, `15 ans`, `17f`: a whole piece, and not one number of several.
fn is_bare(pieces: &[Tokens], at: usize) -> bool {
    let piece = &pieces[at];
    let first = piece.get(0).unwrap_or_default();
    let is_numeric = |word: Option<&str>| word.is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let before = at.checked_sub(1).and_then(|before| pieces[before].get(pieces[before].len() - 1));
    let after = pieces.get(at + 1).and_then(|next| next.get(0));
    let bare = match piece.len() {
        1 => number(first.trim_end_matches(['f', 'm'])).is_some_and(|age| age >= BARE_AGE),
        2 => age(first).is_some() && piece.get(1).is_some_and(|unit| UNITS.contains(&unit)),
        _ => false,
    };
    bare && !is_numeric(before) && !is_numeric(after)
}

/// Whether the word at `index` is an age, and the owner's.
fn states(piece: &Tokens, index: usize) -> bool {
    let at = |offset: isize| index.checked_add_signed(offset).and_then(|index| piece.get(index));
    let token = at(0).unwrap_or_default();
    let with_unit = ["yo", "yrs", "yr", "jahrige", "jahriger", "jahriges", "enne"];
    let joined = with_unit.iter().find_map(|unit| token.strip_suffix(unit)).and_then(age);
    if joined.is_some() || ["quattordicenne", "quindicenne", "sedicenne", "diciassettenne"].contains(&token) {
        return !is_past(piece, index) && !is_somebody_elses(piece, index, index + 1);
    }
    if age(token).is_none() {
        return false;
    }
    let is_word = number(token).is_none();
    let after = at(1);
    let (has_unit, end) = match after {
        Some("yo" | "yos" | "jahrige" | "jahriger" | "jahriges" | "anitos" | "aninhos") => (true, index + 2),
        Some("y" | "yr") if at(2) == Some("o") => (true, index + 3),
        Some("years" | "year" | "yrs" | "yr") if matches!(at(2), Some("old" | "young")) => (true, index + 3),
        Some("jahre") if matches!(at(2), Some("alt" | "jung")) => (true, index + 3),
        _ => (false, index + 1),
    };
    if is_past(piece, index) {
        return false;
    }
    if is_first_person(piece, index) {
        return match after {
            None | Some("and" | "und" | "et" | "y" | "e") => true,
            _ if has_unit => true,
            // `I'm 15 years in`, `j'ai 15 ans de métier` are times; `j'ai 15 ans` is an age.
            Some("years" | "year" | "yrs" | "yr" | "jahre") => at(2).is_none(),
            Some("ans" | "anos" | "anni") => !matches!(at(2), Some("de" | "d" | "di" | "trabajando" | "como" | "que")),
            Some(word) => !is_word && !MEASURES.contains(&word),
        };
    }
    let is_labelled =
        matches!(at(-1), Some("age" | "aged" | "alter" | "edad" | "idade" | "eta" | "turning" | "almost"));
    (has_unit || (is_labelled && !is_word && after.is_none_or(|word| !MEASURES.contains(&word))))
        && !is_somebody_elses(piece, index, end)
}

/// Words after a number that make another measure of it, when it follows `I'm`.
const MEASURES: [&str; 38] = [
    "weeks",
    "week",
    "months",
    "month",
    "days",
    "day",
    "hours",
    "hour",
    "minutes",
    "mins",
    "min",
    "seconds",
    "km",
    "miles",
    "kg",
    "kilos",
    "lbs",
    "pounds",
    "ft",
    "feet",
    "cm",
    "inches",
    "k",
    "percent",
    "times",
    "followers",
    "subs",
    "steps",
    "books",
    "countries",
    "away",
    "of",
    "out",
    "semanas",
    "meses",
    "wochen",
    "monate",
    "mois",
];

/// Units that make an age of a piece of two words. In Romance languages, inside of a sentence, only the verb tells an age
/// from a time.
const UNITS: [&str; 8] = ["years", "yrs", "yo", "ans", "anos", "anni", "jahre", "anitos"];

/// `I'm 15`, `ich bin erst 15`, `tengo 15`.
fn is_first_person(piece: &Tokens, index: usize) -> bool {
    let mut before = (0..index).rev().filter_map(|at| piece.get(at));
    let fillers =
        ["just", "only", "now", "currently", "already", "erst", "schon", "jetzt", "solo", "ya", "ja", "apenas"];
    let first = before.by_ref().find(|word| !fillers.contains(word));
    let second = before.next();
    match first {
        Some("im" | "tengo" | "tenho" | "bin") => true,
        Some("m" | "am") => second == Some("i"),
        Some("ai") => second == Some("j"),
        // Italian; `ho ho ho` is none.
        Some("ho") => second != Some("ho"),
        _ => false,
    }
}

/// `since I was 15`, `at age 12`, `seit 15 Jahren`.
fn is_past(piece: &Tokens, index: usize) -> bool {
    const PAST: [&str; 21] = [
        "since", "was", "when", "started", "at", "until", "till", "seit", "war", "depuis", "avais", "des", "desde",
        "tenia", "tinha", "avevo", "hace", "dall", "under", "over", "als",
    ];
    let start = index.saturating_sub(2);
    (start..index).filter_map(|at| piece.get(at)).any(|word| PAST.contains(&word))
}

/// Whether the age from `index` to `end` belongs to a child, a relative or an animal of the owner.
fn is_somebody_elses(piece: &Tokens, index: usize, end: usize) -> bool {
    let word = |at: usize| piece.get(at).unwrap_or_default();
    let is_owner_after = |at: usize| OWNERS.contains(&word(at + 1)) || PARENTS.contains(&word(at + 1));
    let parent_of = (0..index).any(|at| PARENTS.contains(&word(at)) && OF.contains(&word(at + 1)));
    let near = index.saturating_sub(3)..index;
    let child_before = near.clone().any(|at| DEPENDANTS.contains(&word(at)) && !is_owner_after(at));
    let charge = near.clone().any(|at| CHARGES.contains(&word(at)));
    let child_after = (end..end + 2).any(|at| RELATIVES.contains(&word(at)) && !is_owner_after(at));
    parent_of || child_before || charge || child_after
}

const PARENTS: [&str; 29] = [
    "mom", "moms", "mum", "mama", "mommy", "mummy", "mother", "dad", "daddy", "father", "papa", "parent", "parents",
    "grandma", "grandpa", "aunt", "uncle", "sister", "brother", "mutter", "vater", "eltern", "maman", "mere", "pere",
    "madre", "padre", "mae", "pai",
];
const OF: [&str; 14] = ["of", "to", "von", "eines", "einer", "de", "d", "du", "di", "do", "da", "an", "un", "for"];
/// Whose age may follow: `my son is 15 years old`, `pup is 7yo`.
const DEPENDANTS: [&str; 58] = [
    "son",
    "sons",
    "daughter",
    "daughters",
    "kid",
    "kids",
    "child",
    "children",
    "boys",
    "girls",
    "twins",
    "nephew",
    "niece",
    "sister",
    "brother",
    "dog",
    "dogs",
    "cat",
    "cats",
    "pup",
    "puppy",
    "horse",
    "pony",
    "bunny",
    "sohn",
    "tochter",
    "kind",
    "kinder",
    "bruder",
    "schwester",
    "hund",
    "katze",
    "pferd",
    "fils",
    "fille",
    "filles",
    "enfant",
    "enfants",
    "chien",
    "chat",
    "cheval",
    "hijo",
    "hija",
    "hijos",
    "perro",
    "perra",
    "gato",
    "caballo",
    "filho",
    "filha",
    "filhos",
    "cachorro",
    "figlio",
    "figlia",
    "figli",
    "cane",
    "gatto",
    "cavallo",
];
/// The same after an age, without words that may mean the owner: `15yo son`, but not `15yo girl`.
const RELATIVES: [&str; 33] = [
    "son",
    "sons",
    "daughter",
    "daughters",
    "nephew",
    "niece",
    "sister",
    "brother",
    "dog",
    "cat",
    "pup",
    "puppy",
    "horse",
    "pony",
    "sohn",
    "sohnes",
    "tochter",
    "bruder",
    "schwester",
    "hund",
    "katze",
    "fils",
    "chien",
    "chat",
    "hijo",
    "hija",
    "perro",
    "filho",
    "filha",
    "cachorro",
    "figlio",
    "figlia",
    "cane",
];
/// Words before an age that somebody has in their care, or that is not theirs: `my 15yo`, `raising a 12 year old`.
const CHARGES: [&str; 16] = [
    "my",
    "our",
    "raising",
    "parenting",
    "teaching",
    "coaching",
    "for",
    "mein",
    "meine",
    "mon",
    "ma",
    "mi",
    "meu",
    "minha",
    "mio",
    "mia",
];
/// Words that make somebody of an animal or a child before them: `dog lover`.
const OWNERS: [&str; 20] = [
    "lover",
    "lovers",
    "owner",
    "person",
    "people",
    "trainer",
    "walker",
    "sitter",
    "groomer",
    "fan",
    "addict",
    "obsessed",
    "enthusiast",
    "rescuer",
    "lady",
    "girl",
    "boy",
    "guy",
    "kid",
    "rider",
];

/// A number of at most two digits.
fn number(text: &str) -> Option<u8> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|age| is_number && AGES.contains(age))
}

/// A number from 4 to 17, or one from 10 in words. `once` and `elf` are left out: they are other words in English.
fn age(text: &str) -> Option<u8> {
    const WORDS: [(u8, &str); 8] = [
        (10, "ten|zehn|dix|diez|dez|dieci"),
        (11, "eleven|onze|undici"),
        (12, "twelve|zwolf|zwoelf|douze|doce|doze|dodici"),
        (13, "thirteen|dreizehn|treize|trece|treze|tredici"),
        (14, "fourteen|vierzehn|quatorze|catorce|catorze|quattordici"),
        (15, "fifteen|funfzehn|fuenfzehn|quinze|quince|quindici"),
        (16, "sixteen|sechzehn|seize|dieciseis|dezesseis|dezasseis|sedici"),
        (17, "seventeen|siebzehn|diecisiete|dezessete|dezassete|diciassette"),
    ];
    let in_words = || WORDS.iter().find(|(_, words)| words.split('|').any(|word| word == text)).map(|(age, _)| *age);
    number(text).or_else(in_words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_age_below_eighteen_is_the_owners() {
        for bio in [
            "15yo gamer",
            "15yo gamer, dog lover. Open for collabs",
            "I'm 15, I love my mom. Fitness every day. Open for collabs",
            "16 | fitness | mom's favourite. Open for collabs",
            "15yo dog lover",
            "Dog mom, I'm 16",
            "16yo mom",
            "15 year old cat lady",
            "I'm 16",
            "i’m 14 and love art",
            "im 15 love art",
            "I am only 13",
            "I'm fifteen",
            "17 y/o",
            "16 years old",
            "sixteen years old",
            "age: 13",
            "Artist • 15 • NYC",
            "🎨 14 🎨",
            "17f, he draws me",
            "just turning 16",
            "tengo 15 años",
            "tengo 15 añitos",
            "J'ai 16 ans",
            "15 ans | danse",
            "tenho 17 anos",
            "ho 15 anni",
            "quindicenne, amo la danza",
            "16 Jahre alt",
            "Ich bin erst 15",
            "15-jährige Reiterin",
            "Tengo quince años",
            "my mom says hi. 15 years old",
        ] {
            assert!(in_text(bio), "{bio}");
        }
    }

    #[test]
    fn years_of_experience_weeks_pasts_and_other_peoples_ages_are_none() {
        for bio in [
            "15 years of experience",
            "Fitness coach for 15 years. Open for collabs",
            "Mom of a 15 year old gamer. Fitness coach. Open for collabs",
            "I'm 15 weeks pregnant",
            "I'm 15 years sober",
            "25yo",
            "I'm 25, mom of two",
            "mom of a 5 year old",
            "Mama von Max (15 Jahre alt)",
            "Maman d'un garçon de 8 ans",
            "depuis 15 ans je cuisine",
            "J'ai 15 ans d'expérience",
            "tengo 15 años de experiencia",
            "hace 10 años",
            "18 years old",
            "15 countries",
            "12 Jahre Erfahrung",
            "dog mom, pup is 7yo",
            "my son is 15 years old",
            "raising a 15yo son",
            "my 12yo dog rules the house",
            "4 yrs vegan",
            "dancing since I was 5 years old",
            "started at age 12",
            "reiten seit ich 10 Jahre alt war",
            "Workshops: 12, 13, 14 June",
            "5, 6, 7, 8!",
            "Top 10 recipes",
            "I'm 10 minutes away",
            "Age 30, two kids",
            "Class of 16",
        ] {
            assert!(!in_text(bio), "{bio}");
        }
    }
}
