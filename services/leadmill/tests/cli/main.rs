//! The real binary, run the way an operator or a script runs it.

mod bench;
mod benchmarks;
mod commands;
mod demo;
mod doctor;
mod jobs;
mod suppressions;
mod usage;
