//! Organisations, and who must not be written to.

use crate::bench::{Bench, mode};
use serde_json::json;
use test_support::postgres::text;

const CREATORS: &str = "\
network,handle,full name,email,followers,bio,country
instagram,ann.bakes,Ann,ann@bakes.example.com,12.3K,I bake bread,US
instagram,bob.bikes,Bob,bob@bikes.example.com,4500,Bikes and more,US
";

#[tokio::test]
async fn an_organisation_is_made_listed_and_joined_and_a_program_names_its_own() {
    let bench = Bench::new().await;
    let made = bench.json(&["organisation", "create", "acme", "--name", "Acme Ltd"]).await;
    assert_eq!((&made["name"], &made["programs"]), (&json!("Acme Ltd"), &json!([])));
    let said = bench.fail(1, &["organisation", "create", "acme"]).await;
    assert!(said.contains("already"), "{said}");
    bench.succeed(&["organisation", "create", "acme", "--if-missing"]).await;
    bench.fail(2, &["organisation", "create", "Acme Ltd"]).await;

    let joined = bench.json(&["program", "create", "coffee", "--organisation", "acme"]).await;
    assert_eq!(joined["organisation"], json!("acme"));
    assert_eq!(bench.json(&["program", "create", "tea"]).await["organisation"], json!("tea"));
    assert!(bench.succeed(&["program", "show", "coffee"]).await.contains("organisation    acme"));
    let listed = bench.json(&["organisation", "list"]).await;
    assert_eq!(
        (&listed[0]["programs"], &listed[1]["programs"], &listed[1]["slug"]),
        (&json!(["coffee"]), &json!(["tea"]), &json!("tea"))
    );
    assert_eq!(bench.json(&["organisation", "show", "acme"]).await, listed[0]);
    let said = bench.fail(1, &["program", "create", "cocoa", "--organisation", "nobody"]).await;
    assert!(said.contains("organisation list"), "{said}");
    bench.cleanup().await;
}

#[tokio::test]
async fn somebody_is_suppressed_shown_and_lifted_cause_by_cause() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let creators = bench.file("creators.csv", CREATORS);
    bench.succeed(&["import", &creators, "--program", "coffee"]).await;

    let ann = "Ann@Bakes.example.com";
    let reason = ["--reason", "is a friend"];
    let by_hand = bench.json(&[&["suppress", ann][..], &reason].concat()).await;
    assert_eq!((&by_hand["added"], &by_hand["recipients"]), (&json!(true), &json!(1)), "{by_hand}");
    assert_eq!(bench.json(&[&["suppress", ann][..], &reason].concat()).await["added"], json!(false));
    let letter = bench.json(&["suppress", ann, "--cause", "objection", "--reason", "a letter of 3 May"]).await;
    assert_eq!((&letter["added"], &letter["recipients"]), (&json!(true), &json!(0)), "{letter}");
    let domain = bench.json(&["suppress", "*.example.com", "--organisation", "coffee", "--reason", "ours"]).await;
    assert_eq!((&domain["kind"], &domain["recipients"]), (&json!("domain"), &json!(1)), "bob too: {domain}");
    let handle = bench.json(&["suppress", "@BOB.bikes", "--reason", "under contract"]).await;
    assert_eq!((&handle["kind"], &handle["recipients"]), (&json!("handle"), &json!(0)), "{handle}");

    let standing = bench.json(&["suppressions", "list", ann]).await;
    let causes: Vec<_> = standing.as_array().unwrap().iter().map(|cause| cause["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["objection", "manual"]);
    assert!(standing[0]["created_by"].as_str().unwrap().starts_with("person:"), "{standing}");
    assert_eq!(bench.json(&["suppressions", "list", "--cause", "manual"]).await.as_array().unwrap().len(), 3);
    // What a person wrote is sealed.
    let evidence = "SELECT string_agg(encode(evidence, 'escape'), ' ') FROM suppression_causes";
    let sealed = text(&mut bench.database.connect().await, evidence).await.unwrap();
    assert!(!sealed.contains("friend") && !sealed.contains("letter"), "{sealed}");

    let said = bench.fail(1, &["suppressions", "lift", ann, "--cause", "objection"]).await;
    assert!(said.contains("--evidence-source") && said.contains("new consent"), "{said}");
    bench.fail(2, &["suppressions", "lift", ann, "--cause", "objection", "--evidence-source", "a form"]).await;
    let said = bench.fail(1, &["suppressions", "lift", ann, "--cause", "complaint"]).await;
    assert!(said.contains("manual (program coffee)") && said.contains("objection"), "{said}");
    let lifted = bench.json(&["suppressions", "lift", ann, "--cause", "manual"]).await;
    assert_eq!((&lifted["lifted"], &lifted["others"]), (&json!("manual"), &json!(["objection"])));
    let consent = ["--evidence-source", "the form on acme.example", "--evidence-wording", "Yes, write to me"];
    let lifted = bench.json(&[&["suppressions", "lift", ann, "--cause", "objection"][..], &consent].concat()).await;
    assert_eq!(lifted["others"], json!([]));
    assert_eq!(bench.count("SELECT count(*) FROM suppressions").await, 2, "the domain still covers both");
    let under_lead =
        "SELECT count(*) FROM suppression_lifts WHERE cause = 'objection' AND evidence_lead_id IS NOT NULL";
    assert_eq!(bench.count(under_lead).await, 1);
    bench.succeed(&["suppressions", "lift", "*.example.com", "--cause", "manual", "--organisation", "coffee"]).await;
    assert_eq!(bench.count("SELECT count(*) FROM suppressions").await, 1, "bob by his user name");

    bench.fail(2, &["suppress", "ann", "--reason", "x"]).await;
    bench.fail(2, &["suppress", ann, "--reason", " "]).await;
    bench.fail(2, &["suppress", "example.com", "--cause", "objection", "--reason", "x"]).await;
    bench.fail(2, &["suppress", ann, "--program", "coffee", "--organisation", "coffee", "--reason", "x"]).await;
    bench.cleanup().await;
}

#[tokio::test]
async fn a_list_is_checked_previewed_imported_once_and_exported_without_names() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let creators = bench.file("creators.csv", CREATORS);
    bench.succeed(&["import", &creators, "--program", "coffee"]).await;
    let list = bench.file(
        "partners.txt",
        "# partners\r\nann@bakes.example.com\r\n\r\n@bob.bikes\r\nacme.example\r\n*.acme.example\r\nANN@bakes.example.com\r\n",
    );
    let import = |more: &[&str]| -> Vec<String> {
        let args = ["suppressions", "import", &list, "--list", "partner"];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    };
    let run = async |more: &[&str]| {
        let args = import(more);
        bench.json(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let preview = run(&["--dry-run"]).await;
    assert_eq!(bench.count("SELECT count(*) FROM suppression_causes").await, 0);
    let found = run(&[]).await;
    for (key, value) in
        [("entries", 5), ("addresses", 2), ("handles", 1), ("domains", 1), ("wildcards", 1), ("added", 4)]
    {
        assert_eq!((&preview[key], &found[key]), (&json!(value), &json!(value)), "{key}: {preview} {found}");
    }
    assert_eq!((&found["known"], &found["recipients"]), (&json!(1), &json!(2)));
    assert_eq!(run(&[]).await["added"], json!(0), "the same file again adds nothing");
    assert_eq!(run(&["--dry-run"]).await["added"], json!(0));

    let out = bench.folder.path().join("out.csv");
    let exported = bench.json(&["suppressions", "export", "--out", out.to_str().unwrap()]).await;
    assert_eq!((&exported["rows"], mode(&out)), (&json!(4), 0o600));
    let csv = std::fs::read_to_string(&out).unwrap();
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(!csv.contains("example") && !csv.contains("bob") && !csv.contains('@'), "{csv}");
    assert!(csv.lines().nth(1).unwrap().contains(",do_not_contact,partner,program coffee,"), "{csv}");
    bench.cleanup().await;
}

#[tokio::test]
async fn a_wrong_line_is_named_and_nothing_of_its_file_is_imported() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let long = "x".repeat(3_000_000);
    let wrong: &[(&str, &[u8], &[&str])] = &[
        ("wildcard", b"ann@example.com\nexample.*\n*@example.com\n", &["line 2: ", "line 3: ", "`*.example.com`"]),
        ("latin", b"ann@example.com\nm\xFCller.example\n", &["line 2: ", "--encoding windows-1252"]),
        ("word", b"email\nann@example.com\n", &["line 1: ", "user name is written with `@`"]),
        ("long", long.as_bytes(), &["line 1: ", "longer"]),
        ("empty", b"# nobody\n\n", &["no entry"]),
    ];
    for (name, bytes, expected) in wrong {
        let path = bench.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let args = ["suppressions", "import", path.to_str().unwrap(), "--list", "customer"];
        for args in [&args[..], &[&args[..], &["--dry-run"]].concat()] {
            let said = bench.fail(1, args).await;
            assert!(expected.iter().all(|text| said.contains(text)), "{name}: {said}");
            assert!(said.contains("nothing was imported"), "{name}: {said}");
        }
    }
    let many = bench.file("many", &"nobody\n".repeat(50));
    let said = bench.fail(1, &["suppressions", "import", &many, "--list", "customer"]).await;
    assert!(said.contains("50 lines are wrong") && said.contains("and 30 more"), "{said}");
    assert_eq!(bench.count("SELECT count(*) FROM suppression_causes").await, 0);

    // In the encoding that it is in, the same file is right; UTF-16 is found out.
    let latin = bench.folder.path().join("latin");
    let latin = latin.to_str().unwrap();
    let import = ["suppressions", "import", latin, "--list", "customer", "--encoding", "windows-1252"];
    assert_eq!(bench.json(&import).await["added"], json!(2));
    let wide: Vec<u8> = "\u{FEFF}carl@example.com\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let path = bench.folder.path().join("wide");
    std::fs::write(&path, wide).unwrap();
    let import = ["suppressions", "import", path.to_str().unwrap(), "--list", "customer"];
    assert_eq!(bench.json(&import).await["added"], json!(1));

    bench.fail(2, &["suppressions", "import", latin, "--list", "friend"]).await;
    bench.fail(2, &["suppressions", "import", latin, "--list", "customer", "--encoding", "klingon"]).await;
    bench.fail(2, &["suppressions", "import", "/dev/null", "--list", "customer"]).await;
    bench.fail(1, &["suppressions", "import", "no-such-file", "--list", "customer"]).await;
    bench.cleanup().await;
}
