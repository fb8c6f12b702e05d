//! Counts as people and exports write them: `12,345`, `12.3K`, `1,2 Mio`, `1.234.567`, `12 345`, `1.2E+06`.

use domain::text::nfkc;

/// No network has this many followers; a larger number is a phone number or an id in the wrong column.
const LARGEST: f64 = 10_000_000_000.0;

/// Reads a count; the error is a sentence for a person.
///
/// With a unit, a single separator is a decimal one (`1.234K` is 1,234). Without, separators must group by three
/// (`1.234` is 1,234), or be followed by zeros only (`1234.0`).
pub fn parse(text: &str) -> Result<u64, &'static str> {
    const NOT_A_NUMBER: &str = "it is not a number such as 12345, 12,345, 12.3K or 1,2 Mio";
    if text.len() > 64 {
        return Err(NOT_A_NUMBER);
    }
    let folded = nfkc(text).to_lowercase();
    let mut rest = folded.trim().trim_start_matches(['~', '≈', '>', '+']).trim_start();
    if rest.starts_with(['-', '\u{2212}']) {
        return Err("it is negative");
    }
    for word in ["followers", "follower", "subscribers", "subs", "fans", "abonnenten", "abonnés", "seguidores"] {
        rest = rest.strip_suffix(word).unwrap_or(rest);
    }
    let rest = rest.trim().trim_end_matches('+').trim_end();
    if let Some(count) = scientific(rest) {
        return bounded(count);
    }
    let digits_end = rest
        .char_indices()
        .find(|(_, c)| !(c.is_ascii_digit() || is_separator(*c)))
        .map_or(rest.len(), |(index, _)| index);
    let (number, unit) = rest.split_at(digits_end);
    let unit = unit.trim().trim_end_matches('.');
    let factor = match unit {
        "" => None,
        "k" | "tsd" | "tausend" | "mil" | "mila" | "thousand" | "rb" | "tys" => Some(1e3),
        "m" | "mio" | "mln" | "mn" | "mm" | "million" | "millions" | "millionen" | "jt" | "mi" | "mill" => Some(1e6),
        "b" | "bn" | "mrd" | "billion" | "md" => Some(1e9),
        "万" | "萬" => Some(1e4),
        "亿" | "億" => Some(1e8),
        "lakh" | "lac" | "l" => Some(1e5),
        "crore" | "cr" => Some(1e7),
        _ => return Err(NOT_A_NUMBER),
    };
    let number = number.trim();
    if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.ends_with(|c: char| c.is_ascii_digit()) {
        return Err(NOT_A_NUMBER);
    }
    let count = match factor {
        Some(factor) => decimal(number).ok_or(NOT_A_NUMBER)? * factor,
        None => whole(number).ok_or("it is not a whole number")?,
    };
    bounded(count)
}

fn bounded(count: f64) -> Result<u64, &'static str> {
    if count > LARGEST { Err("it is larger than any audience") } else { Ok(count.round() as u64) }
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || ".,'’_".contains(c)
}

/// `1.2e+06`, as spreadsheets write large numbers.
fn scientific(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('e')?;
    let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
    let plain = !mantissa.is_empty() && mantissa.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b',');
    let small = exponent.len() <= 2 && exponent.bytes().all(|b| b.is_ascii_digit());
    (plain && small).then(|| format!("{}e{exponent}", mantissa.replace(',', ".")).parse().ok()).flatten()
}

/// A number before a unit: the last separator is the decimal one, unless it repeats.
fn decimal(text: &str) -> Option<f64> {
    let Some(last) = text.char_indices().rfind(|(_, c)| ".,".contains(*c)) else {
        return whole(text);
    };
    let (head, tail) = (&text[..last.0], &text[last.0 + 1..]);
    if head.contains(last.1) {
        return whole(text);
    }
    if !tail.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let head = whole(head)?;
    format!("{head}.{tail}").parse().ok()
}

/// A whole number, perhaps grouped by three; or with a fraction of zeros.
fn whole(text: &str) -> Option<f64> {
    let groups: Vec<&str> = text.split(is_separator).collect();
    if !groups.iter().all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let (first, others) = groups.split_first()?;
    let by_three = !others.is_empty() && first.len() <= 3 && others.iter().all(|group| group.len() == 3);
    // India groups by two after the last three: 12,34,567.
    let indian = others.len() >= 2
        && first.len() <= 2
        && others.last().is_some_and(|group| group.len() == 3)
        && others[..others.len() - 1].iter().all(|group| group.len() == 2);
    let zeros = others.last().is_some_and(|group| group.bytes().all(|byte| byte == b'0') && group.len() <= 2);
    if others.is_empty() || by_three || indian {
        groups.concat().parse().ok()
    } else if zeros {
        whole(&text[..text.rfind(is_separator)?])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("12345", 12_345),
            ("12,345", 12_345),
            ("12.345", 12_345),
            ("12 345", 12_345),
            ("12\u{202F}345", 12_345),
            ("12'345", 12_345),
            ("1.234.567", 1_234_567),
            ("1,234,567", 1_234_567),
            ("12,34,567", 1_234_567),
            ("12345.0", 12_345),
            ("12,345.00", 12_345),
            ("12.3K", 12_300),
            ("12,3k", 12_300),
            ("1.2M", 1_200_000),
            ("1,2 Mio", 1_200_000),
            ("1,2 Mio.", 1_200_000),
            ("3.4 Tsd.", 3_400),
            ("12 mil", 12_000),
            ("1.5万", 15_000),
            ("2 lakh", 200_000),
            ("1.2E+06", 1_200_000),
            ("~10K+", 10_000),
            ("１２Ｋ", 12_000),
            ("15.2K followers", 15_200),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_count_is_refused() {
        for text in [
            "",
            "many",
            "-5",
            "12.34",
            "1.2345",
            "1,2,3",
            "K",
            ".5",
            "5.",
            "12 apples",
            "1e99",
            "0x10",
            "+49 170 1234567890123",
        ] {
            assert!(parse(text).is_err(), "{text:?} was taken as {:?}", parse(text));
        }
    }

    proptest! {
        #[test]
        fn every_grouping_of_a_number_is_that_number(count in 0_u64..10_000_000_000, separator in prop::sample::select(vec![',', '.', ' ', '\u{A0}', '\''])) {
            let digits = count.to_string();
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(separator);
                }
                grouped.push(digit);
            }
            prop_assert_eq!(parse(&grouped), Ok(count));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
