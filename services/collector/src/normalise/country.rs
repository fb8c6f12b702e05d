//! The country of a location, when it is clear.
//!
//! A wrong country could let a mail through that the law forbids, so a text that points to two countries points to
//! none. A country's name, its flag, or a state's name counts more than a city's; a two-letter code counts alone when
//! it can only be a country, and else only confirms a city.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use domain::lead::Country;
use unicode_normalization::UnicodeNormalization;

/// Officially assigned codes of ISO 3166-1.
const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE \
GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR \
KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI \
NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS \
ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Codes of states in the United States, for `Austin, TX`.
const STATE_CODES: &str = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH \
OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC";

/// Names of countries, in the languages creators write them in.
const NAMES: &[(&str, &str)] = &[
    (
        "US",
        "united states|united states of america|usa|u.s.a.|u.s.|estados unidos|eeuu|etats-unis|vereinigte staaten|stati uniti|america",
    ),
    (
        "GB",
        "united kingdom|great britain|uk|u.k.|england|scotland|wales|northern ireland|royaume-uni|reino unido|vereinigtes konigreich|grossbritannien|regno unito",
    ),
    ("IE", "ireland|irland|irlande|irlanda|eire|republic of ireland"),
    ("CA", "canada|kanada|british columbia|ontario|quebec|alberta|nova scotia|manitoba"),
    ("AU", "australia|australien|australie|new south wales|queensland|tasmania"),
    ("NZ", "new zealand|neuseeland|nouvelle-zelande|nueva zelanda|aotearoa"),
    (
        "DE",
        "germany|deutschland|allemagne|alemania|germania|alemanha|duitsland|bayern|bavaria|nordrhein-westfalen|sachsen|hessen",
    ),
    ("AT", "austria|osterreich|autriche|oesterreich|oostenrijk|tirol"),
    ("CH", "switzerland|schweiz|suisse|suiza|svizzera|suica|zwitserland"),
    ("FR", "france|frankreich|francia|franca|frankrijk|bretagne|provence"),
    ("ES", "spain|espana|spanien|espagne|spagna|espanha|spanje|catalunya|cataluna|andalucia|catalonia"),
    ("PT", "portugal|portogallo"),
    ("IT", "italy|italia|italien|italie|toscana|sicilia|tuscany"),
    ("NL", "netherlands|the netherlands|nederland|niederlande|pays-bas|paises bajos|holland|paesi bassi"),
    ("BE", "belgium|belgien|belgique|belgie|belgica|belgio"),
    ("LU", "luxembourg|luxemburg"),
    ("DK", "denmark|danmark|danemark|dinamarca|danimarca"),
    ("SE", "sweden|sverige|schweden|suede|suecia|svezia|zweden"),
    ("NO", "norway|norge|norwegen|norvege|noruega|norvegia"),
    ("FI", "finland|suomi|finnland|finlande|finlandia"),
    ("EE", "estonia|eesti|estland|estonie"),
    ("LV", "latvia|latvija|lettland"),
    ("LT", "lithuania|lietuva|litauen"),
    ("PL", "poland|polska|polen|pologne|polonia"),
    ("CZ", "czechia|czech republic|cesko|tschechien|ceska republika"),
    ("SK", "slovakia|slovensko|slowakei"),
    ("HU", "hungary|magyarorszag|ungarn|hongrie"),
    ("RO", "romania|rumanien|roumanie"),
    ("BG", "bulgaria|bulgarien"),
    ("GR", "greece|griechenland|grece|grecia|hellas"),
    ("HR", "croatia|hrvatska|kroatien"),
    ("TR", "turkey|turkiye|turkei|turquie|turquia"),
    ("UA", "ukraine|ucrania|ucraina"),
    ("IN", "india|indien|inde|bharat|maharashtra|karnataka|tamil nadu|kerala"),
    ("PK", "pakistan"),
    ("BD", "bangladesh"),
    ("PH", "philippines|filipinas|pilipinas|philippinen"),
    ("ID", "indonesia|indonesien"),
    ("MY", "malaysia"),
    ("SG", "singapore|singapur"),
    ("TH", "thailand"),
    ("VN", "vietnam|viet nam"),
    ("JP", "japan|nippon|japon|日本"),
    ("KR", "south korea|republic of korea|korea|한국"),
    ("CN", "china"),
    ("TW", "taiwan"),
    ("AE", "united arab emirates|uae|u.a.e."),
    ("SA", "saudi arabia|ksa"),
    ("IL", "israel"),
    ("EG", "egypt|agypten|egypte"),
    ("MA", "morocco|maroc|marruecos|marokko"),
    ("NG", "nigeria"),
    ("KE", "kenya|kenia"),
    ("GH", "ghana"),
    ("ZA", "south africa|sudafrika|sudafrica"),
    ("MX", "mexico|mexiko|mexique|messico|jalisco|nuevo leon"),
    ("BR", "brazil|brasil|brasilien|bresil|brasile|minas gerais|bahia"),
    ("AR", "argentina|argentinien|argentine"),
    ("CL", "chile"),
    ("CO", "colombia|kolumbien|colombie"),
    ("PE", "peru|perou"),
    // States that name their country; those that share their name with a country or a capital elsewhere are left out.
    (
        "US",
        "alabama|alaska|arizona|arkansas|california|colorado|connecticut|delaware|florida|hawaii|idaho|illinois|indiana|iowa|kansas|kentucky|louisiana|maine|maryland|massachusetts|michigan|minnesota|mississippi|missouri|montana|nebraska|nevada|new hampshire|new jersey|new mexico|new york|north carolina|north dakota|ohio|oklahoma|oregon|pennsylvania|rhode island|south carolina|south dakota|tennessee|texas|utah|vermont|virginia|west virginia|wisconsin|wyoming|washington dc|washington d.c.",
    ),
];

/// Cities, large ones that are hardly meant otherwise.
const CITIES: &[(&str, &str)] = &[
    (
        "US",
        "new york city|nyc|brooklyn|los angeles|l.a.|chicago|houston|phoenix|philadelphia|san antonio|san diego|dallas|austin|san francisco|seattle|denver|nashville|boston|portland|las vegas|miami|atlanta|minneapolis|tampa|orlando|charlotte|salt lake city|detroit|brooklyn ny|sf bay area|bay area",
    ),
    ("GB", "london|manchester|leeds|liverpool|glasgow|edinburgh|bristol|cardiff|belfast|brighton"),
    ("IE", "dublin|galway|cork"),
    ("CA", "toronto|vancouver|montreal|calgary|ottawa"),
    ("AU", "sydney|melbourne|brisbane|perth|adelaide|gold coast|canberra"),
    ("NZ", "auckland|wellington|christchurch"),
    (
        "DE",
        "berlin|hamburg|munchen|munich|muenchen|koln|cologne|koeln|frankfurt|stuttgart|dusseldorf|leipzig|dresden|hannover|nurnberg",
    ),
    ("AT", "wien|vienna|graz|salzburg|innsbruck|linz"),
    ("CH", "zurich|zuerich|geneve|geneva|basel|bern|lausanne|luzern"),
    ("FR", "paris|lyon|marseille|toulouse|bordeaux|lille|nantes|strasbourg|montpellier|nice, france"),
    ("ES", "madrid|barcelona|sevilla|malaga|bilbao|zaragoza"),
    ("PT", "lisboa|lisbon|lissabon"),
    ("IT", "roma|rome|milano|milan|napoli|naples, italy|torino|turin|firenze|florence, italy|bologna|venezia|palermo"),
    ("NL", "amsterdam|rotterdam|den haag|the hague|utrecht|eindhoven"),
    ("BE", "brussels|bruxelles|brussel|antwerpen|antwerp|gent"),
    ("DK", "copenhagen|kobenhavn|københavn|aarhus"),
    ("SE", "stockholm|goteborg|gothenburg|malmo|uppsala"),
    ("NO", "oslo|bergen|trondheim"),
    ("FI", "helsinki|tampere|turku|espoo"),
    ("EE", "tallinn|tartu"),
    ("PL", "warszawa|warsaw|krakow|wroclaw|gdansk|poznan"),
    ("CZ", "praha|prague|prag|brno"),
    ("HU", "budapest"),
    ("RO", "bucharest|bucuresti|cluj-napoca"),
    ("GR", "athens, greece|thessaloniki"),
    ("TR", "istanbul|ankara|izmir"),
    ("UA", "kyiv|kiev|lviv"),
    ("IN", "mumbai|delhi|new delhi|bangalore|bengaluru|hyderabad|chennai|kolkata|pune|jaipur|ahmedabad"),
    ("PK", "karachi|lahore|islamabad"),
    ("PH", "manila|quezon city|cebu|cebu city|makati|davao"),
    ("ID", "jakarta|bali|bandung|surabaya"),
    ("MY", "kuala lumpur"),
    ("TH", "bangkok|chiang mai"),
    ("JP", "tokyo|osaka|kyoto|東京"),
    ("KR", "seoul|busan|서울"),
    ("AE", "dubai|abu dhabi"),
    ("NG", "lagos|abuja"),
    ("KE", "nairobi"),
    ("ZA", "cape town|johannesburg|durban"),
    ("MX", "ciudad de mexico|mexico city|cdmx|guadalajara|monterrey|tijuana|puebla"),
    ("BR", "sao paulo|rio de janeiro|belo horizonte|brasilia|curitiba|porto alegre|recife|fortaleza|salvador, bahia"),
    ("AR", "buenos aires|rosario"),
    ("CL", "santiago de chile"),
    ("CO", "bogota|medellin"),
    ("PE", "lima"),
];

struct Gazetteer {
    names: HashMap<String, Country>,
    cities: HashMap<String, Country>,
}

static GAZETTEER: LazyLock<Gazetteer> = LazyLock::new(|| {
    let table = |entries: &[(&str, &str)]| {
        entries
            .iter()
            .flat_map(|(code, names)| names.split('|').map(move |name| (code, name)))
            .map(|(code, name)| (fold(name), Country::parse(code).expect("the table's codes are well formed")))
            .collect()
    };
    Gazetteer { names: table(NAMES), cities: table(CITIES) }
});

/// The country of a field that is meant to hold one: a code or a name, or else anything that [`in_location`] reads.
pub fn named(text: &str) -> Option<Country> {
    if text.len() > 200 {
        return None;
    }
    code(text.trim()).or_else(|| in_location(text))
}

/// The country of a free text such as `Austin, TX`, `Berlin 🇩🇪` or `London | UK`.
pub fn in_location(text: &str) -> Option<Country> {
    if text.len() > 400 {
        return None;
    }
    let mut strong = Evidence::default();
    let mut weak = Evidence::default();
    for flag in flags(text) {
        strong.add(flag);
    }
    let plain: String = text.chars().filter(|c| !is_regional_indicator(*c)).collect();
    let gazetteer = &*GAZETTEER;
    let whole = fold(&plain);
    if let Some(city) = gazetteer.cities.get(&whole) {
        weak.add(*city);
    }
    let mut codes = Vec::new();
    let split = |c: char| ",;|/•·()[]→&+\n–—".contains(c);
    let segments: Vec<&str> = plain.split(split).map(str::trim).filter(|segment| !segment.is_empty()).collect();
    for segment in &segments {
        let folded = fold(segment);
        let is_code = segment.len() == 2 && segment.bytes().all(|byte| byte.is_ascii_uppercase());
        if let Some(country) = gazetteer.names.get(&folded) {
            strong.add(*country);
        } else if let Some(city) = gazetteer.cities.get(&folded) {
            weak.add(*city);
        } else if is_code {
            codes.push(*segment);
        } else if let Some((head, tail)) = segment.rsplit_once(' ') {
            // `Austin TX`, `Berlin Germany`
            let tail_country = gazetteer.names.get(&fold(tail));
            if let (Some(city), true) = (gazetteer.cities.get(&fold(head)), tail.len() == 2) {
                weak.add(*city);
                codes.push(tail);
            } else if let Some(country) = tail_country.filter(|_| tail.chars().count() > 3) {
                strong.add(*country);
            }
        }
    }
    if strong.conflicting || weak.conflicting {
        return strong.alone();
    }
    if let Some(country) = strong.found {
        return Some(country);
    }
    for text in &codes {
        let state = STATE_CODES.split(' ').any(|state| state == *text);
        let country = code(text);
        match (weak.found, country) {
            // A city with a state's code, or with its own country's code, is confirmed; any other code contradicts.
            (Some(city), _) if state && city.as_str() == "US" => {}
            (Some(city), Some(country)) if city == country => {}
            (None, Some(country)) if !state => weak.add(country),
            // An unknown place in a state that isn't also a country's code.
            (None, None) if state && segments.len() > 1 => weak.add(Country::parse("US").ok()?),
            _ => return None,
        }
    }
    weak.alone()
}

/// What points to a country, and whether it points to two.
#[derive(Default)]
struct Evidence {
    found: Option<Country>,
    conflicting: bool,
}

impl Evidence {
    fn add(&mut self, country: Country) {
        self.conflicting |= self.found.is_some_and(|found| found != country);
        self.found = Some(country);
    }

    fn alone(&self) -> Option<Country> {
        self.found.filter(|_| !self.conflicting)
    }
}

fn code(text: &str) -> Option<Country> {
    static ASSIGNED: LazyLock<HashSet<&str>> = LazyLock::new(|| CODES.split(' ').collect());
    Country::parse(text).ok().filter(|country| ASSIGNED.contains(country.as_str()))
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

/// Lower case, without accents, with single spaces.
fn fold(text: &str) -> String {
    let folded: String = text
        .nfkd()
        .filter(|c| !('\u{300}'..='\u{36F}').contains(c))
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_alphanumeric() || ".,-'".contains(c) { c } else { ' ' })
        .collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<&'static str> {
        in_location(text).map(|country| CODES.split(' ').find(|code| *code == country.as_str()).unwrap())
    }

    #[test]
    fn clear_places_are_found() {
        for (text, expected) in [
            ("Austin, TX", "US"),
            ("Los Angeles, CA", "US"),
            ("Toronto, Canada", "CA"),
            ("Deutschland", "DE"),
            ("München", "DE"),
            ("Berlin 🇩🇪", "DE"),
            ("🇺🇸", "US"),
            ("London | UK", "GB"),
            ("São Paulo, Brasil", "BR"),
            ("Paris, Texas", "US"),
            ("London, Ontario", "CA"),
            ("Ciudad de México", "MX"),
            ("Sverige", "SE"),
            ("Somewhere, TX", "US"),
            ("FR", "FR"),
            ("austin, texas, usa", "US"),
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
            "Berlin / London",
            "🇩🇪 → 🇺🇸",
            "Georgia",
            "CA",
            "Springfield, IN",
            "everywhere & nowhere",
            "Berlin, TX",
            "at home",
            "ZZ",
            "in my head",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn a_country_field_takes_codes_and_names() {
        assert_eq!(named("us").unwrap().as_str(), "US");
        assert_eq!(named("CA").unwrap().as_str(), "CA", "in this field it is Canada");
        assert_eq!(named("Österreich").unwrap().as_str(), "AT");
        assert_eq!(named("zz"), None);
        assert_eq!(named("Atlantis"), None);
    }

    #[test]
    fn no_name_stands_for_two_countries() {
        for table in [NAMES, CITIES] {
            let mut names: Vec<String> = table.iter().flat_map(|(_, names)| names.split('|')).map(fold).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    proptest! {
        #[test]
        fn no_location_is_too_strange(text in "\\PC{0,60}") {
            let _ = in_location(&text);
            let _ = named(&text);
        }
    }
}
