//! A binary that is started again whenever it ends.

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::{sync::Mutex, time::sleep};

use crate::{
    faults::network::Network,
    process::{Process, Starting},
    stack::Stack,
};

/// What an orchestrator waits before it kills.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long a process that was asked to end is left to its work before it is asked again.
const DRAINING: Duration = Duration::from_millis(700);

/// A replica of a service, on a network of its own.
#[derive(Debug)]
pub struct Service {
    binary: String,
    network: Network,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    starting: Starting,
    /// `None` while it is down.
    process: Option<Process>,
}

impl Service {
    /// Starts it and doesn't wait.
    pub async fn start(stack: &Stack, mailbox: SocketAddr, binary: &str, env: &[(&str, &str)]) -> Self {
        let network = Network::to(stack, mailbox).await;
        let starting = stack.service(binary).envs(env).envs(&network.env());
        let process = Some(starting.clone().spawn());
        Self { binary: binary.to_owned(), network, state: Mutex::new(State { starting, process }) }
    }

    /// Which binary it is.
    pub fn binary(&self) -> &str {
        &self.binary
    }

    /// Its way to the servers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        if let Some(process) = self.state.lock().await.process.as_ref() {
            process.ready().await;
        }
    }

    /// Ends it as a power cut would, and leaves it down.
    pub async fn crash(&self) {
        if let Some(mut process) = self.state.lock().await.process.take() {
            process.kill().await;
        }
    }

    /// Starts it if it is down; doesn't wait.
    pub async fn revive(&self) {
        let mut state = self.state.lock().await;
        if state.process.is_none() {
            state.process = Some(state.starting.clone().spawn());
        }
    }

    /// Ends it as a power cut would, and starts it again at once.
    pub async fn kill(&self) {
        self.crash().await;
        self.revive().await;
    }

    /// Asks it to end, and starts it again.
    ///
    /// # Panics
    /// When it ends with an error, or not within [`GRACE`].
    pub async fn restart(&self) {
        self.restart_with(&[]).await;
    }

    /// The same, with further settings from now on.
    pub async fn restart_with(&self, env: &[(&str, &str)]) {
        self.replace(|starting| starting.envs(env)).await;
    }

    /// Asks it to end, and starts the same of the release whose binaries are in `folder`, with further settings.
    ///
    /// # Panics
    /// When it ends with an error, or not within [`GRACE`].
    pub async fn restart_as(&self, folder: &Path, env: &[(&str, &str)]) {
        self.replace(|starting| starting.of_release(folder).envs(env)).await;
    }

    async fn replace(&self, change: impl FnOnce(Starting) -> Starting) {
        let mut state = self.state.lock().await;
        if let Some(mut running) = state.process.take() {
            // One that is suspended would hear of it only when somebody continues it, who waits for this.
            running.signal("CONT").await;
            let (status, took) = running.terminate().await;
            assert!(status.success(), "{} ended with {status}\n{}", self.binary, running.log());
            assert!(took < GRACE, "{} took {took:?} to end\n{}", self.binary, running.log());
        }
        state.starting = change(state.starting.clone());
        state.process = Some(state.starting.clone().spawn());
    }

    /// Stops or continues it without telling it, as a suspended virtual machine is.
    pub async fn signal(&self, signal: &str) {
        if let Some(process) = self.state.lock().await.process.as_ref() {
            process.signal(signal).await;
        }
    }

    /// Asks it to end while it has work that doesn't end, then a second time, and leaves it down; gives how long it took
    /// after the second time.
    ///
    /// # Panics
    /// When it ended at the first time.
    pub async fn terminate_twice(&self) -> Duration {
        let mut process = self.state.lock().await.process.take().expect("it runs");
        process.signal("TERM").await;
        sleep(DRAINING).await;
        assert!(process.is_running(), "{} had nothing left to do\n{}", self.binary, process.log());
        process.terminate().await.1
    }

    /// The most memory that it has had resident, in bytes, since it was started last.
    pub async fn peak_memory(&self) -> u64 {
        self.state.lock().await.process.as_ref().map_or(0, Process::peak_memory)
    }
}
