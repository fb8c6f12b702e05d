//! The few options that every service has.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Program;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Run,
    Help,
    Version,
    PrintConfig,
    HealthCheck,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Args {
    pub action: Action,
    pub config: Option<PathBuf>,
}

impl Args {
    /// Reads the arguments behind the program's name. The error says what is wrong with them.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut parsed = Self { action: Action::Run, config: None };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("-h" | "--help") => parsed.action = Action::Help,
                Some("-V" | "--version") => parsed.action = Action::Version,
                Some("--print-config") => parsed.action = Action::PrintConfig,
                Some("--healthcheck") => parsed.action = Action::HealthCheck,
                Some("-c" | "--config") => {
                    parsed.config = Some(args.next().ok_or("--config needs the path of a file")?.into());
                }
                Some(text) if text.starts_with("--config=") => parsed.config = Some(text["--config=".len()..].into()),
                _ => return Err(format!("unknown argument {}", arg.display())),
            }
        }
        Ok(parsed)
    }
}

pub(super) fn help(program: &Program) -> String {
    let Program { name, about, .. } = program;
    format!(
        "{about}\n\
         \n\
         Usage: {name} [OPTIONS]\n\
         \n\
         Options:\n\
         \x20 -c, --config <FILE>  Configuration file (TOML); also LEADMILL_CONFIG\n\
         \x20     --print-config   Print every setting with its default and what it means, and end\n\
         \x20     --healthcheck    Ask the running process of the same configuration whether it is ready, and end\n\
         \x20 -h, --help           Print this, and end\n\
         \x20 -V, --version        Print the version, and end\n\
         \n\
         Settings come from the embedded defaults, the configuration file and the environment, the later winning:\n\
         `mailer.smtp.host` is LEADMILL_MAILER_SMTP_HOST, and LEADMILL_MAILER_SMTP_HOST_FILE names a file that holds it.\n\
         The first SIGTERM or Ctrl-C ends the process when its work in progress is done, a second one at once.\n\
         \n\
         Exit status: 0 done, 1 failed, 2 wrong usage or configuration.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        Args::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn the_configuration_file_is_named_in_either_form() {
        let expected = Ok(Args { action: Action::Run, config: Some("/etc/leadmill.toml".into()) });
        assert_eq!(parse(&["--config", "/etc/leadmill.toml"]), expected);
        assert_eq!(parse(&["--config=/etc/leadmill.toml"]), expected);
        assert_eq!(parse(&["-c", "/etc/leadmill.toml"]), expected);
        assert_eq!(parse(&["--config"]), Err("--config needs the path of a file".to_owned()));
    }

    #[test]
    fn what_is_not_an_option_is_refused_by_name() {
        assert_eq!(parse(&["--verbose"]), Err("unknown argument --verbose".to_owned()));
        assert_eq!(parse(&["serve"]), Err("unknown argument serve".to_owned()));
    }
}
