//! The HTTP ingest, over a real socket.

use std::{sync::Arc, time::Duration};

use collector::http::Ingest;
use domain::clock::{Clock, SystemClock};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use store::api_keys;
use tokio::net::TcpListener;

use crate::fixture::{Fixture, program};

struct Server {
    fixture: Fixture,
    client: Client,
    url: String,
    key: String,
}

impl Server {
    async fn start() -> Self {
        service::tls::install_provider();
        let fixture = Fixture::new().await;
        let key = key_of(&fixture, &fixture.program).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/leads", listener.local_addr().unwrap());
        let ingest = Ingest::new(fixture.intake.clone(), fixture.directory.clone(), Duration::from_secs(5));
        tokio::spawn(async move { axum::serve(listener, ingest.router(64 * 1024)).await.unwrap() });
        Self { fixture, client: Client::new(), url, key }
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        self.client.post(&self.url).bearer_auth(&self.key).body(body).send().await.unwrap()
    }

    async fn leads(&self) -> i64 {
        self.fixture.status().await.leads.accepted
    }
}

async fn key_of(fixture: &Fixture, program: &Arc<store::programs::OpenProgram>) -> String {
    let id = program.program.id;
    let now = SystemClock.now();
    fixture
        .db
        .transact("test.key", |tx, _| Box::pin(async move { api_keys::create(tx, id, "test", now).await }))
        .await
        .unwrap()
}

fn lead(username: &str) -> Value {
    json!({"source": "instagram", "username": username, "email": format!("{username}@example.com"), "follower_count": 12})
}

async fn problem(response: Response) -> (StatusCode, Value) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status.as_u16());
    assert!(body["title"].is_string() && body["detail"].is_string());
    (status, body)
}

#[tokio::test]
async fn each_item_gets_its_result() {
    let server = Server::start().await;
    let items = json!({"leads": [lead("ann"), {"source": "instagram", "username": "bob"}, lead("ANN"), lead("eve")]});
    let response = server.post(items.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    let results: Vec<&str> =
        body["results"].as_array().unwrap().iter().map(|item| item["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["accepted", "rejected", "duplicate", "accepted"]);
    assert_eq!(body["results"][1]["field"], "contact");
    assert_eq!(body["results"][0]["id"], body["results"][2]["id"]);
    assert_eq!(body["counts"], json!({"accepted": 2, "updated": 0, "duplicates": 1, "rejected": 1}));
    let again: Value = server.post(lead("ann").to_string()).await.json().await.unwrap();
    assert_eq!(again["results"][0]["result"], "duplicate");
    assert_eq!(server.leads().await, 2);
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_another_one_is_refused() {
    let server = Server::start().await;
    let send = |body: Value| {
        server
            .client
            .post(&server.url)
            .bearer_auth(&server.key)
            .header("Idempotency-Key", "k1")
            .body(body.to_string())
            .send()
    };
    let first = send(lead("ann")).await.unwrap().bytes().await.unwrap();
    let second = send(lead("ann")).await.unwrap();
    assert_eq!(second.headers()["idempotent-replayed"], "true");
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(parse(&first), parse(&second.bytes().await.unwrap()));
    let (status, _) = problem(send(lead("bob")).await.unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(server.leads().await, 1);
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_done_once() {
    let server = Server::start().await;
    let body = json!([lead("ann"), lead("bob")]).to_string();
    let send = || {
        server
            .client
            .post(&server.url)
            .bearer_auth(&server.key)
            .header("Idempotency-Key", "k")
            .body(body.clone())
            .send()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| send())).await;
    let mut bodies = Vec::new();
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        bodies.push(answer.json::<Value>().await.unwrap());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0] && body["counts"]["accepted"] == 2));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_nothing_is_stored() {
    let server = Server::start().await;
    let (status, body) = problem(server.post(r#"{"leads":[{"username":"a"},{"email":{}}]}"#).await).await;
    assert_eq!((status, &body["path"]), (StatusCode::BAD_REQUEST, &json!("leads[1].email")));
    assert_eq!(problem(server.post("{\"username\":").await).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(problem(server.post("x".repeat(70_000)).await).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let many = json!(vec![json!({}); 1_001]).to_string();
    assert_eq!(problem(server.post(many).await).await.0, StatusCode::PAYLOAD_TOO_LARGE);

    let anonymous = server.client.post(&server.url).body("{}").send().await.unwrap();
    assert_eq!(anonymous.headers()["www-authenticate"], "Bearer");
    assert_eq!(problem(anonymous).await.0, StatusCode::UNAUTHORIZED);
    let wrong = server.client.post(&server.url).bearer_auth("lmi_wrong").body("{}").send().await.unwrap();
    assert_eq!(problem(wrong).await.0, StatusCode::UNAUTHORIZED);
    for slug in ["nobody", "other"] {
        let url = format!("{}?program={slug}", server.url);
        let response =
            server.client.post(url).bearer_auth(&server.key).body(lead("ann").to_string()).send().await.unwrap();
        assert_eq!(problem(response).await.0, StatusCode::NOT_FOUND);
    }
    let got = server.client.get(&server.url).send().await.unwrap();
    assert_eq!(problem(got).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let status = server.fixture.status().await;
    assert_eq!((status.leads.accepted, status.leads.rejected), (0, 0));
}

#[tokio::test]
async fn a_key_stores_for_its_own_program_only() {
    let server = Server::start().await;
    let other = program(&server.fixture.db, &server.fixture.intake.vault, "other").await;
    let key = key_of(&server.fixture, &other).await;
    let url = format!("{}?program=other", server.url);
    let response = server.client.post(url).bearer_auth(key).body(lead("ann").to_string()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let own: Value = server.post(lead("ann").to_string()).await.json().await.unwrap();
    assert_eq!(own["results"][0]["result"], "accepted", "one creator is a lead of each program");
    assert_eq!(server.leads().await, 2);
}

#[tokio::test]
async fn evidence_comes_in_by_fields_and_is_refused_with_its_field() {
    let server = Server::start().await;
    let consent = json!({"consent_source": "https://acme.example/form", "consent_wording": "Yes please",
                         "consent_at": "2026-05-01T10:00:00+02:00", "consent_expires_at": "2099-01-01"});
    let with = |username: &str, changes: Value| {
        let mut item = lead(username);
        for more in [&consent, &changes] {
            item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        item
    };
    let items = json!([
        with("ann", json!({"address_source_url": "https://ann.example/contact", "address_seen_at": "2026-05-02"})),
        with("bob", json!({"consent_at": null})),
        with("cy", json!({"consent_wording": ""})),
        with("dee", json!({"consent_at": "2098-01-01"})),
        with("eve", json!({"consent_expires_at": "2026-05-02"})),
    ]);
    let answer: Value = server.post(items.to_string()).await.json().await.unwrap();
    let told: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["result"].as_str().unwrap(), result["field"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            ("accepted", ""),
            ("rejected", "consent_at"),
            ("rejected", "consent_wording"),
            ("rejected", "consent_at"),
            ("rejected", "consent_expires_at"),
        ],
        "{answer}"
    );
    let stored = "SELECT string_agg(kind || ' ' || line || ' ' || (captured_at AT TIME ZONE 'UTC'), '; ' ORDER BY kind)
                  FROM contact_evidence";
    assert_eq!(server.fixture.text(stored).await, "1 1 2026-05-01 08:00:00; 2 1 2026-05-02 00:00:00");
}

#[tokio::test]
async fn the_terms_of_the_data_are_kept_with_the_run() {
    let server = Server::start().await;
    for (terms, username) in [("", "ann"), ("?terms=partner%20list%202026", "bob"), ("?terms=partner+list+2026", "cy")]
    {
        let request = server.client.post(format!("{}{terms}", server.url)).bearer_auth(&server.key);
        assert_eq!(request.body(lead(username).to_string()).send().await.unwrap().status(), StatusCode::OK);
    }
    let kept =
        "SELECT string_agg(coalesce(terms, '-') || ' ' || accepted, '; ' ORDER BY accepted) FROM collection_runs";
    assert_eq!(server.fixture.text(kept).await, "- 1; partner list 2026 2");
    for terms in ["?terms=", &format!("?terms={}", "x".repeat(501))] {
        let request = server.client.post(format!("{}{terms}", server.url)).bearer_auth(&server.key);
        let (status, body) = problem(request.body(lead("dee").to_string()).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body["detail"].as_str().unwrap().contains("terms"), "{body}");
    }
}
