//! The mailer as a process of its own.

fn main() -> std::process::ExitCode {
    service::run::run(&mailer::run::PROGRAM, mailer::run::process)
}
