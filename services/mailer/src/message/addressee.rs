//! How a handle stands in a mail: as the network spells it, and so that no mail program makes a link of it.

use domain::handle::Handle;

/// The longest handle that a subject or a greeting repeats; no network allows longer ones that a person would choose.
const GREETING_CHARS: usize = 30;
/// From this many digits on a handle can carry a telephone number.
const PHONE_DIGITS: usize = 7;

/// The handle exactly as it is. One with a dot gets the `@` of the networks before it, since `zoe.fit` is also a host
/// name, and what follows an `@` is not taken for one.
pub(super) fn shown_handle(handle: &Handle) -> String {
    let at = if handle.as_str().contains('.') { "@" } else { "" };
    format!("{at}{}", handle.as_str())
}

/// The handle for a subject and a greeting; `None` when it could carry a message of its own: very long ones, and those
/// with as many digits as a telephone number.
pub(super) fn greeting_handle(handle: &Handle) -> Option<String> {
    let digits = handle.as_str().chars().filter(|c| c.is_numeric()).count();
    let is_short = handle.as_str().chars().count() <= GREETING_CHARS;
    (is_short && digits < PHONE_DIGITS).then(|| shown_handle(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(text: &str) -> Handle {
        Handle::parse(text).unwrap()
    }

    #[test]
    fn a_handle_keeps_its_spelling_and_is_no_host_name() {
        assert_eq!(shown_handle(&handle("Money.With.Bobby")), "@Money.With.Bobby");
        assert_eq!(shown_handle(&handle("ann_bakes-2")), "ann_bakes-2");
    }

    #[test]
    fn a_handle_that_carries_a_message_greets_nobody() {
        assert_eq!(greeting_handle(&handle("ann.bakes")).as_deref(), Some("@ann.bakes"));
        for text in ["call-1-800-555-0199", "your-paypal-account-is-locked-now", "x18005550199"] {
            assert_eq!(greeting_handle(&handle(text)), None, "{text}");
        }
    }
}
