//! The crate's statements, to be read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Every checked statement, by the name of its file in `.sqlx/`.
pub fn statements() -> BTreeMap<String, String> {
    let statements: BTreeMap<_, _> = files(".sqlx")
        .into_iter()
        .map(|(path, text)| {
            let query: serde_json::Value = serde_json::from_str(&text).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), query["query"].as_str().unwrap().to_owned())
        })
        .collect();
    assert!(statements.len() > 50, "these are not all statements");
    statements
}

/// Every source file of the library.
pub fn sources() -> BTreeMap<PathBuf, String> {
    files("src")
}

/// The words of a statement, in lower case, with all that isn't part of one as spaces.
pub fn words(statement: &str) -> Vec<String> {
    let spaced = statement.replace(|c: char| !c.is_alphanumeric() && !"_.$".contains(c), " ");
    spaced.split_whitespace().map(str::to_lowercase).collect()
}

/// The files below a folder of the crate, by their paths in it.
fn files(folder: &str) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(&root).unwrap().to_owned(), text);
            }
        }
    }
    found
}
