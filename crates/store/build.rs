//! Compiles the crate again when a migration is added: `sqlx::migrate!` only watches the files that it has already read.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
