//! Files into the database.

use std::{path::Path, sync::Arc};

use collector::{
    import::{ImportOptions, import_file},
    intake::{CollectError, Summary},
    rejects,
    source::file::FileOptions,
};
use domain::lead::SourceName;
use store::intake::Dedupe;
use test_support::messy;
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

async fn import(fixture: &Fixture, path: &Path, options: &ImportOptions) -> Result<Summary, CollectError> {
    let cancel = CancellationToken::new();
    import_file(&fixture.intake, Arc::clone(&fixture.program), path, options, &cancel, |_| {}).await
}

async fn import_text(fixture: &Fixture, text: &str) -> Summary {
    let path = fixture.file("leads.csv", text);
    import(fixture, &path, &ImportOptions::default()).await.unwrap()
}

#[tokio::test]
async fn every_row_of_a_messy_file_is_accounted_for() {
    let fixture = Fixture::new().await;
    let path = fixture.path("messy.csv");
    let expected = messy::generate(&path, 6_000, 1).unwrap();
    let summary = import(&fixture, &path, &ImportOptions::default()).await.unwrap();
    assert_eq!(summary.counts.rows(), expected.rows);
    assert_eq!(summary.counts.accepted, expected.accepted);
    assert_eq!(summary.counts.duplicates, expected.duplicates);
    assert_eq!(summary.counts.rejected, expected.rejected_total());
    let status = fixture.status().await;
    assert_eq!(status.leads.accepted as u64, expected.accepted);
    assert_eq!(status.leads.rejected as u64, expected.rejected_total());
    assert_eq!((status.outbox.due + status.outbox.scheduled) as u64, expected.accepted, "one event per lead");

    let mut file = Vec::new();
    let written = rejects::export(&fixture.db, &fixture.program, Some(summary.run_id), &mut file).await.unwrap();
    assert_eq!(written, expected.rejected_total());
    let mut reasons = std::collections::BTreeMap::<String, u64>::new();
    for row in csv::Reader::from_reader(file.as_slice()).records() {
        *reasons.entry(row.unwrap()[2].to_owned()).or_default() += 1;
    }
    let expected: std::collections::BTreeMap<String, u64> =
        expected.rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn an_import_that_broke_off_and_runs_again_adds_up() {
    let fixture = Fixture::new().await;
    let path = fixture.path("messy.csv");
    let expected = messy::generate(&path, 6_000, 2).unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let (program, options) = (Arc::clone(&fixture.program), ImportOptions::default());
    let first = import_file(&fixture.intake, program, &path, &options, &cancel, move |counts| {
        if counts.rows() >= 1_500 {
            stop.cancel();
        }
    })
    .await
    .unwrap();
    assert!(!first.complete);
    let taken = first.counts.rows();
    assert!((1_500..6_000).contains(&taken), "{taken}");

    let second = import(&fixture, &path, &options).await.unwrap();
    assert_eq!(second.counts.rows(), expected.rows);
    assert_eq!(first.counts.accepted + second.counts.accepted, expected.accepted);
    assert_eq!(first.counts.rejected_new + second.counts.rejected_new, expected.rejected_total());
    let status = fixture.status().await;
    assert_eq!(status.leads.accepted as u64, expected.accepted);
    assert_eq!(status.leads.rejected as u64, expected.rejected_total());
    assert_eq!((status.outbox.due + status.outbox.scheduled) as u64, expected.accepted);

    let third = import(&fixture, &path, &options).await.unwrap();
    assert_eq!(third.counts.accepted, 0);
    assert_eq!(third.counts.duplicates, expected.accepted + expected.duplicates);
    assert_eq!(third.counts.rejected_new, 0);
}

#[tokio::test]
async fn what_is_no_list_of_creators_is_refused_before_anything_is_written() {
    let fixture = Fixture::new().await;
    for (content, said) in [
        (&b"PK\x03\x04\x00\x00"[..], "Excel"),
        (b"", "empty"),
        (b"<!DOCTYPE html><p>x", "HTML"),
        (b"a,b\n1,2\n", "--map"),
        (b"username,email\nann,a@example.com\n", "--source"),
        (b"{\"a\":1}\n{\"b\":2}\n", "--map"),
        (b"{\n  \"username\": \"ann\"\n}\n", "one object a line"),
        (b"[{\"username\": \"ann\"}]", "jq"),
        (b"\x00\x01\x02\x03\x80", "binary"),
        (b"just a sentence without any columns", "--map"),
    ] {
        let path = fixture.file("x", content);
        let error = import(&fixture, &path, &ImportOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let missing = import(&fixture, Path::new("/nowhere/x.csv"), &ImportOptions::default()).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/x.csv"));
    let status = fixture.status().await;
    assert_eq!((status.leads.accepted, status.leads.rejected), (0, 0));
}

#[tokio::test]
async fn json_lines_are_imported_and_their_defects_named() {
    let fixture = Fixture::new().await;
    let text = "{\"username\":\"ann\",\"platform\":\"instagram\",\"email\":\"ann@example.com\",\"followersCount\":1200}\n\
                \n\
                {\"user\":{\"uniqueId\":\"bob\",\"url\":\"https://tiktok.com/@bob\"}}\n\
                {\"username\":\"cut off\n\
                [1,2]\n\
                {\"username\":\"eve\",\"platform\":\"instagram\",\"email\":{\"x\":1}}\n";
    let path = fixture.file("leads.txt", text);
    let summary = import(&fixture, &path, &ImportOptions::default()).await.unwrap();
    assert_eq!((summary.counts.accepted, summary.counts.rejected), (2, 3));
    let mut file = Vec::new();
    rejects::export(&fixture.db, &fixture.program, None, &mut file).await.unwrap();
    let file = String::from_utf8(file).unwrap();
    for expected in ["4,row,malformed", "5,row,malformed", "6,email,invalid"] {
        assert!(file.contains(expected), "{file}");
    }
}

#[tokio::test]
async fn utf_16_semicolons_and_a_mapping_are_understood() {
    let fixture = Fixture::new().await;
    let text = "Wer;Adresse;Abonnenten\r\nänn;ann@example.com;1,2 Mio\r\nbob;bob@example.com;viele\r\n";
    let bytes: Vec<u8> = [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let path = fixture.file("leads.csv", bytes);
    let options = ImportOptions {
        file: FileOptions {
            mappings: vec!["Wer=username".parse().unwrap(), "Adresse=email".parse().unwrap()],
            source: Some(SourceName::parse("instagram").unwrap()),
            ..FileOptions::default()
        },
        dedupe: Dedupe::Skip,
        terms: None,
    };
    let summary = import(&fixture, &path, &options).await.unwrap();
    assert_eq!((summary.counts.accepted, summary.counts.rejected), (1, 1));
}

#[tokio::test]
async fn an_update_takes_the_last_row_and_tells_of_it_once() {
    let fixture = Fixture::new().await;
    let head = "source,username,email,followers\n";
    import_text(&fixture, &format!("{head}instagram,ann,ann@example.com,100\n")).await;
    let path = fixture.file("again.csv", format!("{head}instagram,ANN,ann@example.com,200\n"));
    let options = ImportOptions { dedupe: Dedupe::Update, ..ImportOptions::default() };
    let updated = import(&fixture, &path, &options).await.unwrap();
    assert_eq!(updated.counts.updated, 1);
    let same = import(&fixture, &path, &options).await.unwrap();
    assert_eq!((same.counts.updated, same.counts.duplicates), (0, 1));
    let status = fixture.status().await;
    assert_eq!(status.outbox.due + status.outbox.scheduled, 2, "created and updated");
}

#[tokio::test]
async fn evidence_comes_in_by_columns_and_half_a_consent_rejects_its_row() {
    let fixture = Fixture::new().await;
    let rows = "\
network,handle,email,country,Consent Source,consent_wording,Consent at,consent_expires_at,Address Source URL
instagram,ann,ann@example.com,DE,https://acme.example/form,Yes please,2026-05-01,2099-01-01,
instagram,bob,bob@example.com,FR,,,,,https://bob.example/contact
instagram,cy,cy@example.com,DE,https://acme.example/form,Yes please,,,
instagram,dee,dee@example.com,DE,https://acme.example/form,,2026-05-01,,
instagram,eve,eve@example.com,DE,https://acme.example/form,Yes please,2099-01-01,,
instagram,flo,flo@example.com,DE,https://acme.example/form,Yes please,2020-01-01,2021-01-01,
instagram,gus,gus@example.com,\"Hamburg, Germany\",,,,,
";
    let path = fixture.file("may.csv", rows);
    let options = ImportOptions { terms: Some("https://acme.example/terms".to_owned()), ..ImportOptions::default() };
    let summary = import(&fixture, &path, &options).await.unwrap();
    assert_eq!((summary.counts.accepted, summary.counts.rejected), (3, 4));

    let mut file = Vec::new();
    rejects::export(&fixture.db, &fixture.program, None, &mut file).await.unwrap();
    let file = String::from_utf8(file).unwrap();
    for expected in [
        "4,consent_at,missing,consent needs the time",
        "5,consent_wording,missing,consent needs the words",
        "6,consent_at,invalid,it lies in the future",
        "7,consent_expires_at,invalid,the consent has expired",
    ] {
        assert!(file.contains(expected), "{expected} is not in {file}");
    }
    let found = fixture.text(
        "SELECT string_agg(concat_ws(' ', l.line, l.country_source, e.kind, e.line, e.expires_at IS NULL, r.terms,
                                     octet_length(r.file_name) > 20), '; ' ORDER BY l.line)
         FROM leads l JOIN collection_runs r ON r.id = l.run_id LEFT JOIN contact_evidence e ON e.lead_id = l.id",
    );
    assert_eq!(
        found.await,
        "2 1 1 2 f https://acme.example/terms t; 3 1 2 3 t https://acme.example/terms t; \
         8 1 t https://acme.example/terms t"
    );
}

#[tokio::test]
async fn consent_that_comes_in_later_is_taken_over_by_an_update() {
    let fixture = Fixture::new().await;
    import_text(&fixture, "source,username,email\ninstagram,ann,ann@example.com\n").await;
    let with_consent = "source,username,email,consent_source,consent_wording,consent_at\n\
                        instagram,ann,ann@example.com,a form,Yes please,2026-05-01\n";
    let path = fixture.file("later.csv", with_consent);
    let update = ImportOptions { dedupe: Dedupe::Update, ..ImportOptions::default() };
    for (options, updated, rows) in [(&ImportOptions::default(), 0, "0"), (&update, 1, "1"), (&update, 0, "1")] {
        let summary = import(&fixture, &path, options).await.unwrap();
        assert_eq!((summary.counts.updated, summary.counts.duplicates), (updated, 1 - updated));
        assert_eq!(fixture.text("SELECT count(*)::text FROM contact_evidence").await, rows);
    }
    assert_eq!(fixture.text("SELECT revision::text FROM leads").await, "2", "it is analysed and decided about again");
}
