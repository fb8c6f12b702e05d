//! Durations and sizes as people write them: `30s`, `1h30m`, `64KiB`.

/// Durations: one or more `number unit` pairs, with the units `ms`, `s`, `m`, `h` and `d`, as in `200ms`, `30s`, `1h30m`, `1.5s`.
///
/// Use it with `#[serde(with = "service::config::duration")]` on a [`std::time::Duration`].
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    const FORM: &str = "expected a duration such as \"200ms\", \"30s\", \"5m\", \"1h30m\" or \"7d\"";

    /// Reads a duration from text.
    pub fn parse(text: &str) -> Result<Duration, &'static str> {
        let mut rest = text.trim();
        let mut seconds = 0.0;
        if rest.is_empty() {
            return Err(FORM);
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(FORM)?;
            let number: f64 = rest[..digits].parse().map_err(|_| FORM)?;
            rest = rest[digits..].trim_start();
            let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_end]).ok_or(FORM)?;
            seconds += number * factor;
            rest = rest[unit_end..].trim_start();
        }
        Duration::try_from_secs_f64(seconds).map_err(|_| FORM)
    }

    /// For serde's `with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }

    /// For serde's `with`: in milliseconds when it isn't a whole number of seconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if duration.subsec_millis() == 0 {
            serializer.collect_str(&format_args!("{}s", duration.as_secs()))
        } else {
            serializer.collect_str(&format_args!("{}ms", duration.as_millis()))
        }
    }

    /// The same for `Option<Duration>`, where an empty text means "not set".
    pub mod option {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, de};

        /// For serde's `deserialize_with`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| super::parse(&text)).transpose().map_err(de::Error::custom)
        }
    }
}

/// Sizes in bytes: a number with an optional unit `B`, `kB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers of 1024).
///
/// Use it with `#[serde(with = "service::config::size")]` on a `u64`.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de};

    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    const FORM: &str = "expected a size such as \"512\", \"64KiB\", \"1MiB\" or \"10MB\"";

    /// Reads a size from text, in bytes.
    pub fn parse(text: &str) -> Result<u64, &'static str> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| FORM)?;
        let unit = text[digits..].trim_start();
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(FORM)?;
        number.checked_mul(*factor).ok_or(FORM)
    }

    /// For serde's `with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }

    /// For serde's `with`: plain bytes.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, size};

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, milliseconds) in
            [("200ms", 200), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("0s", 0)]
        {
            assert_eq!(duration::parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "30", "s", "30 parsecs", "-1s", "1..2s", "1e9d", "9999999999999999999999d"] {
            assert!(duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("512", 512), ("64KiB", 65_536), ("10 MB", 10_000_000), ("1gib", 1 << 30)] {
            assert_eq!(size::parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "1.5MB", "10 furlongs", "-1", "99999999999999GiB"] {
            assert!(size::parse(text).is_err(), "{text}");
        }
    }
}
