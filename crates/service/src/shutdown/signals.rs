//! SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::Shutdown;

/// Installs the handlers before it returns, so that no signal after that ends the process unasked.
pub(super) fn listen(shutdown: Shutdown) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Not tracked: it has no end of its own, and nothing waits for it.
    tokio::spawn(async move {
        loop {
            let heard = tokio::select! {
                heard = terminate.recv() => heard,
                heard = interrupt.recv() => heard,
            };
            if heard.is_none() {
                return;
            }
            shutdown.signal();
        }
    });
    Ok(())
}
