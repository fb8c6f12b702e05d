//! The merged document: a tree of values, each of which remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ConfigError;
use super::suggest::nearest;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults that a crate embeds.
    Defaults(&'static str),
    /// A line (counted from 1) of a configuration file.
    File(Arc<Path>, usize),
    /// An environment variable.
    Variable(String),
    /// A file that an environment variable names.
    VariableFile(String, PathBuf),
    /// An option of the command line.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults(name) => write!(f, "default of {name}"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::VariableFile(name, path) => write!(f, "file {} named by {name}", path.display()),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}

/// A value as it was given: TOML knows its type, text from the environment takes the type that its reader asks for.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Toml(toml::Value),
    Text(String),
}

#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub value: Value,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Table(Table),
    Leaf(Leaf),
}

/// A table of the document. `open` means that it takes any keys: its defaults are empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub entries: BTreeMap<String, Node>,
    pub open: bool,
}

impl Table {
    /// Adds what a crate's defaults declare.
    pub fn declare(&mut self, prefix: &str, table: toml::Table, name: &'static str) -> Result<(), ConfigError> {
        for (key, value) in table {
            let path = join(prefix, &key);
            match (self.entries.get_mut(&key), value) {
                (Some(Node::Table(known)), toml::Value::Table(more)) => known.declare(&path, more, name)?,
                (Some(_), _) => {
                    return Err(ConfigError::Defaults { key: path, problem: format!("declared again by {name}") });
                }
                (None, toml::Value::Table(more)) => {
                    let mut declared = Self { open: more.is_empty(), ..Self::default() };
                    declared.declare(&path, more, name)?;
                    self.entries.insert(key, Node::Table(declared));
                }
                (None, value) => {
                    let origin = Origin::Defaults(name);
                    self.entries.insert(key, Node::Leaf(Leaf { value: Value::Toml(value), origin }));
                }
            }
        }
        Ok(())
    }

    /// Lays a configuration file over the document; a key that isn't declared is refused.
    pub fn overlay(&mut self, file: FileLayer) -> Result<(), ConfigError> {
        let declared = self.keys();
        overlay(self, "", file.table, &Overlay { path: file.path, lines: file.lines, declared })
    }

    /// Replaces the declared value at `key` by text.
    pub fn set_text(&mut self, key: &str, text: String, origin: Origin) {
        if let Some(leaf) = self.leaf_mut(key) {
            *leaf = Leaf { value: Value::Text(text), origin };
        }
    }

    /// The node at a dotted key.
    pub fn node(&self, key: &str) -> Option<&Node> {
        let mut parts = key.split('.');
        let mut node = self.entries.get(parts.next()?)?;
        for part in parts {
            let Node::Table(table) = node else { return None };
            node = table.entries.get(part)?;
        }
        Some(node)
    }

    /// Every key that holds a value, joined by dots, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        self.visit("", &mut |key, _| keys.push(key.to_owned()));
        keys
    }

    /// Calls `visit` with every key that holds a value.
    pub fn visit(&self, prefix: &str, visit: &mut impl FnMut(&str, &Leaf)) {
        for (key, node) in &self.entries {
            let path = join(prefix, key);
            match node {
                Node::Table(table) => table.visit(&path, visit),
                Node::Leaf(leaf) => visit(&path, leaf),
            }
        }
    }

    fn leaf_mut(&mut self, key: &str) -> Option<&mut Leaf> {
        let mut table = self;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            match table.entries.get_mut(part)? {
                Node::Table(inner) => table = inner,
                Node::Leaf(leaf) => return parts.peek().is_none().then_some(leaf),
            }
        }
        None
    }
}

/// A parsed configuration file, with the line of each key.
pub(super) struct FileLayer {
    path: Arc<Path>,
    pub table: toml::Table,
    lines: BTreeMap<String, usize>,
}

impl FileLayer {
    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Parses the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            problem: error.message().to_owned(),
        };
        let spanned = toml::de::DeTable::parse(text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        collect_lines("", spanned.get_ref(), text, &mut lines);
        let table = text.parse::<toml::Table>().map_err(syntax)?;
        Ok(Self { path: path.into(), table, lines })
    }
}

fn collect_lines(prefix: &str, table: &toml::de::DeTable<'_>, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        lines.insert(path.clone(), line_of(text, key.span().start));
        if let toml::de::DeValue::Table(inner) = value.get_ref() {
            collect_lines(&path, inner, text, lines);
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// What laying a file over the document needs to name a mistake.
struct Overlay {
    path: Arc<Path>,
    lines: BTreeMap<String, usize>,
    declared: Vec<String>,
}

impl Overlay {
    fn origin(&self, key: &str) -> Origin {
        Origin::File(Arc::clone(&self.path), self.lines.get(key).copied().unwrap_or(1))
    }
}

fn overlay(into: &mut Table, prefix: &str, layer: toml::Table, context: &Overlay) -> Result<(), ConfigError> {
    for (key, value) in layer {
        let path = join(prefix, &key);
        let origin = context.origin(&path);
        match (into.entries.get_mut(&key), value) {
            (Some(Node::Table(known)), toml::Value::Table(more)) => overlay(known, &path, more, context)?,
            (Some(Node::Table(_)), value) => {
                let found = show(&Value::Toml(value));
                return Err(ConfigError::Value { key: path, found, origin, problem: "expected a table".to_owned() });
            }
            (Some(Node::Leaf(leaf)), value) => *leaf = Leaf { value: Value::Toml(value), origin },
            (None, toml::Value::Table(more)) if into.open => {
                let mut inner = Table { open: true, ..Table::default() };
                overlay(&mut inner, &path, more, context)?;
                into.entries.insert(key, Node::Table(inner));
            }
            (None, value) if into.open => {
                into.entries.insert(key, Node::Leaf(Leaf { value: Value::Toml(value), origin }));
            }
            (None, _) => {
                let sections = into.entries.keys().map(|known| join(prefix, known)).collect::<Vec<_>>();
                let candidates = context.declared.iter().chain(&sections).map(String::as_str);
                let suggestion = nearest(&path, candidates).map(str::to_owned);
                return Err(ConfigError::UnknownKey { key: path, origin, suggestion });
            }
        }
    }
    Ok(())
}

/// A value as an error or a listing shows it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Toml(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
