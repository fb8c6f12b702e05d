//! The country of a location, when it is clear.
//!
//! A wrong country could let a mail through that the law forbids, so a text that points to two countries, or to a
//! continent, points to none. What stands between commas is one place from the small to the large (`Austin, TX, USA`);
//! every other separator begins another place. A two-letter code counts alone when it can only be a country, and else
//! only confirms a city.

mod gazetteer;

use domain::lead::Country;

use self::gazetteer::{NAME_WORDS, Place, code, fold, is_city_too, is_state_code, place, twin_town};

/// The country of a field that is meant to hold one: a code or a name, or else anything that [`in_location`] reads.
pub fn named(text: &str) -> Option<Country> {
    if text.len() > 200 {
        return None;
    }
    let text = text.trim();
    // Where a country is asked for, it is no continent.
    let america = || text.eq_ignore_ascii_case("america").then(|| code("US")).flatten();
    code(text).or_else(america).or_else(|| in_location(text))
}

/// The country of a free text such as `Austin, TX`, `Berlin 🇩🇪` or `London | UK`.
pub fn in_location(text: &str) -> Option<Country> {
    if text.len() > 400 {
        return None;
    }
    let mut evidence = Evidence::default();
    for flag in flags(text) {
        evidence.add(flag);
    }
    let plain: String = text.chars().filter(|c| !is_regional_indicator(*c)).collect();
    let begins_another = |c: char| ";|/•·→&+\n–—".contains(c);
    let chains = plain.split(begins_another).map(Chain::of).filter(|chain| !chain.parts.is_empty());
    for chain in chains {
        chain.read(&mut evidence);
    }
    evidence.country()
}

/// What points to a country, and whether something points elsewhere.
#[derive(Debug, Default)]
struct Evidence {
    found: Option<Country>,
    /// Places that stand inside of a phrase: they can contradict, but not tell.
    mentioned: Vec<Country>,
    /// Codes that stand alone, and whether anything stands beside them.
    codes: Vec<(String, bool)>,
    unclear: bool,
}

impl Evidence {
    fn add(&mut self, country: Country) {
        self.unclear |= self.found.is_some_and(|found| found != country);
        self.found = Some(country);
    }

    fn country(mut self) -> Option<Country> {
        // Last, since `LA` in `LA, California` says nothing that the state doesn't.
        for (text, has_other_parts) in std::mem::take(&mut self.codes) {
            self.add_code(&text, has_other_parts);
        }
        self.found.filter(|found| !self.unclear && self.mentioned.iter().all(|mentioned| mentioned == found))
    }
}

/// One part of a place.
#[derive(Debug)]
enum Part {
    /// A listed name, folded.
    Named(String, Place),
    /// Two capital letters.
    Code(String),
    /// Other words.
    Words(String),
}

/// The parts of one place, from the small to the large.
#[derive(Debug)]
struct Chain {
    parts: Vec<Part>,
}

impl Chain {
    fn of(text: &str) -> Self {
        let segments = text.split([',', '(', ')', '[', ']']).map(str::trim).filter(|segment| !segment.is_empty());
        Self { parts: segments.flat_map(parts).collect() }
    }

    fn read(&self, evidence: &mut Evidence) {
        let mut at = 0;
        while at < self.parts.len() {
            let after = self.parts.get(at + 1);
            match (&self.parts[at], after) {
                (Part::Named(city, Place::City(_)), Some(Part::Named(region, Place::Region(_))))
                    if twin_town(city, region).is_some() && !is_city_too(region) =>
                {
                    if let Some(country) = twin_town(city, region) {
                        evidence.add(country);
                    }
                    at += 1;
                }
                (Part::Named(city, Place::City(country)), Some(Part::Code(text))) => {
                    match twin_town(city, text) {
                        Some(twin) => evidence.add(twin),
                        None => evidence.add_city_with_code(*country, text),
                    }
                    at += 1;
                }
                (Part::Named(_, Place::Continent), _) => evidence.unclear = true,
                (Part::Named(_, place), _) => place.country().into_iter().for_each(|country| evidence.add(country)),
                (Part::Code(text), _) => evidence.codes.push((text.clone(), self.parts.len() > 1)),
                (Part::Words(words), _) => mentions(words, evidence),
            }
            at += 1;
        }
    }
}

impl Evidence {
    /// A city with a state's code, or with its own country's code, is confirmed; any other code contradicts.
    fn add_city_with_code(&mut self, city: Country, text: &str) {
        let confirmed = (is_state_code(text) && city.as_str() == "US") || code(text) == Some(city);
        self.unclear |= !confirmed;
        self.add(city);
    }

    /// A code without a known city before it.
    fn add_code(&mut self, text: &str, has_other_parts: bool) {
        match (is_state_code(text), code(text)) {
            (false, Some(country)) => self.add(country),
            // An unknown place in a state that isn't also a country's code.
            (true, None) if has_other_parts => code("US").into_iter().for_each(|country| self.add(country)),
            // Beside a country that it agrees with it says nothing new: `Austin, USA, TX`.
            (true, _) if self.found.is_some_and(|found| found.as_str() == "US") => {}
            (_, Some(country)) if self.found == Some(country) => {}
            _ => self.unclear = true,
        }
    }
}

/// A segment as one part, or as two where it is two (`Austin TX`, `Berlin Germany`).
fn parts(segment: &str) -> Vec<Part> {
    let whole = fold(segment);
    if let Some(place) = place(&whole) {
        return vec![Part::Named(whole, place)];
    }
    if is_code(segment) {
        return vec![Part::Code(segment.to_owned())];
    }
    for (at, _) in segment.match_indices(' ') {
        let (head, tail) = (fold(&segment[..at]), segment[at + 1..].trim());
        let Some(head_place @ Place::City(_)) = place(&head) else { continue };
        let tail_part = match place(&fold(tail)) {
            Some(place) => Some(Part::Named(fold(tail), place)),
            None => is_code(tail).then(|| Part::Code(tail.to_owned())),
        };
        if let Some(tail_part) = tail_part {
            return vec![Part::Named(head, head_place), tail_part];
        }
    }
    vec![Part::Words(segment.to_owned())]
}

/// Words before a name that make another place of it: `New England`, `Little Italy`.
const OTHER_PLACE: [&str; 3] = ["new", "little", "captain"];

/// What stands in a phrase: a country or region at its end counts (`living in Spain`), everything else is only mentioned.
fn mentions(phrase: &str, evidence: &mut Evidence) {
    let folded = fold(phrase);
    let words: Vec<&str> = folded.split(' ').collect();
    let mut at = 0;
    while at < words.len() {
        let longest = (at + 1..=words.len().min(at + NAME_WORDS)).rev();
        let found = longest.map(|end| (end, words[at..end].join(" "))).find_map(|(end, name)| {
            place(&name).or_else(|| place(name.trim_matches(['.', '\'', '-']))).map(|place| (end, place, name))
        });
        let Some((end, place, name)) = found else {
            at += 1;
            continue;
        };
        let is_other = at > 0 && OTHER_PLACE.contains(&words[at - 1]);
        match place {
            Place::Continent => evidence.unclear = true,
            _ if is_other => {}
            Place::Country(country) | Place::Region(country) if end == words.len() && name.chars().count() > 3 => {
                evidence.add(country);
            }
            Place::Country(country) | Place::Region(country) | Place::City(country) => evidence.mentioned.push(country),
        }
        at = end;
    }
}

fn is_code(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn is_regional_indicator(c: char) -> bool {
    ('\u{1F1E6}'..='\u{1F1FF}').contains(&c)
}

/// The countries of the flags in a text: a flag is two regional indicators that spell the code.
fn flags(text: &str) -> Vec<Country> {
    if text.is_ascii() {
        return Vec::new();
    }
    let letters: Vec<Option<char>> = text
        .chars()
        .map(|c| is_regional_indicator(c).then(|| char::from(b'A' + (c as u32 - 0x1_F1E6) as u8)))
        .collect();
    let mut flags = Vec::new();
    let mut at = 0;
    while at + 1 < letters.len() {
        if let (Some(first), Some(second)) = (letters[at], letters[at + 1]) {
            flags.extend(code(&format!("{first}{second}")));
            at += 2;
        } else {
            at += 1;
        }
    }
    flags
}

#[cfg(test)]
mod tests;
