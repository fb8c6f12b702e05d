//! What comes out is parsed back by another library.

use domain::{
    handle::Handle,
    id::{LeadId, ProgramId},
    lead::{Profile, SourceName},
    program::{ProgramSettings, Slug},
};
use mail_parser::{Address as Parsed, HeaderValue, Message as Mail, MessageParser, MimeHeaders as _};
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const TOKEN: &str = "AbC-d_123";

fn program() -> Program {
    Program {
        id: ProgramId::from_uuid(uuid::Uuid::from_u128(1)),
        slug: "acme".parse::<Slug>().unwrap(),
        settings: ProgramSettings {
            name: "Acme Bäckerei".to_owned(),
            sender_name: "Zoë at Acme".to_owned(),
            sender_email: EmailAddress::parse("zoe@acme.example").ok(),
            reply_to: EmailAddress::parse("answers@acme.example").ok(),
            postal_address: Some("Acme Inc., 1 Main Street\nSpringfield 12345, USA".to_owned()),
            privacy_url: Some("https://acme.example/privacy".to_owned()),
            threshold: 70,
            niches: Vec::new(),
            product: "Flour that rises <by itself>.".to_owned(),
            basis: Basis::LegitimateInterest,
            daily_cap: None,
            paused: false,
        },
    }
}

fn lead(name: Option<&str>) -> Lead {
    Lead {
        id: LeadId::from_uuid(uuid::Uuid::from_u128(2)),
        program_id: program().id,
        revision: 1,
        profile: Profile {
            source: SourceName::parse("instagram").unwrap(),
            username: Handle::parse("ann.bakes").unwrap(),
            name: name.map(str::to_owned),
            email: EmailAddress::parse("ann@creator.example").ok(),
            profile_url: None,
            follower_count: Some(10_000),
            bio: Some("bread https://evil.example".to_owned()),
            verified: false,
            location: None,
            country: None,
        },
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

fn composer() -> Composer {
    Composer::new(Links::new("https://mail.acme.example", Some("in.acme.example")).unwrap())
}

fn compose(name: Option<&str>, message: &str) -> ComposedMessage {
    compose_for(&program(), &lead(name), message).unwrap()
}

fn compose_for(program: &Program, lead: &Lead, message: &str) -> Result<ComposedMessage, ComposeError> {
    composer().compose(&ComposeInput {
        program,
        lead,
        message,
        step: &CampaignStep::first(),
        message_id: "<m1@acme.example>",
        outreach: OutreachId::from_uuid(uuid::Uuid::from_u128(3)),
        unsubscribe_token: TOKEN,
        now: datetime!(2026-05-04 10:20:30 UTC),
    })
}

fn parse(message: &ComposedMessage) -> Mail<'_> {
    MessageParser::default().parse(&message.bytes).unwrap()
}

fn header(mail: &Mail<'_>, name: &str) -> String {
    mail.header_raw(name).unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every header's name, in order; a smuggled one would show.
fn header_names(mail: &Mail<'_>) -> Vec<String> {
    mail.parts[0].headers.iter().map(|header| header.name().to_ascii_lowercase()).collect()
}

const HEADERS: [&str; 12] = [
    "date",
    "from",
    "to",
    "reply-to",
    "subject",
    "message-id",
    "feedback-id",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mime-version",
    "content-type",
];

fn assert_only_our_headers(mail: &Mail<'_>) {
    let mut names = header_names(mail);
    names.sort_unstable();
    let mut expected = HEADERS;
    expected.sort_unstable();
    assert_eq!(names, expected);
}

/// The link targets of the HTML part.
fn targets(html: &str) -> Vec<&str> {
    html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn every_header_that_is_asked_for_is_there() {
    let message = compose(Some("Ann"), "I love your bread.");
    let mail = parse(&message);
    assert_only_our_headers(&mail);
    assert_eq!(header(&mail, "Date"), "Mon, 04 May 2026 10:20:30 +0000");
    let Some(Parsed::List(from)) = mail.from() else { panic!("no From") };
    assert_eq!(from.len(), 1);
    assert_eq!((from[0].name(), from[0].address()), (Some("Zoë at Acme"), Some("zoe@acme.example")));
    assert_eq!(mail.to().unwrap().first().unwrap().address(), Some("ann@creator.example"));
    assert_eq!(mail.reply_to().unwrap().first().unwrap().address(), Some("answers@acme.example"));
    assert_eq!(mail.subject(), Some("Ann, a partnership with Acme Bäckerei?"));
    assert_eq!(header(&mail, "List-Id"), "<acme.acme.example>");
    assert_eq!(header(&mail, "Feedback-ID"), "intro-1:acme:outreach:leadmill");
    assert_eq!(header(&mail, "List-Unsubscribe"), format!("<https://mail.acme.example/u/{TOKEN}>"));
    assert_eq!(header(&mail, "List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
    assert_eq!(mail.message_id(), Some("m1@acme.example"));
    assert_eq!(message.return_path, "b+00000000000000000000000000000003@in.acme.example");
}

#[test]
fn both_parts_say_what_the_law_wants() {
    let message = compose(Some("Ann"), "I love your bread.\nReally.\n\nSee you <b>soon</b>.");
    let mail = parse(&message);
    assert!(mail.is_content_type("multipart", "alternative"));
    let text = mail.body_text(0).unwrap();
    let html = mail.body_html(0).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (part, content) in [("text", words(&text)), ("html", words(&html))] {
        for needed in [
            "Hello Ann,",
            "I love your bread.",
            "Acme Inc., 1 Main Street Springfield 12345, USA",
            "advertising message",
            "https://mail.acme.example/u/AbC-d_123",
            "Art. 21 GDPR",
            "You may object at any time",
            "Art. 14 GDPR",
            "Controller: Acme Bäckerei",
            "Source: your profile @ann.bakes on Instagram",
            "Categories:",
            "Purpose:",
            "Legal basis: our legitimate interest (Art. 6(1)(f) GDPR)",
            "Recipients:",
            "Retention:",
            "Automated decisions:",
            "Your rights: access, rectification, erasure",
            "https://acme.example/privacy",
            "answers@acme.example",
        ] {
            assert!(content.contains(needed), "the {part} part lacks {needed:?}:\n{content}");
        }
    }
    assert!(text.contains("I love your bread.\r\nReally.\r\n\r\nSee you <b>soon</b>."), "{text}");
    assert!(html.contains("I love your bread.<br>Really.</p>"));
    assert!(html.contains("See you &lt;b&gt;soon&lt;&#x2f;b&gt;."), "{html}");
    assert!(html.contains("Flour that rises &lt;by itself&gt;."));
}

#[test]
fn a_message_with_its_own_greeting_gets_no_second_one() {
    let message = compose(Some("Ann"), "Hey Ann, great bread!");
    assert!(!parse(&message).body_text(0).unwrap().contains("Hello Ann"));
}

#[test]
fn somebody_without_a_name_is_addressed_by_the_handle() {
    let message = compose(None, "Great bread!");
    let mail = parse(&message);
    assert!(mail.body_text(0).unwrap().contains("Hello @ann.bakes,"));
    assert_eq!(mail.to().unwrap().first().unwrap().name(), None);
}

/// Names as creators write them, and the handle beside each.
const STRANGER_NAMES: [(&str, &str, &str); 5] = [
    ("sn01", "Your PayPal is LOCKED call 1-800-555-0199 now", "sn01"),
    ("sn02", "WIN $500 at 192.0.2.7/pay", "sn02"),
    ("money.with.bobby", "Bobby", "Bobby"),
    ("sn04", "Ann-Marie O'Neil", "Ann-Marie O'Neil"),
    ("sn05", "Zoë ✨ | fitness", "Zoë"),
];

#[test]
fn a_name_is_used_only_when_it_looks_like_a_persons_and_the_notice_shows_the_handle_as_it_is() {
    for (handle, name, addressee) in STRANGER_NAMES {
        let mut lead = lead(Some(name));
        lead.profile.username = Handle::parse(handle).unwrap();
        let message = compose_for(&program(), &lead, "Good work.").unwrap();
        let mail = parse(&message);
        assert_eq!(mail.subject(), Some(format!("{addressee}, a partnership with Acme Bäckerei?").as_str()));
        let shown = mail.to().unwrap().first().unwrap().name();
        assert_eq!(shown, (addressee != handle).then_some(addressee), "{name}");
        for part in [mail.body_text(0).unwrap(), mail.body_html(0).unwrap()] {
            assert!(part.contains(&format!("{handle} on Instagram")), "{part}");
            let theirs = ["PayPal", "LOCKED", "1-800", "$500", "192.0", "fitness"];
            assert!(!theirs.iter().any(|word| part.contains(word)), "{part}");
        }
    }
}

#[test]
fn a_handle_that_could_carry_a_message_reaches_neither_subject_nor_greeting() {
    let mut lead = lead(None);
    lead.profile.username = Handle::parse("call-1-800-555-0199").unwrap();
    let message = compose_for(&program(), &lead, "Good work.").unwrap();
    let mail = parse(&message);
    assert_eq!(mail.subject(), Some("A partnership with Acme Bäckerei?"));
    assert!(mail.body_text(0).unwrap().starts_with("Hello,"));
}

#[test]
fn a_header_injection_in_a_name_stays_text() {
    for name in [
        "Ann\r\nBcc: victim@example.com",
        "Ann\nBcc: victim@example.com\n\nbody",
        "Ann\u{0}\u{B}\u{C}\u{85}\u{2028}Bcc: victim@example.com",
        "=?utf-8?q?Ann=0D=0ABcc:_victim@example.com?=",
        "\" <victim@example.com>, \"",
        "Ann <victim@example.com>, Bob",
        "Ann, Bob: victim@example.com;",
        "\\\"\\",
        "(comment) Ann",
    ] {
        let message = compose(Some(name), name);
        let mail = parse(&message);
        assert_only_our_headers(&mail);
        let Some(Parsed::List(to)) = mail.to() else { panic!("To is no list for {name:?}") };
        assert_eq!(to.len(), 1, "{name:?}");
        assert_eq!(to[0].address(), Some("ann@creator.example"), "{name:?}");
        assert_eq!(message.recipient.as_str(), "ann@creator.example");
        assert!(!mail.subject().unwrap().contains(['\r', '\n']), "{name:?}");
    }
}

#[test]
fn html_and_links_from_strangers_are_inert_in_every_part() {
    let hostile = "<script>alert(1)</script> <a href=\"https://evil.example/x\">x</a> www.evil.example \
                   mailto:a@evil.example {{ product }} {% raw %} [x](http://evil.example) '\" onload=x";
    let message = compose(Some(hostile), hostile);
    let mail = parse(&message);
    let html = mail.body_html(0).unwrap();
    let text = mail.body_text(0).unwrap();
    for target in targets(&html) {
        assert!(
            target == format!("https://mail.acme.example/u/{TOKEN}") || target == "https://acme.example/privacy",
            "{target}"
        );
    }
    assert!(!html.contains("<script") && !html.contains("evil.example") && !html.contains("<a href=\"https://evil"));
    assert!(!text.contains("evil.example") && !text.contains("mailto:a"));
    assert!(text.contains("{{ product }}"), "a template in a message is text");
    assert!(!mail.subject().unwrap().contains("evil.example"));
}

#[test]
fn a_program_without_a_postal_address_writes_nothing() {
    let mut program = program();
    program.settings.postal_address = Some("  ".to_owned());
    assert!(matches!(compose_for(&program, &lead(None), "x"), Err(ComposeError::IncompleteSender)));
    let mut lead = lead(None);
    lead.profile.email = None;
    assert!(matches!(compose_for(&self::program(), &lead, "x"), Err(ComposeError::NoAddress)));
}

fn assert_well_formed(message: &ComposedMessage) {
    assert!(message.bytes.is_ascii(), "8-bit bytes need an extension that a server may lack");
    let text = std::str::from_utf8(&message.bytes).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF");
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "a line is too long");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_name_handle_or_message_changes_what_a_mail_is(
        name in "(?s).{0,80}",
        handle in "[a-zA-Z0-9._é-]{1,64}",
        body in "(?s).{0,400}",
        local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,30}",
    ) {
        let mut lead = lead(Some(&name));
        if let Ok(handle) = Handle::parse(&handle) {
            lead.profile.username = handle;
        }
        let address = EmailAddress::parse(&format!("{local}@creator.example")).unwrap();
        lead.profile.email = Some(address.clone());
        let message = compose_for(&program(), &lead, &body).unwrap();
        assert_well_formed(&message);
        let mail = parse(&message);
        assert_only_our_headers(&mail);
        let to = mail.to().unwrap();
        prop_assert_eq!(to.iter().count(), 1);
        prop_assert_eq!(to.first().unwrap().address(), Some(address.as_str()));
        prop_assert!(mail.subject().is_some_and(|subject| subject.ends_with(" partnership with Acme Bäckerei?")));
        prop_assert!(matches!(mail.header("Subject"), Some(HeaderValue::Text(_))));
        prop_assert_eq!(mail.text_body_count(), 1);
        prop_assert_eq!(mail.html_body_count(), 1);
        prop_assert_eq!(mail.attachment_count(), 0);
        let html = mail.body_html(0).unwrap();
        prop_assert_eq!(targets(&html).len(), 3);
        prop_assert!(mail.body_text(0).unwrap().contains("https://mail.acme.example/u/AbC-d_123"));
    }
}
