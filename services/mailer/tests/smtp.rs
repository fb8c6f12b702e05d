//! The SMTP transport against a server that misbehaves in every way we know of.

use std::{num::NonZeroU32, time::Duration};

use domain::{
    email::EmailAddress,
    smtp_reply::{EnhancedCode, Limit},
};
use mailer::{
    config::{AuthMechanism, DEFAULTS, MailerConfig, SmtpConfig, TlsMode},
    transport::{Failure, SendOutcome, SmtpEnvelope, SmtpTransport},
};
use service::config::{Loader, Secret};
use test_support::smtp::{Action, Encryption, FakeSmtp, Step, StepEvent};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.one\r\n..two\r\nthree\r\n";

fn config(server: &FakeSmtp) -> SmtpConfig {
    let document = Loader::new().defaults(&[DEFAULTS]).load().unwrap();
    let config: MailerConfig = document.section("mailer").unwrap();
    SmtpConfig {
        host: "localhost".to_owned(),
        port: server.address().port(),
        tls: TlsMode::None,
        connections: NonZeroU32::new(2).unwrap(),
        connect_timeout: Duration::from_secs(20),
        command_timeout: Duration::from_secs(20),
        body_timeout: Duration::from_secs(20),
        ..config.smtp
    }
}

/// With limits so short that a hanging server costs little time.
fn impatient(server: &FakeSmtp) -> SmtpConfig {
    let limit = Duration::from_millis(300);
    SmtpConfig { connect_timeout: limit, command_timeout: limit, body_timeout: limit, ..config(server) }
}

fn envelope() -> SmtpEnvelope {
    SmtpEnvelope::new("b+1@sender.example", &EmailAddress::parse("ann@creator.example").unwrap()).unwrap()
}

/// One whole attempt: the outcome of `begin` if it fails, else of `transmit`.
async fn attempt(transport: &SmtpTransport) -> SendOutcome {
    let mut session = transport.session().await;
    match session.begin(&envelope()).await {
        Ok(()) => session.transmit(MESSAGE).await,
        Err(outcome) => outcome,
    }
}

async fn attempt_against(
    impatiently: bool,
    script: impl Fn(&StepEvent<'_>) -> Action + Send + Sync + 'static,
) -> (SendOutcome, FakeSmtp) {
    let server = FakeSmtp::builder().script(script).start().await;
    let config = if impatiently { impatient(&server) } else { config(&server) };
    let outcome = attempt(&SmtpTransport::new(config).unwrap()).await;
    (outcome, server)
}

fn at(step: Step, action: Action) -> impl Fn(&StepEvent<'_>) -> Action + Send + Sync + 'static {
    move |event| if event.step == step { action.clone() } else { Action::Proceed }
}

#[tokio::test]
async fn a_healthy_server_gets_the_message_as_it_is() {
    let (outcome, server) = attempt_against(false, |_| Action::Proceed).await;
    let SendOutcome::Sent { reply } = outcome else { panic!("{outcome:?}") };
    assert_eq!((reply.code, reply.enhanced), (250, Some(EnhancedCode(2, 0, 0))));
    let messages = server.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].mail_from, "b+1@sender.example");
    assert_eq!(messages[0].rcpt_to, ["ann@creator.example"]);
    assert_eq!(messages[0].data, MESSAGE);
}

#[tokio::test]
async fn every_refusal_means_what_the_table_says() {
    for (step, reply, expected) in [
        (Step::Connect, "554 5.7.1 your network is blocked", "sender_refused"),
        (Step::Connect, "421 4.3.2 too busy", "not_started"),
        (Step::Ehlo, "554 no", "not_started"),
        (Step::Mail, "421 4.7.0 too many connections", "account_limited"),
        (Step::Mail, "550 5.7.1 sender refused", "sender_refused"),
        (Step::Mail, "530 5.7.0 authentication required", "credentials"),
        (Step::Rcpt, "450 4.2.0 greylisted", "deferred"),
        (Step::Rcpt, "550 5.1.1 unknown", "failed"),
        (Step::Rcpt, "552 5.2.2 full", "mailbox_full"),
        (Step::Rcpt, "550 5.7.1 inactive mailbox", "policy_refused"),
        (Step::Rcpt, "451 4.7.1 Greylisted, please come back later", "deferred"),
        (Step::Data, "451 4.3.0 later", "deferred"),
        (Step::Data, "554 5.5.1 no valid recipients", "failed"),
        (Step::Dot, "451 4.7.1 slow down", "account_limited"),
        (Step::Dot, "550 5.1.1 unknown after all", "failed"),
        (Step::Dot, "554 5.7.1 spam", "policy_refused"),
        (Step::Dot, "550 5.7.26 unauthenticated", "sender_refused"),
        (Step::Dot, "550 5.4.5 Daily user sending limit exceeded", "account_limited"),
        (Step::Dot, "354 what", "uncertain"),
    ] {
        let (outcome, server) = attempt_against(false, at(step, Action::reply(reply))).await;
        assert_eq!(outcome.name(), expected, "{step:?} {reply}: {outcome:?}");
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn only_a_dead_address_is_a_hard_bounce() {
    for (reply, expected) in [
        ("550 5.1.1 unknown", Failure::HardBounce),
        ("550 5.4.4 no route", Failure::Undeliverable),
        ("550 no", Failure::Message),
    ] {
        let (outcome, _) = attempt_against(false, at(Step::Rcpt, Action::reply(reply))).await;
        assert!(matches!(outcome, SendOutcome::Failed { failure, .. } if failure == expected), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_day_s_quota_is_told_from_a_rate_limit() {
    for (reply, expected) in [
        ("421 4.7.28 rate", Limit::Rate),
        ("450 4.7.1 rate", Limit::Rate),
        ("550 5.4.5 Daily sending quota exceeded", Limit::Quota),
    ] {
        let (outcome, _) = attempt_against(false, at(Step::Rcpt, Action::reply(reply))).await;
        assert!(matches!(outcome, SendOutcome::AccountLimited { limit, .. } if limit == expected), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_has_carried_enough_mails_is_replaced_without_a_trace() {
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Mail if event.transaction == 2 => Action::ReplyAndClose("421 4.7.0 too many messages".to_owned()),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let transport = SmtpTransport::new(config(&server)).unwrap();
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn what_breaks_before_the_body_is_known_not_to_be_sent() {
    for (step, action, expected) in [
        (Step::Connect, Action::Hang, "not_started"),
        (Step::Connect, Action::Close, "not_started"),
        (Step::Ehlo, Action::Hang, "not_started"),
        (Step::Connect, Action::reply("garbage"), "not_started"),
        (Step::Mail, Action::Hang, "deferred"),
        (Step::Mail, Action::reply("garbage"), "deferred"),
        (Step::Rcpt, Action::Close, "deferred"),
        (Step::Rcpt, Action::Hang, "deferred"),
        (Step::Data, Action::Close, "deferred"),
        (Step::Data, Action::Hang, "deferred"),
        (Step::Data, Action::reply("250 not what DATA answers"), "deferred"),
    ] {
        let (outcome, server) = attempt_against(true, at(step, action.clone())).await;
        assert_eq!(outcome.name(), expected, "{step:?} {action:?}: {outcome:?}");
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn what_breaks_after_the_body_began_is_uncertain_whatever_the_server_did() {
    for (step, action, taken) in [
        (Step::Body, Action::Close, 0),
        (Step::Body, Action::Hang, 0),
        (Step::Dot, Action::Close, 0),
        (Step::Dot, Action::TakeAndClose, 1),
        (Step::Dot, Action::Hang, 0),
        (Step::Dot, Action::TakeAndHang, 1),
        (Step::Dot, Action::reply("garbage"), 0),
        (Step::Dot, Action::Flood(b"250-more\r\n".to_vec()), 0),
        (Step::Dot, Action::Flood(vec![b'2'; 1_000]), 0),
    ] {
        let (outcome, server) = attempt_against(true, at(step, action.clone())).await;
        assert_eq!(outcome.name(), "uncertain", "{step:?} {action:?}: {outcome:?}");
        assert_eq!(server.messages().len(), taken);
    }
}

#[tokio::test]
async fn a_reply_without_an_end_is_cut_off_before_it_fills_the_memory() {
    // The limits are long: only the bound on a reply's length can end this in time.
    for flood in [vec![b'2'; 4_096], b"250-more\r\n".repeat(100)] {
        let attempt = attempt_against(false, at(Step::Mail, Action::Flood(flood)));
        let (outcome, _) = tokio::time::timeout(Duration::from_secs(10), attempt).await.unwrap();
        assert_eq!(outcome.name(), "deferred", "{outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_leaves_the_mail_in_the_queue() {
    let server = FakeSmtp::start().await;
    let config = config(&server);
    drop(server);
    // The listener closes when its task is gone; until then a connection ends without a greeting, which is the same.
    let outcome = attempt(&SmtpTransport::new(config).unwrap()).await;
    assert_eq!(outcome.name(), "not_started", "{outcome:?}");
}

#[tokio::test]
async fn one_connection_carries_many_mails_until_it_has_had_enough() {
    let server = FakeSmtp::start().await;
    let config = SmtpConfig { mails_per_connection: NonZeroU32::new(3).unwrap(), ..config(&server) };
    let transport = SmtpTransport::new(config).unwrap();
    for _ in 0..7 {
        assert_eq!(attempt(&transport).await.name(), "sent");
    }
    assert_eq!(server.connections(), 3);
    assert_eq!(server.messages().len(), 7);
}

#[tokio::test]
async fn a_refused_recipient_does_not_cost_the_connection() {
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Rcpt if event.transaction == 1 => Action::reply("550 5.1.1 unknown"),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let transport = SmtpTransport::new(config(&server)).unwrap();
    assert_eq!(attempt(&transport).await.name(), "failed");
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_without_a_trace() {
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            // The second MAIL of the first connection finds it dead.
            Step::Mail if event.connection == 0 && event.transaction == 2 => Action::Close,
            _ => Action::Proceed,
        })
        .start()
        .await;
    let transport = SmtpTransport::new(config(&server)).unwrap();
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(server.connections(), 2);
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test]
async fn a_connection_whose_fate_is_unknown_is_never_used_again() {
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Dot if event.connection == 0 => Action::TakeAndHang,
            _ => Action::Proceed,
        })
        .start()
        .await;
    let transport = SmtpTransport::new(impatient(&server)).unwrap();
    assert_eq!(attempt(&transport).await.name(), "uncertain");
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_abandoned_transaction_sends_nothing_and_keeps_the_connection() {
    let server = FakeSmtp::start().await;
    let transport = SmtpTransport::new(config(&server)).unwrap();
    let mut session = transport.session().await;
    session.begin(&envelope()).await.unwrap();
    session.abandon().await;
    drop(session);
    assert_eq!(attempt(&transport).await.name(), "sent");
    assert_eq!(server.connections(), 1);
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn no_more_transactions_run_at_once_than_are_configured() {
    let server = FakeSmtp::start().await;
    let transport = SmtpTransport::new(config(&server)).unwrap();
    let (one, _two) = (transport.session().await, transport.session().await);
    let third = transport.session();
    tokio::pin!(third);
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    drop(one);
    third.await;
}

async fn encrypted(encryption: Encryption, tls: TlsMode) -> (FakeSmtp, SmtpConfig, tempfile::TempDir) {
    let server = FakeSmtp::builder().encryption(encryption).login("zoe", "s3cret").start().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, server.authority_pem()).unwrap();
    let config = SmtpConfig {
        tls,
        ca_file: Some(ca_file),
        username: Some("zoe".to_owned()),
        password: Some(Secret::new("s3cret".to_owned())),
        ..config(&server)
    };
    (server, config, folder)
}

#[tokio::test]
async fn both_kinds_of_tls_and_every_login_work() {
    for (encryption, tls) in [(Encryption::StartTls, TlsMode::Starttls), (Encryption::Implicit, TlsMode::Implicit)] {
        for auth in [AuthMechanism::Plain, AuthMechanism::Login, AuthMechanism::Xoauth2] {
            let (server, config, _folder) = encrypted(encryption, tls).await;
            let outcome = attempt(&SmtpTransport::new(SmtpConfig { auth, ..config }).unwrap()).await;
            assert_eq!(outcome.name(), "sent", "{tls:?} {auth:?}: {outcome:?}");
            let messages = server.messages();
            assert!(messages[0].encrypted);
            assert_eq!(messages[0].user.as_deref(), Some("zoe"));
            assert_eq!(messages[0].data, MESSAGE);
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_apart_from_everything_else() {
    for auth in [AuthMechanism::Plain, AuthMechanism::Login, AuthMechanism::Xoauth2] {
        let (server, config, _folder) = encrypted(Encryption::StartTls, TlsMode::Starttls).await;
        let wrong = SmtpConfig { auth, password: Some(Secret::new("other".to_owned())), ..config };
        let outcome = attempt(&SmtpTransport::new(wrong).unwrap()).await;
        assert!(matches!(&outcome, SendOutcome::Credentials { reply } if reply.code == 535), "{outcome:?}");
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn xoauth2_reads_the_refusal_behind_the_challenge() {
    let (server, config, _folder) = encrypted(Encryption::StartTls, TlsMode::Starttls).await;
    // The empty answer to the challenge isn't a command; the server's own reply to it is the refusal.
    server.set_script(at(Step::Auth, Action::reply("334 eyJzdGF0dXMiOiI0MDEifQ==\r\n535 5.7.8 token expired")));
    let config = SmtpConfig { auth: AuthMechanism::Xoauth2, ..config };
    let outcome = attempt(&SmtpTransport::new(config).unwrap()).await;
    assert!(matches!(&outcome, SendOutcome::Credentials { reply } if reply.code == 535), "{outcome:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_before_the_password_is_said() {
    for (encryption, tls) in [(Encryption::StartTls, TlsMode::Starttls), (Encryption::Implicit, TlsMode::Implicit)] {
        let (server, config, _folder) = encrypted(encryption, tls).await;
        let system = SmtpConfig { ca_file: None, ..config };
        let outcome = attempt(&SmtpTransport::new(system).unwrap()).await;
        assert!(
            matches!(&outcome, SendOutcome::NotStarted { reason } if reason.starts_with("smtp_tls: ")),
            "{outcome:?}"
        );
        assert!(!server.commands().iter().any(|command| command.starts_with("AUTH")));
    }
}

#[tokio::test]
async fn a_server_that_hides_starttls_gets_neither_password_nor_mail() {
    let (_, config, _folder) = encrypted(Encryption::StartTls, TlsMode::Starttls).await;
    let plain = FakeSmtp::builder().login("zoe", "s3cret").start().await;
    let config = SmtpConfig { port: plain.address().port(), ..config };
    let outcome = attempt(&SmtpTransport::new(config).unwrap()).await;
    assert_eq!(outcome, SendOutcome::NotStarted { reason: "smtp_no_starttls".to_owned() });
    assert!(!plain.commands().iter().any(|command| command.starts_with("AUTH") || command.starts_with("MAIL")));
}

#[tokio::test]
async fn replies_slipped_in_before_tls_are_not_taken_for_encrypted_ones() {
    let (server, config, _folder) = encrypted(Encryption::StartTls, TlsMode::Starttls).await;
    server.set_script(at(Step::StartTls, Action::reply("220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n235 welcome")));
    let outcome = attempt(&SmtpTransport::new(impatient_like(config)).unwrap()).await;
    assert_eq!(outcome.name(), "not_started", "{outcome:?}");
    assert!(!server.commands().iter().any(|command| command.starts_with("AUTH")));
}

fn impatient_like(config: SmtpConfig) -> SmtpConfig {
    let limit = Duration::from_millis(500);
    SmtpConfig { connect_timeout: limit, command_timeout: limit, ..config }
}
