//! The templates, embedded in the program.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

/// Every template; a file whose name ends in `.html` is escaped.
const FILES: [(&str, &str); 4] = [
    ("subject.txt", include_str!("../../templates/subject.txt")),
    ("intro.txt", include_str!("../../templates/intro.txt")),
    ("intro.html", include_str!("../../templates/intro.html")),
    ("unsubscribe.html", include_str!("../../templates/unsubscribe.html")),
];

/// The environment: a name that a template uses but nobody set is an error, not an empty text.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| {
        if name.rsplit('.').next() == Some("html") { AutoEscape::Html } else { AutoEscape::None }
    });
    for (name, source) in FILES {
        environment.add_template(name, source).expect("the embedded templates are valid; a test renders each");
    }
    environment
}
