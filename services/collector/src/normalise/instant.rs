//! Points in time, in the forms that cannot be misread: `03/04/2026` is two days, depending on who wrote it.

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339, macros::format_description,
};

/// The time of a text such as `2026-03-04T15:30:00Z`, `2026-03-04 15:30` or `2026-03-04`; UTC where no offset is named, and the
/// beginning of the day where no time is. The error is a sentence for a person.
pub fn parse(text: &str) -> Result<OffsetDateTime, &'static str> {
    const WRONG: &str = "it is no time such as 2026-03-04T15:30:00Z, or day such as 2026-03-04";
    let text = text.trim();
    if text.len() > 64 {
        return Err(WRONG);
    }
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Ok(date.with_time(Time::MIDNIGHT).assume_utc());
    }
    let text = text.replacen(' ', "T", 1);
    let local = format_description!("[year]-[month]-[day]T[hour]:[minute][optional [:[second]]]");
    OffsetDateTime::parse(&text, &Rfc3339)
        .ok()
        .or_else(|| PrimitiveDateTime::parse(&text, local).ok().map(PrimitiveDateTime::assume_utc))
        .ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    #[test]
    fn clear_times_are_read() {
        let noon = datetime!(2026-03-04 12:00 UTC);
        for text in ["2026-03-04T12:00:00Z", " 2026-03-04T14:00:00+02:00 ", "2026-03-04 12:00", "2026-03-04 12:00:00"] {
            assert_eq!(parse(text), Ok(noon), "{text}");
        }
        assert_eq!(parse("2026-03-04"), Ok(datetime!(2026-03-04 0:00 UTC)));
    }

    #[test]
    fn what_could_be_another_day_is_no_time() {
        for text in ["", "03/04/2026", "04.03.2026", "2026-13-01", "2026-02-30", "yesterday", "1772625600", "20260304"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
