//! "Did you mean": the nearest declared name to a mistyped one.

/// The candidate that is nearest to `name`, when it is near enough to be what was meant. Case, `.`, `-` and `_` don't count.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = plain(name);
    let limit = (name.len() / 4).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> Vec<char> {
    name.chars().map(|c| if matches!(c, '.' | '-') { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Levenshtein distance, by the two-row form of the Wagner–Fischer algorithm.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    let mut current = vec![0; b.len() + 1];
    for (i, from) in a.iter().enumerate() {
        current[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = previous[j] + usize::from(from != to);
            current[j + 1] = substituted.min(previous[j + 1] + 1).min(current[j] + 1);
        }
        std::mem::swap(&mut previous, &mut current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        let known = ["mailer.smtp.host", "mailer.smtp.port", "database.url"];
        assert_eq!(nearest("mailer.smtp.prot", known), Some("mailer.smtp.port"));
        assert_eq!(nearest("mailer.smtp_host", known), Some("mailer.smtp.host"));
        assert_eq!(nearest("DATABASE_URI", known), Some("database.url"));
        assert_eq!(nearest("weather", known), None);
    }
}
