//! One client's session.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Action, Encryption, Received, Shared, Step, StepEvent};

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Whether the session goes on.
enum Flow {
    Continue,
    /// The client may start the TLS handshake.
    Encrypt,
    Close,
}

struct Session {
    stream: BufReader<Box<dyn Socket>>,
    shared: Arc<Shared>,
    connection: usize,
    transaction: usize,
    encrypted: bool,
    user: Option<String>,
    mail_from: Option<String>,
    rcpt_to: Vec<String>,
}

/// Serves a client until one of both hangs up; what goes wrong on the wire just ends the session.
pub(super) async fn serve(socket: TcpStream, connection: usize, shared: Arc<Shared>) {
    let _ = run(socket, connection, shared).await;
}

async fn run(socket: TcpStream, connection: usize, shared: Arc<Shared>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let encrypted = shared.encryption == Encryption::Implicit;
    let stream: Box<dyn Socket> =
        if encrypted { Box::new(shared.acceptor.accept(socket).await?) } else { Box::new(socket) };
    let mut session = Session {
        stream: BufReader::new(stream),
        shared,
        connection,
        transaction: 0,
        encrypted,
        user: None,
        mail_from: None,
        rcpt_to: Vec::new(),
    };
    match session.act(Step::Connect, "").await? {
        Some(Flow::Close) => return Ok(()),
        Some(_) => {}
        None => session.say("220 fake.test ESMTP").await?,
    }
    loop {
        let mut line = String::new();
        if (&mut session.stream).take(4_096).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        session.shared.commands.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.clone());
        match session.command(&line).await? {
            Flow::Continue => {}
            Flow::Encrypt => session = session.encrypt().await?,
            Flow::Close => return Ok(()),
        }
    }
}

impl Session {
    async fn command(&mut self, line: &str) -> io::Result<Flow> {
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let step = match verb.as_str() {
            "EHLO" | "HELO" => Step::Ehlo,
            "STARTTLS" => Step::StartTls,
            "AUTH" => Step::Auth,
            "MAIL" => Step::Mail,
            "RCPT" => Step::Rcpt,
            "DATA" => Step::Data,
            "RSET" => Step::Rset,
            "NOOP" => Step::Noop,
            "QUIT" => Step::Quit,
            _ => {
                self.say("500 5.5.2 unknown command").await?;
                return Ok(Flow::Continue);
            }
        };
        if step == Step::Mail {
            self.transaction += 1;
        }
        if let Some(flow) = self.act(step, line).await? {
            return Ok(flow);
        }
        match step {
            Step::Ehlo => self.offer().await?,
            Step::StartTls if self.shared.encryption == Encryption::StartTls && !self.encrypted => {
                self.say("220 go ahead").await?;
                return Ok(Flow::Encrypt);
            }
            Step::StartTls => self.say("502 5.5.1 no TLS").await?,
            Step::Auth => self.log_in(line).await?,
            Step::Mail if self.shared.login.is_some() && self.user.is_none() => {
                self.say("530 5.7.0 authentication required").await?;
            }
            Step::Mail => {
                self.mail_from = Some(path(line));
                self.rcpt_to.clear();
                self.say("250 2.1.0 ok").await?;
            }
            Step::Rcpt if self.mail_from.is_none() => self.say("503 5.5.1 MAIL first").await?,
            Step::Rcpt => {
                self.rcpt_to.push(path(line));
                self.say("250 2.1.5 ok").await?;
            }
            Step::Data if self.rcpt_to.is_empty() => self.say("503 5.5.1 RCPT first").await?,
            Step::Data => return self.receive().await,
            Step::Quit => {
                self.say("221 2.0.0 bye").await?;
                return Ok(Flow::Close);
            }
            Step::Rset => {
                self.reset();
                self.say("250 2.0.0 ok").await?;
            }
            Step::Noop | Step::Connect | Step::Body | Step::Dot => self.say("250 2.0.0 ok").await?,
        }
        Ok(Flow::Continue)
    }

    /// Asks the script; `None` when the server shall go on as a healthy one.
    async fn act(&mut self, step: Step, argument: &str) -> io::Result<Option<Flow>> {
        let action = self.ask(step, argument);
        self.perform(action).await
    }

    fn ask(&self, step: Step, argument: &str) -> Action {
        let event = StepEvent { step, argument, connection: self.connection, transaction: self.transaction };
        self.shared.action(&event)
    }

    async fn perform(&mut self, action: Action) -> io::Result<Option<Flow>> {
        match action {
            Action::Proceed => Ok(None),
            Action::Delay(time) | Action::TakeAndDelay(time) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Action::Reply(line) => {
                self.say(&line).await?;
                Ok(Some(Flow::Continue))
            }
            Action::DelayedReply(time, line) => {
                tokio::time::sleep(time).await;
                self.say(&line).await?;
                Ok(Some(Flow::Continue))
            }
            Action::ReplyAndClose(line) => {
                self.say(&line).await?;
                Ok(Some(Flow::Close))
            }
            Action::Drip(line) => {
                for byte in format!("{line}\r\n").bytes() {
                    self.stream.get_mut().write_all(&[byte]).await?;
                    self.stream.get_mut().flush().await?;
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                Ok(Some(Flow::Continue))
            }
            Action::Flood(bytes) => loop {
                self.stream.get_mut().write_all(&bytes).await?;
            },
            Action::Close | Action::TakeAndClose => Ok(Some(Flow::Close)),
            Action::Hang | Action::TakeAndHang => self.hang().await,
        }
    }

    async fn hang(&mut self) -> io::Result<Option<Flow>> {
        let mut sink = [0; 4_096];
        while self.stream.read(&mut sink).await? > 0 {}
        Ok(Some(Flow::Close))
    }

    async fn receive(&mut self) -> io::Result<Flow> {
        self.say("354 go ahead").await?;
        let mut data = Vec::new();
        let mut first = true;
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(Flow::Close);
            }
            if first {
                first = false;
                if let Some(flow) = self.act(Step::Body, "").await? {
                    return Ok(flow);
                }
            }
            if line == b".\r\n" {
                break;
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let message = Received {
            mail_from: self.mail_from.clone().unwrap_or_default(),
            rcpt_to: self.rcpt_to.clone(),
            data,
            connection: self.connection,
            user: self.user.clone(),
            encrypted: self.encrypted,
        };
        let recipients = self.rcpt_to.join(",");
        self.reset();
        let action = self.ask(Step::Dot, &recipients);
        let taken = matches!(action, Action::TakeAndClose | Action::TakeAndHang | Action::TakeAndDelay(_));
        if taken {
            self.shared.take(message.clone());
        }
        if let Some(flow) = self.perform(action).await? {
            return Ok(flow);
        }
        if !taken {
            self.shared.take(message);
        }
        self.say("250 2.0.0 queued").await?;
        Ok(Flow::Continue)
    }

    async fn offer(&mut self) -> io::Result<()> {
        let mut lines = vec!["fake.test".to_owned(), "ENHANCEDSTATUSCODES".to_owned()];
        lines.extend(self.shared.extensions.iter().cloned());
        if self.shared.encryption == Encryption::StartTls && !self.encrypted {
            lines.push("STARTTLS".to_owned());
        }
        if self.shared.login.is_some() {
            lines.push("AUTH PLAIN LOGIN XOAUTH2".to_owned());
        }
        let last = lines.len() - 1;
        let reply: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
            .collect();
        self.say(&reply.join("\r\n")).await
    }

    async fn log_in(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().and_then(decode);
        let found = match (mechanism.as_str(), initial) {
            ("PLAIN", Some(text)) => text
                .strip_prefix('\0')
                .and_then(|rest| rest.split_once('\0').map(|(user, password)| (user.to_owned(), password.to_owned()))),
            ("XOAUTH2", Some(text)) => text.strip_prefix("user=").and_then(|rest| {
                let (user, rest) = rest.split_once("\x01auth=Bearer ")?;
                Some((user.to_owned(), rest.strip_suffix("\x01\x01")?.to_owned()))
            }),
            ("LOGIN", _) => {
                self.say("334 VXNlcm5hbWU6").await?;
                let user = self.answer().await?;
                self.say("334 UGFzc3dvcmQ6").await?;
                user.zip(self.answer().await?)
            }
            _ => None,
        };
        if found.is_some() && found == self.shared.login {
            self.user = found.map(|(user, _)| user);
            self.say("235 2.7.0 welcome").await
        } else {
            self.say("535 5.7.8 credentials invalid").await
        }
    }

    async fn answer(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        (&mut self.stream).take(4_096).read_line(&mut line).await?;
        Ok(decode(line.trim_end()))
    }

    async fn encrypt(self) -> io::Result<Self> {
        let stream: Box<dyn Socket> = Box::new(self.shared.acceptor.accept(self.stream.into_inner()).await?);
        Ok(Self { stream: BufReader::new(stream), encrypted: true, ..self })
    }

    fn reset(&mut self) {
        self.mail_from = None;
        self.rcpt_to.clear();
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        stream.flush().await
    }
}

/// What stands between the angle brackets of a `MAIL` or `RCPT` command.
fn path(line: &str) -> String {
    line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned()).unwrap_or_default()
}

fn decode(text: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    String::from_utf8(bytes).ok()
}
