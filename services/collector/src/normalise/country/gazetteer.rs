//! What the names of places point to: countries, their regions, large cities, and continents. Data and look-up only; how a
//! text is read is in the parent module.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use domain::lead::Country;
use unicode_normalization::UnicodeNormalization;

/// Officially assigned codes of ISO 3166-1.
pub(super) const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE \
GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR \
KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI \
NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS \
ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Names of countries, in the languages creators write them in.
const COUNTRIES: &[(&str, &str)] = &[
    (
        "US",
        "united states|united states of america|usa|u.s.a.|u.s.|estados unidos|eeuu|etats-unis|vereinigte staaten|stati uniti",
    ),
    (
        "GB",
        "united kingdom|great britain|uk|u.k.|royaume-uni|reino unido|vereinigtes konigreich|grossbritannien|regno unito",
    ),
    ("IE", "ireland|irland|irlande|irlanda|eire|republic of ireland"),
    ("CA", "canada|kanada"),
    ("AU", "australia|australien|australie"),
    ("NZ", "new zealand|neuseeland|nouvelle-zelande|nueva zelanda|aotearoa"),
    ("DE", "germany|deutschland|allemagne|alemania|germania|alemanha|duitsland"),
    ("AT", "austria|osterreich|autriche|oesterreich|oostenrijk"),
    ("CH", "switzerland|schweiz|suisse|suiza|svizzera|suica|zwitserland"),
    ("FR", "france|frankreich|francia|franca|frankrijk"),
    ("ES", "spain|espana|spanien|espagne|spagna|espanha|spanje"),
    ("PT", "portugal|portogallo"),
    ("IT", "italy|italia|italien|italie"),
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
    ("IN", "india|indien|inde|bharat"),
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
    ("MX", "mexico|mexiko|mexique|messico"),
    ("BR", "brazil|brasil|brasilien|bresil|brasile"),
    ("AR", "argentina|argentinien|argentine"),
    ("CL", "chile"),
    ("CO", "colombia|kolumbien|colombie"),
    ("PE", "peru|perou"),
    ("KP", "north korea|dprk"),
];

/// States of the United States with their codes; those that share their name with a country, a capital elsewhere or a
/// bigger city are left out.
const STATES: &str = "alabama AL|alaska AK|arizona AZ|arkansas AR|california CA|colorado CO|connecticut CT|delaware DE|florida FL|hawaii HI|idaho ID|illinois IL|indiana IN|iowa IA|kansas KS|kentucky KY|louisiana LA|maine ME|maryland MD|massachusetts MA|michigan MI|minnesota MN|mississippi MS|missouri MO|montana MT|nebraska NE|nevada NV|new hampshire NH|new jersey NJ|new mexico NM|new york NY|north carolina NC|north dakota ND|ohio OH|oklahoma OK|oregon OR|pennsylvania PA|rhode island RI|south carolina SC|south dakota SD|tennessee TN|texas TX|utah UT|vermont VT|virginia VA|west virginia WV|wisconsin WI|wyoming WY|washington dc DC|washington d.c. DC";

/// The codes of states whose names mean a country or a capital as well.
const UNNAMED_STATES: [&str; 2] = ["GA", "WA"];

/// Regions of other countries.
const REGIONS: &[(&str, &str)] = &[
    ("GB", "england|scotland|wales|northern ireland"),
    ("CA", "british columbia|ontario|quebec|alberta|nova scotia|manitoba"),
    ("AU", "new south wales|queensland|tasmania"),
    ("DE", "bayern|bavaria|nordrhein-westfalen|sachsen|hessen"),
    ("AT", "tirol"),
    ("FR", "bretagne|provence"),
    ("ES", "catalunya|cataluna|andalucia|catalonia"),
    ("IT", "toscana|sicilia|tuscany"),
    ("IN", "maharashtra|karnataka|tamil nadu|kerala"),
    ("MX", "jalisco|nuevo leon"),
    ("BR", "minas gerais|bahia"),
];

/// Large cities, hardly meant otherwise when they stand alone.
const CITIES: &[(&str, &str)] = &[
    (
        "US",
        "new york city|nyc|brooklyn|los angeles|l.a.|chicago|houston|phoenix|philadelphia|san antonio|san diego|dallas|austin|san francisco|seattle|denver|nashville|boston|portland|las vegas|miami|atlanta|minneapolis|tampa|orlando|charlotte|salt lake city|detroit|sf bay area|bay area|springfield|sacramento|san jose|fresno|oakland|long beach|bakersfield|anaheim|irvine|pasadena|santa monica|malibu|hollywood|beverly hills|fort worth|el paso|plano|lubbock|mckinney|fort lauderdale|jacksonville|tallahassee|sarasota|fort myers|tucson|scottsdale|tempe|mesa|chandler|albuquerque|boulder|colorado springs|fort collins|omaha|des moines|cedar rapids|kansas city|st. louis|st louis|saint louis|milwaukee|madison|green bay|indianapolis|fort wayne|south bend|columbus|cleveland|cincinnati|akron|dayton|pittsburgh|allentown|baltimore|annapolis|raleigh|greensboro|winston-salem|asheville|chapel hill|myrtle beach|knoxville|chattanooga|memphis|louisville|new orleans|baton rouge|shreveport|little rock|fayetteville|tulsa|oklahoma city|wichita|honolulu|anchorage|boise|spokane|tacoma|bellevue|eugene|reno|henderson|provo|grand rapids|ann arbor|lansing|buffalo|rochester|syracuse|albany|yonkers|queens|manhattan|the bronx|bronx|staten island|long island|jersey city|newark|hoboken|princeton|new haven|hartford|stamford|providence|burlington|peoria|naperville|evanston|rockford|st. paul|saint paul|duluth|sioux falls|fargo|billings|missoula|charleston|savannah|augusta|huntsville|montgomery|virginia beach|arlington",
    ),
    (
        "GB",
        "london|manchester|leeds|liverpool|glasgow|edinburgh|bristol|cardiff|belfast|brighton|birmingham|cambridge|oxford|sheffield|nottingham",
    ),
    ("IE", "dublin|galway|cork"),
    ("CA", "toronto|vancouver|montreal|calgary|ottawa"),
    ("AU", "sydney|melbourne|brisbane|perth|adelaide|gold coast|canberra|hobart|darwin"),
    ("NZ", "auckland|wellington|christchurch|queenstown"),
    (
        "DE",
        "berlin|hamburg|munchen|munich|muenchen|koln|cologne|koeln|frankfurt|stuttgart|dusseldorf|leipzig|dresden|hannover|nurnberg",
    ),
    ("AT", "wien|vienna|graz|salzburg|innsbruck|linz"),
    ("CH", "zurich|zuerich|geneve|geneva|basel|bern|lausanne|luzern"),
    ("FR", "paris|lyon|marseille|toulouse|bordeaux|lille|nantes|strasbourg|montpellier|cannes"),
    ("ES", "madrid|barcelona|sevilla|malaga|bilbao|zaragoza|valencia"),
    ("PT", "lisboa|lisbon|lissabon|porto"),
    ("IT", "roma|rome|milano|milan|napoli|torino|turin|firenze|bologna|venezia|palermo|florence|naples|venice"),
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
    ("GR", "thessaloniki|athens"),
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
    ("AE", "dubai|abu dhabi|sharjah"),
    ("NG", "lagos|abuja"),
    ("KE", "nairobi"),
    ("ZA", "cape town|johannesburg|durban"),
    ("MX", "ciudad de mexico|mexico city|cdmx|guadalajara|monterrey|tijuana|puebla"),
    ("BR", "sao paulo|rio de janeiro|belo horizonte|brasilia|curitiba|porto alegre|recife|fortaleza"),
    ("AR", "buenos aires|rosario"),
    ("CL", "santiago de chile"),
    ("CO", "bogota|medellin"),
    ("PE", "lima"),
    ("IL", "tel aviv|jerusalem|haifa"),
    ("RU", "moscow"),
    ("EG", "cairo"),
    ("LB", "beirut"),
    ("CU", "havana"),
    ("VN", "hanoi"),
    ("CN", "shanghai|beijing"),
    ("SA", "riyadh"),
    ("QA", "doha"),
];

/// Towns of the United States named as a large city elsewhere, with the codes of their states: `Paris, Texas`.
const TWIN_TOWNS: &[(&str, &str)] = &[
    ("antwerp", "OH"),
    ("athens", "GA OH AL TN TX"),
    ("belfast", "ME"),
    ("bergen", "NY NJ"),
    ("berlin", "CT NH WI MD NJ PA OH"),
    ("birmingham", "AL MI"),
    ("brighton", "MI CO"),
    ("bristol", "CT TN VA RI"),
    ("brussels", "WI"),
    ("cairo", "IL GA"),
    ("cambridge", "MA MD OH"),
    ("delhi", "NY LA"),
    ("dresden", "OH"),
    ("dublin", "CA OH GA TX"),
    ("edinburgh", "IN TX"),
    ("florence", "AL SC KY OR AZ"),
    ("frankfort", "KY"),
    ("geneva", "IL NY"),
    ("glasgow", "KY MT"),
    ("hamburg", "NY PA NJ"),
    ("havana", "IL FL"),
    ("krakow", "WI"),
    ("leeds", "AL"),
    ("lima", "OH"),
    ("lisbon", "ME OH"),
    ("liverpool", "NY"),
    ("london", "KY OH AR"),
    ("madrid", "IA"),
    ("manchester", "NH CT TN VT"),
    ("manila", "AR"),
    ("melbourne", "FL"),
    ("milan", "MI TN"),
    ("moscow", "ID"),
    ("naples", "FL"),
    ("nottingham", "MD NH"),
    ("oslo", "MN"),
    ("oxford", "MS OH AL MA"),
    ("palermo", "CA"),
    ("paris", "TX TN KY IL ME AR"),
    ("perth", "NJ"),
    ("prague", "OK"),
    ("rome", "GA NY"),
    ("sheffield", "AL"),
    ("stockholm", "WI"),
    ("toronto", "OH"),
    ("turin", "NY GA"),
    ("valencia", "CA"),
    ("vancouver", "WA"),
    ("venice", "CA FL"),
    ("vienna", "VA WV"),
    ("warsaw", "IN"),
    ("wellington", "FL"),
];

/// The same in Canada.
const CANADIAN_TWINS: &[(&str, &str)] = &[("london", "ontario"), ("paris", "ontario")];

/// Names that are a state or a country and a city as well: after a comma they may be a second place.
const CITIES_TOO: [&str; 5] = ["new york", "quebec", "singapore", "luxembourg", "mexico"];

/// Continents and other regions of several countries, in the languages creators write them in.
const CONTINENTS: &str = "north america|south america|latin america|central america|america|americas|the americas|latam|nordamerika|sudamerika|lateinamerika|mittelamerika|amerika|amerique|amerique du nord|amerique du sud|amerique latine|norteamerica|sudamerica|suramerica|latinoamerica|america latina|centroamerica|america del norte|america del sur|america do norte|america do sul|nord america|sud america|europe|europa|eu|e.u.|european union|europaische union|union europeenne|union europea|uniao europeia|unione europea|western europe|eastern europe|emea|dach|benelux|nordics|scandinavia|skandinavien|scandinavie|balkans|the balkans|asia|asien|asie|southeast asia|south east asia|apac|middle east|naher osten|moyen-orient|medio oriente|mena|africa|afrika|afrique|west africa|east africa|north africa|oceania|ozeanien|oceanie|australasia|caribbean|the caribbean|west indies|karibik|caraibes|caribe";

/// What one name points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A country.
    Country(Country),
    /// A state or region.
    Region(Country),
    /// A city.
    City(Country),
    /// A continent, or another region of several countries.
    Continent,
}

impl Place {
    /// The country it is in; none for a continent.
    pub fn country(self) -> Option<Country> {
        match self {
            Self::Country(country) | Self::Region(country) | Self::City(country) => Some(country),
            Self::Continent => None,
        }
    }
}

static PLACES: LazyLock<HashMap<String, Place>> = LazyLock::new(|| {
    let mut places = HashMap::new();
    let mut add =
        |name: &str, place: Place| assert!(places.insert(fold(name), place).is_none(), "{name} is listed twice");
    let rows = |table: &'static [(&str, &str)]| {
        table.iter().flat_map(|(code, names)| names.split('|').map(move |name| (parse(code), name)))
    };
    rows(COUNTRIES).for_each(|(country, name)| add(name, Place::Country(country)));
    rows(REGIONS).for_each(|(country, name)| add(name, Place::Region(country)));
    rows(CITIES).for_each(|(country, name)| add(name, Place::City(country)));
    states().for_each(|(name, _)| add(name, Place::Region(parse("US"))));
    CONTINENTS.split('|').for_each(|name| add(name, Place::Continent));
    places
});

/// The most words of a listed name.
pub(super) const NAME_WORDS: usize = 5;

/// What a folded name points to.
pub(super) fn place(name: &str) -> Option<Place> {
    PLACES.get(name).copied()
}

/// Whether the town `city` in the region `region` (folded name, or a state's code) is a real one that is named as a large
/// city elsewhere, and where.
pub(super) fn twin_town(city: &str, region: &str) -> Option<Country> {
    let code = states().find(|(name, _)| *name == region).map_or(region, |(_, code)| code);
    let is_listed = |(town, codes): &(&str, &str)| *town == city && codes.split(' ').any(|listed| listed == code);
    let american = TWIN_TOWNS.iter().any(is_listed);
    let canadian = CANADIAN_TWINS.contains(&(city, region));
    american.then(|| parse("US")).or_else(|| canadian.then(|| parse("CA")))
}

/// Whether this is the code of a state of the United States.
pub(super) fn is_state_code(text: &str) -> bool {
    UNNAMED_STATES.contains(&text) || states().any(|(_, code)| code == text)
}

/// Whether the folded name is a state or country and a city as well.
pub(super) fn is_city_too(name: &str) -> bool {
    CITIES_TOO.contains(&name)
}

/// The country with this code.
pub(super) fn code(text: &str) -> Option<Country> {
    static ASSIGNED: LazyLock<HashSet<&str>> = LazyLock::new(|| CODES.split(' ').collect());
    Country::parse(text).ok().filter(|country| ASSIGNED.contains(country.as_str()))
}

fn states() -> impl Iterator<Item = (&'static str, &'static str)> {
    STATES.split('|').filter_map(|state| state.rsplit_once(' '))
}

fn parse(code: &str) -> Country {
    Country::parse(code).expect("the tables' codes are well formed")
}

/// Lower case, without accents, with single spaces.
pub(super) fn fold(text: &str) -> String {
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

    #[test]
    fn no_name_stands_for_two_places_and_none_is_too_long() {
        assert!(place("berlin").is_some(), "a name that is listed twice would panic");
        assert!(PLACES.keys().all(|name| name.split(' ').count() <= NAME_WORDS));
    }

    #[test]
    fn every_twin_town_is_a_large_city_elsewhere_in_a_known_state() {
        for (town, codes) in TWIN_TOWNS {
            assert!(codes.split(' ').all(is_state_code), "{town}");
        }
    }
}
