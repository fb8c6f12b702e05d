use proptest::prelude::*;

use super::{gazetteer::CODES, *};

fn found(text: &str) -> Option<&'static str> {
    in_location(text).map(|country| CODES.split(' ').find(|code| *code == country.as_str()).unwrap())
}

#[test]
fn clear_places_are_found() {
    for (text, expected) in [
        ("Austin, TX", "US"),
        ("Austin TX", "US"),
        ("Los Angeles, CA", "US"),
        ("Toronto, Canada", "CA"),
        ("Toronto, CA", "CA"),
        ("Deutschland", "DE"),
        ("München", "DE"),
        ("Berlin 🇩🇪", "DE"),
        ("Berlin Germany", "DE"),
        ("🇺🇸", "US"),
        ("London | UK", "GB"),
        ("London (UK)", "GB"),
        ("São Paulo, Brasil", "BR"),
        ("Paris, Texas", "US"),
        ("Paris, TX", "US"),
        ("Paris Texas", "US"),
        ("Paris, Texas, USA", "US"),
        ("Springfield, IL", "US"),
        ("Springfield, IN", "US"),
        ("Austin, TX, USA", "US"),
        ("London, Ontario", "CA"),
        ("London, Ontario, Canada", "CA"),
        ("Brooklyn, New York", "US"),
        ("New York, NY", "US"),
        ("LA, California", "US"),
        ("Vienna, Austria", "AT"),
        ("Frankfurt am Main, Germany", "DE"),
        ("Ciudad de México", "MX"),
        ("Sverige", "SE"),
        ("Somewhere, TX", "US"),
        ("FR", "FR"),
        ("austin, texas, usa", "US"),
        ("living in Spain", "ES"),
        ("Kreuzberg, Berlin, Germany", "DE"),
        ("Berlin & Hamburg", "DE"),
        ("Cape Town, South Africa", "ZA"),
        ("東京", "JP"),
    ] {
        assert_eq!(found(text), Some(expected), "{text}");
    }
}

#[test]
fn what_is_not_clear_stays_unknown() {
    for text in [
        "",
        "the moon",
        "worldwide 🌍",
        "🇩🇪 → 🇺🇸",
        "Georgia",
        "CA",
        "Someplace, IN",
        "everywhere & nowhere",
        "Berlin, TX",
        "at home",
        "ZZ",
        "in my head",
        "Little Italy",
        "New England",
    ] {
        assert_eq!(found(text), None, "{text}");
    }
}

#[test]
fn several_countries_are_unknown() {
    for text in [
        "London | New York",
        "Munich / New York",
        "Toronto | Texas",
        "Berlin, from California",
        "Berlin / London",
        "London, New York",
        "London, Paris",
        "Paris, London, UK",
        "London, California",
        "Berlin, Spain",
        "London & Texas",
        "London and Texas",
        "UK and Spain",
        "Spain, formerly Texas",
        "living in Berlin, California born",
        "Dubai ✈️ Germany",
        "London 🇺🇸",
        "USA / Canada",
        "Paris, France – Austin, TX",
        "NYC to London",
        "Moscow, Texas",
    ] {
        assert_eq!(found(text), None, "{text}");
    }
}

#[test]
fn a_continent_is_unknown() {
    for text in [
        "Latin America",
        "North America",
        "South America",
        "América Latina",
        "Südamerika",
        "Europe",
        "Europa",
        "somewhere in Europe",
        "EU",
        "Africa",
        "Southeast Asia",
        "Middle East",
        "Scandinavia",
        "USA & Europe",
    ] {
        assert_eq!(found(text), None, "{text}");
    }
}

#[test]
fn a_country_field_takes_codes_and_names() {
    assert_eq!(named("us").unwrap().as_str(), "US");
    assert_eq!(named("America").unwrap().as_str(), "US", "in this field it is a country");
    assert_eq!(named("CA").unwrap().as_str(), "CA", "in this field it is Canada");
    assert_eq!(named("Österreich").unwrap().as_str(), "AT");
    assert_eq!(named("zz"), None);
    assert_eq!(named("Atlantis"), None);
    assert_eq!(named("USA, Canada"), None);
}

proptest! {
    #[test]
    fn country_parser_never_panics(text in "(\\PC|Paris|, |Texas| TX| from ){0,60}") {
        let _ = in_location(&text);
        let _ = named(&text);
    }
}
