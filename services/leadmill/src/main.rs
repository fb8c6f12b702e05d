//! The operator's CLI; `leadmill up` runs all services in one process.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | the commands, as `--help` shows them |
//! | [`commands`] | what each of them does, one file per command |
//! | [`settings`] | the configuration, and what is made from it |
//! | [`services`] | all services over one set of connections |
//! | [`collecting`] | taking leads in without a running service |
//! | [`sending`] | why a program doesn't send |
//! | [`output`], [`progress`] | for people and for scripts |
//!
//! **Architecture invariant:** this crate holds no logic of the pipeline. It puts the services' libraries together, asks
//! `store` and `broker`, and prints; whatever it does to data goes through the same functions that the services use.
//!
//! To add a command, add its arguments and its `run` as a file under `commands`, and a variant to [`cli::Command`].
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage or configuration.

mod cli;
mod collecting;
mod commands;
mod output;
mod progress;
mod sending;
mod services;
mod settings;

fn main() -> std::process::ExitCode {
    use clap::Parser;

    commands::run(cli::Cli::parse())
}
