//! Every part is broken, and nothing is lost, nobody gets a mail twice.
//!
//! A module per row of the fault table; each scenario ends with the same verdict, which also writes the row's line. The
//! short form runs here; `LEADMILL_FAULTS=full` makes it as long as the table asks (`make faults`).

mod addresses;
mod backlog;
mod bounces;
mod broker;
mod clocks;
mod database;
mod erasures;
mod exactly;
mod kills;
mod limits;
mod model;
mod networks;
mod objections;
mod poison;
mod redelivery;
mod release;
mod settings;
mod shutdown;
mod smtp;
mod upgrade;

use std::env;

/// Whether the long form is asked for.
fn full() -> bool {
    env::var_os("LEADMILL_FAULTS").is_some_and(|form| form == "full")
}

/// `short`, or `long` where the long form is asked for.
fn short_or<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}
