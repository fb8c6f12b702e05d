//! The one TLS provider: rustls over ring.

/// Makes ring the process's default provider of cryptography. Libraries that speak TLS are built without one of their own,
/// so this has to run before the first of them is used; running it again changes nothing.
pub fn install_provider() {
    // The error says that some provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
