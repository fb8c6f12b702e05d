//! The collector against a real PostgreSQL.

mod fixture;
mod import;
mod ingest;
mod simulation;
