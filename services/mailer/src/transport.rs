//! Brings a message to a mail server, in phases that the caller can see.
//!
//! **Architecture invariant:** nothing here knows the database. A [`Session`] shows the two moments that matter for
//! "nobody gets the same mail twice": [`Session::begin`] returns when the server has agreed to the envelope, before a byte
//! of the body was written; [`Session::transmit`] writes the body and says what is *known* about its fate. Whoever calls
//! commits between the two.
//!
//! lettre's own pool isn't used: under an outer timeout it can report success for a refused mail, and its timeouts don't
//! cover reading. Every step here has a time limit of its own, and a connection that missed one is dropped.

mod connect;
mod outcome;
mod pool;
mod session;
mod stream;

pub use connect::SetupError;
pub use outcome::{Failure, Reply, SendOutcome};
pub use pool::SmtpTransport;
pub use session::{Session, SmtpEnvelope};
