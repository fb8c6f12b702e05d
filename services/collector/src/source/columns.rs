//! Which column or key means which field.
//!
//! The names are those of the usual exports (Modash, HypeAuditor, Upfluence, Phantombuster, the Instagram and TikTok
//! scrapers) and of spreadsheets in a few languages. They are compared without case, spaces and punctuation, so that
//! `Follower Count`, `follower_count` and `followerCount` are one.

use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

use super::{Field, RawProfile, SourceError};

/// The known names of each field, best first: when two columns mean one field, the better one that isn't empty wins.
const ALIASES: [(Field, &[&str]); 16] = [
    (
        Field::Source,
        &["source", "platform", "network", "socialnetwork", "socialplatform", "plattform", "plateforme", "red", "rede"],
    ),
    (
        Field::Username,
        &[
            "username",
            "handle",
            "userhandle",
            "nick",
            "nickname",
            "screenname",
            "login",
            "account",
            "accountname",
            "uniqueid",
            "user",
            "instagramhandle",
            "instagramusername",
            "tiktokhandle",
            "tiktokusername",
            "igusername",
            "ighandle",
            "youtubehandle",
            "twitterhandle",
            "profilename",
            "creator",
            "influencer",
            "benutzername",
            "nutzername",
            "nomdutilisateur",
            "utilisateur",
            "usuario",
            "nombredeusuario",
            "nomeutente",
            "gebruikersnaam",
        ],
    ),
    (
        Field::Name,
        &[
            "fullname",
            "name",
            "displayname",
            "realname",
            "creatorname",
            "influencername",
            "channelname",
            "channeltitle",
            "ownerfullname",
            "vollstandigername",
            "nom",
            "nomcomplet",
            "nombre",
            "nombrecompleto",
            "nome",
            "naam",
        ],
    ),
    (
        Field::Email,
        &[
            "email",
            "emailaddress",
            "businessemail",
            "contactemail",
            "publicemail",
            "contactmail",
            "mail",
            "emails",
            "mailaddress",
            "emailid",
            "primaryemail",
            "contact",
            "contacts",
            "courriel",
            "correo",
            "correoelectronico",
        ],
    ),
    (
        Field::ProfileUrl,
        &[
            "profileurl",
            "profilelink",
            "url",
            "link",
            "profile",
            "accounturl",
            "channelurl",
            "instagramurl",
            "tiktokurl",
            "youtubeurl",
            "userurl",
            "socialurl",
            "profileuri",
            "profilurl",
            "inputurl",
            "href",
            "permalink",
        ],
    ),
    (
        Field::FollowerCount,
        &[
            "followercount",
            "followerscount",
            "followers",
            "follower",
            "subscribers",
            "subscribercount",
            "subscriberscount",
            "numberoffollowers",
            "followerstotal",
            "totalfollowers",
            "fans",
            "fancount",
            "audiencesize",
            "abonnenten",
            "abonnes",
            "seguidores",
            "segueci",
            "seguaci",
            "volgers",
        ],
    ),
    (
        Field::Bio,
        &[
            "bio",
            "biography",
            "description",
            "signature",
            "about",
            "aboutme",
            "profilebio",
            "profiledescription",
            "summary",
            "biografie",
            "biographie",
            "biografia",
            "beschreibung",
            "descripcion",
            "descricao",
            "descrizione",
        ],
    ),
    (
        Field::Verified,
        &["verified", "isverified", "verifiedaccount", "verifiziert", "verifie", "verificado", "verificato"],
    ),
    (
        Field::Location,
        &[
            "location",
            "city",
            "place",
            "address",
            "region",
            "cityname",
            "ort",
            "stadt",
            "standort",
            "ville",
            "ubicacion",
            "ciudad",
            "cidade",
            "localizacao",
            "citta",
            "luogo",
            "plaats",
        ],
    ),
    (
        Field::Country,
        &["country", "countrycode", "countryname", "geo", "audiencecountry", "land", "pays", "pais", "paese"],
    ),
    // Evidence has no names that could mean something else: half of it refuses the row.
    (Field::ConsentSource, &["consentsource"]),
    (Field::ConsentWording, &["consentwording", "consenttext"]),
    (Field::ConsentAt, &["consentat", "consentgivenat", "consentdate", "consenttime"]),
    (Field::ConsentExpiresAt, &["consentexpiresat", "consentexpires", "consentexpiry", "consentvaliduntil"]),
    (Field::AddressSourceUrl, &["addresssourceurl", "emailsourceurl"]),
    (Field::AddressSeenAt, &["addressseenat", "addresspublishedat", "emailseenat"]),
];

/// A mapping that a person asked for: `COLUMN=FIELD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The column's or key's name.
    pub column: String,
    /// What it means.
    pub field: Field,
}

impl FromStr for Mapping {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let wrong = |problem: String| SourceError::Mapping { mapping: text.to_owned(), problem };
        let (column, name) =
            text.rsplit_once('=').ok_or_else(|| wrong("it must have the form COLUMN=FIELD".to_owned()))?;
        let field = Field::by_name(name.trim())
            .ok_or_else(|| wrong(format!("`{}` is no field; the fields are {}", name.trim(), field_names())))?;
        if column.trim().is_empty() {
            return Err(wrong("it names no column".to_owned()));
        }
        Ok(Self { column: column.trim().to_owned(), field })
    }
}

/// The columns of a file, each with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    names: Vec<String>,
    /// For each field with a column: its columns, best first.
    fields: Vec<(Field, Vec<usize>)>,
}

impl Columns {
    /// Gives each column its meaning; what `mappings` say comes before what the names suggest.
    pub fn recognise(names: Vec<String>, mappings: &[Mapping]) -> Result<Self, SourceError> {
        let mut meanings: Vec<Option<(Field, usize)>> = names.iter().map(|name| meaning(name)).collect();
        for mapping in mappings {
            let position = names
                .iter()
                .position(|name| *name == mapping.column)
                .or_else(|| names.iter().position(|name| fold(name) == fold(&mapping.column)))
                .ok_or_else(|| SourceError::Mapping {
                    mapping: format!("{}={}", mapping.column, mapping.field.name()),
                    problem: format!("there is no column `{}`; there are {}", mapping.column, list(&names)),
                })?;
            // A column that was asked for is the field's only one.
            for other in &mut meanings {
                if other.is_some_and(|(field, _)| field == mapping.field) {
                    *other = None;
                }
            }
            meanings[position] = Some((mapping.field, 0));
        }
        let mut fields = Vec::new();
        for field in Field::ALL {
            let mut of_field: Vec<(usize, usize)> = meanings
                .iter()
                .enumerate()
                .filter_map(|(column, meaning)| meaning.filter(|(f, _)| *f == field).map(|(_, rank)| (rank, column)))
                .collect();
            of_field.sort_unstable();
            if !of_field.is_empty() {
                fields.push((field, of_field.into_iter().map(|(_, column)| column).collect()));
            }
        }
        Ok(Self { names, fields })
    }

    /// The columns' names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many fields have a column.
    pub fn known(&self) -> usize {
        self.fields.len()
    }

    /// Whether a column has this meaning.
    pub fn has(&self, field: Field) -> bool {
        self.fields.iter().any(|(known, _)| *known == field)
    }

    /// The name under which a column's defect is reported: the field's, or else the column's own.
    pub fn label(&self, column: usize) -> &str {
        let field = self.fields.iter().find(|(_, columns)| columns.contains(&column)).map(|(field, _)| field.name());
        field.or_else(|| self.names.get(column).map(String::as_str)).unwrap_or("row")
    }

    /// Refuses columns from which no row could ever be accepted.
    pub fn check(&self, path: &str, has_default_source: bool) -> Result<(), SourceError> {
        let problem = if !self.has(Field::Username) && !self.has(Field::ProfileUrl) {
            "no column is recognised as the user name or the profile URL".to_owned()
        } else if !self.has(Field::Email) && !self.has(Field::ProfileUrl) && !self.has(Field::Bio) {
            "no column could hold a contact (e-mail address, profile URL or bio)".to_owned()
        } else if !self.has(Field::Source) && !self.has(Field::ProfileUrl) && !has_default_source {
            "nothing says which network the profiles are from (give it with --source, such as --source instagram)"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(SourceError::Columns { path: path.to_owned(), problem, found: list(&self.names), fields: field_names() })
    }

    /// Fills a profile: `value` gives a column's text, or nothing when it is empty.
    pub fn fill(&self, profile: &mut RawProfile, mut value: impl FnMut(usize) -> Option<String>) {
        for (field, columns) in &self.fields {
            *profile.slot(*field) = columns.iter().find_map(|column| value(*column));
        }
    }
}

/// What a column's name suggests, with its rank among the field's names.
pub fn meaning(name: &str) -> Option<(Field, usize)> {
    let folded = fold(name);
    ALIASES
        .iter()
        .find_map(|(field, aliases)| aliases.iter().position(|alias| *alias == folded).map(|rank| (*field, rank + 1)))
}

/// The fields' names, for messages.
pub fn field_names() -> String {
    Field::ALL.map(Field::name).join(", ")
}

/// Lower case, without accents, spaces and punctuation.
fn fold(name: &str) -> String {
    name.nfkd().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A list of names for a message: quoted, cut, and never long.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 30;
    let mut shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", domain::text::single_line(name, 40).unwrap_or_default()))
        .collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str], mappings: &[&str]) -> Result<Columns, SourceError> {
        let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().unwrap()).collect();
        Columns::recognise(names.iter().map(|name| (*name).to_owned()).collect(), &mappings)
    }

    #[test]
    fn the_usual_exports_are_recognised() {
        for name in ["Username", "user_name", "Handle", "uniqueId", "Benutzername"] {
            assert_eq!(meaning(name).unwrap().0, Field::Username, "{name}");
        }
        for name in ["E-Mail", "Email address", "contact_email", "Business Email"] {
            assert_eq!(meaning(name).unwrap().0, Field::Email, "{name}");
        }
        for name in ["Followers", "followersCount", "Subscribers", "Abonnés"] {
            assert_eq!(meaning(name).unwrap().0, Field::FollowerCount, "{name}");
        }
        for name in ["Profile link", "profile_url", "URL"] {
            assert_eq!(meaning(name).unwrap().0, Field::ProfileUrl, "{name}");
        }
        assert_eq!(meaning("Engagement rate"), None);
    }

    #[test]
    fn no_name_means_two_fields() {
        let mut all: Vec<&str> = ALIASES.iter().flat_map(|(_, aliases)| aliases.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|alias| fold(alias) == *alias));
    }

    #[test]
    fn the_better_column_that_is_not_empty_wins() {
        let columns = columns(&["contact", "email", "handle"], &[]).unwrap();
        let value = |cells: [&'static str; 3]| {
            move |column: usize| (!cells[column].is_empty()).then(|| cells[column].to_owned())
        };
        let mut profile = RawProfile::default();
        columns.fill(&mut profile, value(["b", "a", "x"]));
        assert_eq!(profile.email.as_deref(), Some("a"));
        columns.fill(&mut profile, value(["b", "", "x"]));
        assert_eq!(profile.email.as_deref(), Some("b"));
    }

    #[test]
    fn a_mapping_overrides_what_a_name_suggests() {
        let columns = columns(&["email", "Wer", "Adresse"], &["Adresse=email", "wer=username"]).unwrap();
        assert_eq!(columns.label(2), "email");
        assert_eq!(columns.label(0), "email", "an unused column keeps its own name");
        assert!(columns.has(Field::Username));
        columns.check("f", true).unwrap();
    }

    #[test]
    fn a_wrong_mapping_names_what_there_is() {
        assert!(columns(&["a", "b"], &["c=email"]).unwrap_err().to_string().contains("there are `a`, `b`"));
        assert!("a=phone".parse::<Mapping>().unwrap_err().to_string().contains("profile_url"));
        assert!("email".parse::<Mapping>().is_err());
        assert!("=email".parse::<Mapping>().is_err());
    }

    #[test]
    fn columns_that_can_never_yield_a_lead_are_refused() {
        let text =
            |names: &[&str], default| columns(names, &[]).unwrap().check("f.csv", default).unwrap_err().to_string();
        assert!(text(&["a", "b"], true).contains("--map COLUMN=FIELD"));
        assert!(text(&["username"], true).contains("contact"));
        assert!(text(&["username", "email"], false).contains("--source"));
    }
}
