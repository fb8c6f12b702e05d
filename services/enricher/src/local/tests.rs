use domain::{
    lead::{BIO_CHARS, Lead, Profile},
    qualification::DEFAULT_THRESHOLD,
    text,
};
use proptest::prelude::*;
use test_support::profiles::{lead, profile, program};

use super::*;

fn with_bio(bio: &str) -> Lead {
    lead(Profile { bio: text::multi_line(bio, BIO_CHARS), ..profile() })
}

fn analyse(bio: &str) -> Enrichment {
    LocalAnalyser::new().analyse(&with_bio(bio), &program(&[]))
}

#[test]
fn a_niche_is_told_in_six_languages() {
    for (bio, niche) in [
        ("Personal trainer helping busy people with home workouts 💪", "fitness"),
        ("Krafttraining und Muskelaufbau für Anfänger", "fitness"),
        ("Recettes faciles et pâtisserie maison 🍰", "food"),
        ("Viajera incansable, mochilera por el mundo ✈️", "travel"),
        ("Maquiagem e cuidados com a pele | beleza real", "beauty"),
        ("Libri, lettura e letteratura. Recensisco romanzi 📖", "books"),
        ("Gamer | streaming Minecraft every day on Twitch 🎮", "gaming"),
        ("Finanzen verständlich: Aktien, ETF, Geldanlage", "finance"),
        ("Dog mom 🐾 two golden retrievers, dog training tips", "pets"),
        ("Nachhaltig leben, plastikfrei im Alltag", "sustainability"),
        ("Maternidad real, crianza respetuosa. Mamá de 2", "parenting"),
        ("#sneakerhead #streetwear #ootd", "fashion"),
        ("Tech reviews and gadgets. New videos every week", "technology"),
        ("Just here for the vibes", "general"),
        ("", "general"),
    ] {
        assert_eq!(analyse(bio).niche, niche, "{bio}");
    }
}

#[test]
fn the_notes_state_every_point_of_the_score() {
    let enrichment =
        analyse("Personal trainer 💪 home workouts for busy people. New videos every week. DM for collabs!");
    let points: i64 = enrichment
        .notes
        .lines()
        .filter_map(|line| line.split_once("(+")?.1.split_once(" of ")?.0.parse::<i64>().ok())
        .sum();
    assert_eq!(points, i64::from(enrichment.score.get()), "{}", enrichment.notes);
    assert!(enrichment.notes.starts_with("Score 77 of 100."), "{}", enrichment.notes);
    assert!(enrichment.notes.contains("24,351 followers, a micro creator"), "{}", enrichment.notes);
}

#[test]
fn the_weights_of_the_features_add_up_to_a_hundred() {
    let analyser = LocalAnalyser::new();
    let lead = with_bio("gym");
    let evidence = Evidence::gather(analyser.lexicon, &lead.profile);
    let features = features::rate(analyser.lexicon, &lead.profile, &[], &evidence);
    assert_eq!(features.iter().map(|feature| feature.of).sum::<i64>(), 100);
}

#[test]
fn a_better_fit_an_address_and_a_fitting_audience_score_higher() {
    let bio = "Personal trainer helping busy people with home workouts";
    let score = |niches: &[&str], change: fn(&mut Profile)| {
        let mut lead = with_bio(bio);
        change(&mut lead.profile);
        LocalAnalyser::new().analyse(&lead, &program(niches)).score
    };
    let keep = |_: &mut Profile| {};
    assert!(score(&["fitness"], keep) > score(&["nutrition"], keep));
    assert!(score(&["nutrition"], keep) > score(&["automotive"], keep));
    assert_eq!(score(&["Gym & workouts"], keep), score(&["fitness"], keep), "a program may use its own words");
    assert!(score(&[], keep) > score(&[], |profile| profile.email = None));
    assert!(score(&[], keep) > score(&[], |profile| profile.follower_count = Some(120)));
    assert!(score(&[], keep) > score(&[], |profile| profile.follower_count = Some(9_000_000)));
    assert!(score(&[], |profile| profile.verified = true) > score(&[], keep));
}

#[test]
fn what_a_bio_refuses_or_should_not_be_written_to_is_not_compliant() {
    for (bio, objection) in [
        ("Yoga teacher. No ads, no collabs!", Objection::RefusesBusiness),
        ("Food lover. NO BUSINESS INQUIRIES please", Objection::RefusesBusiness),
        ("Reisen und Berge. Keine Kooperationen.", Objection::RefusesBusiness),
        ("Voyageuse. Pas de partenariats svp", Objection::RefusesBusiness),
        ("Viajera. Sin publicidad, no colaboro", Objection::RefusesBusiness),
        ("Maquiagem. Não faço parcerias", Objection::RefusesBusiness),
        ("Cucina di casa. Niente collaborazioni", Objection::RefusesBusiness),
        ("15yo skater", Objection::Minor),
        ("Little dancer, account run by my mom", Objection::Minor),
        ("Conta gerenciada pelos pais", Objection::Minor),
        ("Spicy pics on OnlyFans 🔞", Objection::Adult),
        ("Daily betting tips 🎰 join the casino", Objection::Gambling),
        ("Scommesse e pronostici", Objection::Gambling),
        ("Fitness every day. No brand deals", Objection::RefusesBusiness),
        ("Fitness every day. Not accepting collabs rn", Objection::RefusesBusiness),
        ("In loving memory of Ann", Objection::Memorial),
        ("Compte commémoratif", Objection::Memorial),
        ("This account was HACKED", Objection::Hacked),
        ("Cuenta hackeada, no respondan", Objection::Hacked),
    ] {
        let lead = with_bio(bio);
        let enrichment = LocalAnalyser::new().analyse(&lead, &program(&[]));
        assert!(!enrichment.compliant, "{bio}");
        assert!(LocalAnalyser::new().objections(&lead).contains(&objection), "{bio}");
        assert!(enrichment.compliance_notes.contains(objection.sentence()), "{bio}");
    }
}

#[test]
fn a_stated_age_of_the_writer_declines_and_anothers_does_not() {
    for (username, bio, may_be_written_to) in [
        ("mi01", "15yo gamer, dog lover. Open for collabs", false),
        ("mi02", "I'm 15, I love my mom. Fitness every day. Open for collabs", false),
        ("mi03", "16 | fitness | mom's favourite. Open for collabs", false),
        ("mi04", "Mom of a 15 year old gamer. Fitness coach. Open for collabs", true),
        ("mi05", "Fitness coach for 15 years. Open for collabs", true),
    ] {
        assert_eq!(analyse(bio).compliant, may_be_written_to, "{username}: {bio}");
    }
    let named = lead(Profile { name: Some("Mia, 15".to_owned()), ..profile() });
    assert!(!LocalAnalyser::new().analyse(&named, &program(&[])).compliant, "a display name states an age, too");
}

#[test]
fn harmless_words_are_no_objection() {
    for bio in [
        "Business inquiries: see below. Open to collabs!",
        "No gym, no problem: home workouts",
        "15 years of experience in photography",
        "Mom of a 5 year old, teacher",
        "Kooperationen gern per Mail",
        "I love Las Vegas shows and card tricks",
        "Ad free living? No: slow living",
        "Especialista no marketing digital",
        "UGC creator, DM for collabs, slots open in June",
        "Memorial Day recipes and life hacks",
        "Growth hacks for creators, open to collabs",
    ] {
        let enrichment = analyse(bio);
        assert!(enrichment.compliant, "{bio}: {}", enrichment.compliance_notes);
    }
}

#[test]
fn without_an_address_there_is_no_lawful_way_to_write() {
    let lead = lead(Profile { email: None, ..profile() });
    let enrichment = LocalAnalyser::new().analyse(&lead, &program(&[]));
    assert!(!enrichment.compliant);
    assert_eq!(enrichment.compliance_notes, "No e-mail address is published.");
}

#[test]
fn the_message_names_what_the_profile_shows_and_nothing_else() {
    let message =
        analyse("Meal prep and registered dietitian. Shop: www.evil.example <b>now</b> ann@evil.example").message;
    assert!(message.contains("Instagram") && message.contains("nutrition"), "{message}");
    assert!(message.contains("meal prep and registered dietitian"), "{message}");
    assert!(message.contains("24,000") && message.contains("Acme") && message.contains("Ann"), "{message}");
    assert!(!message.contains("evil") && !message.contains('<') && !message.contains('@'), "{message}");
}

#[test]
fn the_confidence_follows_the_evidence() {
    let confidence = |bio: &str| analyse(bio).confidence.get();
    let telling = confidence(
        "Personal trainer and strength coach. Home workouts, powerlifting, calisthenics and fitness tips for busy people, \
         new videos every week",
    );
    let mixed = confidence("Travel, food, gaming, music");
    let nothing = confidence("");
    assert!(telling > 0.7, "{telling}");
    assert!(mixed < telling - 0.2, "{mixed}");
    assert!(nothing < mixed, "{nothing}");
}

#[test]
fn the_answer_to_the_same_question_stays_the_same() {
    let bio = "Travel and photography 📷 | new vlogs weekly | contact: see email";
    assert_eq!(analyse(bio), analyse(bio));
}

/// Bios as creators write them; the generator below adds an invitation or a rhythm to some.
const BIOS: [&str; 24] = [
    "home workouts and strength training ✨",
    "Alles über Hautpflege und Make-up Tutorials.",
    "Je partage voyages en solo et lieux secrets",
    "recetas fáciles y repostería ✨",
    "All about indie games and speedruns.",
    "programação e ferramentas de IA ✨",
    "Condivido finanza personale e investimenti",
    "gentle parenting, mom of two",
    "Leben mit zwei Katzen ✨",
    "décoration maison et bricolage",
    "street photography and film cameras ✨",
    "Todo sobre producción musical y beats.",
    "ceramics studio, handmade pottery",
    "Lehrerin mit Ideen für den Unterricht",
    "critiques de livres et lectures ✨",
    "electric cars and road tests",
    "lixo zero e horta urbana",
    "yoga e meditazione ✨",
    "I share hiking trails and camping gear",
    "outfit ideas and capsule wardrobes",
    "Just vibes ✨",
    "living my best life",
    "personal finance and index funds",
    "vegane Küche für jeden Tag",
];

/// A share of a usual list, chosen by a small generator so that the test needs no library for it.
fn usual_mix(count: u32) -> impl Iterator<Item = Lead> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count).map(move |_| {
        let mut bio = BIOS[(uniform() * BIOS.len() as f64) as usize].to_owned();
        if uniform() < 0.25 {
            bio.push_str(" | new videos every week");
        }
        if uniform() < 0.6 {
            bio.push_str("\nOpen for collabs");
        }
        // Log-normal with a median of about 18,000.
        let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let base = profile();
        lead(Profile {
            bio: Some(bio),
            follower_count: Some((9.8 + 1.3 * normal).exp() as u64),
            email: base.email.clone().filter(|_| uniform() < 0.72),
            profile_url: "https://instagram.com/ann".parse().ok(),
            location: (uniform() < 0.9).then(|| "Berlin".to_owned()),
            verified: uniform() < 0.04,
            ..base
        })
    })
}

#[test]
fn of_a_usual_mix_a_quarter_to_under_a_half_reaches_the_default_threshold() {
    let analyser = LocalAnalyser::new();
    let lists = [
        &[][..],
        &["fitness", "wellness", "nutrition", "beauty", "fashion", "food"],
        &["travel", "food", "home", "books", "technology"],
    ];
    let reached = lists.map(|niches| {
        let program = program(niches);
        let leads = usual_mix(5_000);
        leads.filter(|lead| analyser.analyse(lead, &program).score.get() >= DEFAULT_THRESHOLD).count()
    });
    assert!(reached.iter().all(|reached| (1_250..=2_250).contains(reached)), "{reached:?} of 5000");
}

proptest! {
    #[test]
    fn any_profile_gives_a_bounded_and_inert_answer(
        bio in proptest::option::of("(\\PC|\n|\r|https?://[a-z]{1,8}\\.(com|io)|[a-z]{1,5}@[a-z]{1,5}\\.com|<[a-z]+>|no ads|gym|\\{\\{x\\}\\}){0,60}"),
        name in proptest::option::of("\\PC{0,60}"),
        followers in proptest::option::of(any::<u64>()),
    ) {
        let lead = lead(Profile {
            bio: bio.and_then(|bio| text::multi_line(&bio, BIO_CHARS)),
            name: name.and_then(|name| text::single_line(&name, 200)),
            follower_count: followers,
            ..profile()
        });
        let enrichment = LocalAnalyser::new().analyse(&lead, &program(&["travel"]));
        prop_assert!((0..=100).contains(&enrichment.score.get()));
        prop_assert!(enrichment.message.chars().count() <= domain::enrichment::MESSAGE_CHARS);
        prop_assert!(!enrichment.message.is_empty());
        prop_assert!(!enrichment.message.contains(['<', '>', '@', '{', '}', '\n', '\r', '/']), "{}", enrichment.message);
        prop_assert!(!enrichment.message.contains("http"));
        prop_assert!(enrichment.notes.chars().count() <= NOTES_CHARS);
        prop_assert!(enrichment.niche.chars().count() <= domain::enrichment::NICHE_CHARS);
    }
}
