//! Who may use whom: the dependency direction of the workspace, held by an explicit list.
//!
//! The lists below are the rule. A new crate has to be added to [`MAY_USE`], which is the moment to think about where
//! it belongs; a new user of a fenced library has to be added to [`FENCED`], which should hardly ever happen. The check
//! reads what the manifests declare, so features and targets that aren't built here count as well.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Each workspace crate with the workspace crates that it may use outside of its tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("retry", &[]),
    ("vault", &["domain"]),
    ("store", &["domain", "retry", "vault"]),
    ("broker", &["domain", "retry"]),
    ("pipeline", &["domain", "retry", "store", "broker"]),
    ("service", &[]),
    ("bootstrap", &["domain", "retry", "vault", "store", "broker", "pipeline", "service"]),
    // For `leadmill bench` alone: what the servers do without the crates above.
    ("ceiling", &["domain"]),
    ("test-support", &["domain"]),
    ("collector", SERVICE),
    ("enricher", SERVICE),
    ("mailer", SERVICE),
    (
        "leadmill",
        &[
            "domain",
            "retry",
            "vault",
            "store",
            "broker",
            "pipeline",
            "service",
            "bootstrap",
            "ceiling",
            "collector",
            "enricher",
            "mailer",
        ],
    ),
    ("leadmill-tests", EVERYTHING),
];

/// What a service may use: everything below it, and no other service.
const SERVICE: &[&str] = &["domain", "retry", "vault", "store", "broker", "pipeline", "service", "bootstrap"];

/// What the end-to-end tests may use: the package is nothing but tests, its library their harness.
const EVERYTHING: &[&str] = &[
    "domain",
    "retry",
    "vault",
    "store",
    "broker",
    "pipeline",
    "service",
    "bootstrap",
    "ceiling",
    "test-support",
    "collector",
    "enricher",
    "mailer",
    "leadmill",
];

/// What every crate's own tests may use on top of [`MAY_USE`].
const TESTS_MAY_USE: &[&str] = &["test-support"];

/// The package that drives the whole; no fence stands around it.
const END_TO_END: &str = "leadmill-tests";

/// Libraries that belong to one place, with the crates that may use them outside of their tests, and why.
const FENCED: &[(&str, &[&str], &str)] = &[
    ("sqlx", &["store", "ceiling", "test-support"], "all SQL is in `store`; `ceiling` measures what it costs"),
    ("lapin", &["broker", "ceiling", "test-support"], "all AMQP is in `broker`; `ceiling` measures what it costs"),
    ("lettre", &["mailer"], "only `mailer` sends mail"),
    ("reqwest", &["enricher"], "only crates that speak a remote API use an HTTP client"),
    ("croner", &["pipeline"], "what is due by the clock is a job, and jobs are in `pipeline`"),
    ("backoff", &["retry"], "it is unmaintained (RUSTSEC-2025-0012); one crate hides it, so that it can be replaced"),
];

/// One declared dependency of a workspace crate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    kind: DependencyKind,
}

/// The workspace as far as the fences care.
#[derive(Debug, Clone)]
struct Graph {
    members: BTreeSet<String>,
    edges: Vec<Edge>,
}

impl Graph {
    fn of(metadata: &Metadata) -> Self {
        let packages = metadata.workspace_packages();
        Self {
            members: packages.iter().map(|package| package.name.to_string()).collect(),
            edges: packages
                .iter()
                .flat_map(|package| {
                    package.dependencies.iter().map(|dependency| Edge {
                        from: package.name.to_string(),
                        to: dependency.name.clone(),
                        kind: dependency.kind,
                    })
                })
                .collect(),
        }
    }

    /// The same workspace with one more dependency.
    fn with(mut self, from: &str, to: &str, kind: DependencyKind) -> Self {
        self.edges.push(Edge { from: from.to_owned(), to: to.to_owned(), kind });
        self
    }
}

/// Every way in which the graph breaks the rules, each naming the offender and the rule.
fn violations(graph: &Graph) -> Vec<String> {
    let unlisted = graph
        .members
        .iter()
        .filter(|member| allowed(member).is_none())
        .map(|member| format!("`{member}` is not listed in MAY_USE: say which crates it may use"));
    let stale = MAY_USE
        .iter()
        .filter(|(name, _)| !graph.members.contains(*name))
        .map(|(name, _)| format!("MAY_USE lists `{name}`, which is not in the workspace"));
    let edges =
        graph.edges.iter().filter_map(|edge| if graph.members.contains(&edge.to) { arrow(edge) } else { fence(edge) });
    unlisted.chain(stale).chain(edges).collect()
}

fn allowed(member: &str) -> Option<&'static [&'static str]> {
    MAY_USE.iter().find(|(name, _)| *name == member).map(|(_, may_use)| *may_use)
}

/// Why a dependency on another workspace crate is refused, if it is.
fn arrow(Edge { from, to, kind }: &Edge) -> Option<String> {
    let of_tests = *kind == DependencyKind::Development;
    let listed = allowed(from).unwrap_or_default();
    if listed.contains(&to.as_str()) || (of_tests && TESTS_MAY_USE.contains(&to.as_str())) {
        return None;
    }
    let rule = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
    let place = if of_tests { "[dev-dependencies]" } else { "[dependencies]" };
    Some(format!("`{from}` must not use `{to}` ({place}); of this workspace it may use: {rule}"))
}

/// Why a dependency on a fenced library is refused, if it is.
fn fence(Edge { from, to, kind }: &Edge) -> Option<String> {
    let (library, users, reason) = FENCED.iter().find(|(library, ..)| library == to)?;
    (*kind != DependencyKind::Development && from != END_TO_END && !users.contains(&from.as_str()))
        .then(|| format!("`{from}` must not use `{library}`, only {} may: {reason}", users.join(", ")))
}

/// The workspace that this test was built from.
fn workspace() -> Graph {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo describes the workspace");
    Graph::of(&metadata)
}

#[test]
fn every_dependency_points_downwards_and_every_fenced_library_stays_in_its_crate() {
    let violations = violations(&workspace());
    assert!(violations.is_empty(), "the fences are broken:\n- {}", violations.join("\n- "));
}

/// A workspace that uses everything it may: what the rules say about it plus one dependency is about that one.
fn lawful() -> Graph {
    let edges = MAY_USE.iter().flat_map(|(from, may_use)| may_use.iter().map(|to| (*from, *to)));
    let fenced = FENCED.iter().flat_map(|(library, users, _)| users.iter().map(|user| (*user, *library)));
    edges.chain(fenced).fold(
        Graph { members: MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect(), edges: Vec::new() },
        |graph, (from, to)| graph.with(from, to, DependencyKind::Normal),
    )
}

fn complaints_about(from: &str, to: &str, kind: DependencyKind) -> Vec<String> {
    violations(&lawful().with(from, to, kind))
}

#[test]
fn a_workspace_that_uses_everything_it_may_breaks_nothing() {
    assert_eq!(violations(&lawful()), Vec::<String>::new());
}

#[test]
fn sqlx_in_domain_is_refused_by_name() {
    assert_eq!(
        complaints_about("domain", "sqlx", DependencyKind::Normal),
        [
            "`domain` must not use `sqlx`, only store, ceiling, test-support may: all SQL is in `store`; `ceiling` measures what \
          it costs"
        ]
    );
}

#[test]
fn each_fenced_library_is_refused_where_it_does_not_belong_also_for_build_scripts() {
    for (library, ..) in FENCED {
        for kind in [DependencyKind::Normal, DependencyKind::Build] {
            assert_eq!(complaints_about("vault", library, kind).len(), 1, "{library} as a {kind} dependency");
        }
    }
}

#[test]
fn an_arrow_upwards_or_sideways_is_refused() {
    for (from, to) in [
        ("domain", "store"),
        ("store", "broker"),
        ("broker", "store"),
        ("store", "pipeline"),
        ("service", "pipeline"),
        ("pipeline", "bootstrap"),
        ("collector", "enricher"),
        ("mailer", "leadmill"),
        ("mailer", "ceiling"),
        ("ceiling", "store"),
    ] {
        let complaints = complaints_about(from, to, DependencyKind::Normal);
        assert_eq!(complaints.len(), 1, "{from} -> {to}");
        assert!(complaints[0].starts_with(&format!("`{from}` must not use `{to}`")), "{}", complaints[0]);
    }
}

#[test]
fn test_support_is_for_tests_only() {
    assert_eq!(complaints_about("mailer", "test-support", DependencyKind::Normal).len(), 1);
    assert!(complaints_about("mailer", "test-support", DependencyKind::Development).is_empty());
}

#[test]
fn tests_of_a_crate_may_not_reach_upwards_either() {
    assert_eq!(complaints_about("store", "pipeline", DependencyKind::Development).len(), 1);
    assert!(complaints_about(END_TO_END, "pipeline", DependencyKind::Development).is_empty());
}

#[test]
fn a_crate_that_nobody_listed_is_refused() {
    let mut graph = lawful();
    graph.members.insert("gadget".to_owned());
    assert_eq!(violations(&graph), ["`gadget` is not listed in MAY_USE: say which crates it may use"]);
}
