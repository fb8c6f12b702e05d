//! Makes the mail: text and HTML part, and every header that the law and the mailbox providers ask for.
//!
//! **Architecture invariant:** what a stranger wrote reaches a mail only checked: a name when it looks like a person's
//! ([`domain::person_name`]), a handle in its own alphabet (`addressee`), the personal message through [`inert::inert`].
//! The HTML template escapes everything, and every link is made here, from our own configuration. Nothing here does I/O, and
//! the same input gives the same `Message-ID`.
//!
//! To say something new in every mail, change the templates in `templates/`; both parts must say it.

mod addressee;
mod compose;
mod inert;
mod links;
mod template;

pub use compose::{ComposeError, ComposeInput, ComposedMessage, Composer};
pub use inert::inert;
pub use links::{InvalidLinks, Links};
pub(crate) use template::environment as templates;
