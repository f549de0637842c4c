//! Checks that no statement scans a table that grows with the farm, except for those that are named here.

use sqlx::{AssertSqlSafe, Row};

use crate::{Durability, Store};

/// The sources of statements that others than a collection wait for.
const SOURCES: [&str; 10] = [
    include_str!("bulk.rs"),
    include_str!("bundles.rs"),
    include_str!("commit.rs"),
    include_str!("delete.rs"),
    include_str!("expire.rs"),
    include_str!("needed.rs"),
    include_str!("read_farm.rs"),
    include_str!("read_jobs.rs"),
    include_str!("read_tasks.rs"),
    include_str!("share.rs"),
];

/// Statements that may scan a table, by their beginnings, with the reasons.
const ALLOWED: [(&str, &str); 7] = [
    ("SELECT * FROM jobs WHERE state IN ('queued'", "once, at the start, and an index of those alone"),
    ("SELECT * FROM workers ORDER BY name", "once, at the start"),
    ("SELECT * FROM shares", "what people have set"),
    ("SELECT * FROM limits", "what people have set"),
    ("SELECT seq FROM sqlite_sequence", "has a row for each of three tables"),
    ("SELECT number FROM events WHERE at_ms", "ends at the first that stays; by a collection's connection"),
    ("SELECT hash FROM outputs JOIN jobs", "everything that is needed; by a collection's connection"),
];

/// Returns the steps of `EXPLAIN QUERY PLAN` for a statement, whose parameters are absent.
pub(crate) async fn plan(store: &Store, sql: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explain).fetch_all(&store.readers).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error}")).iter().map(|row| row.get("detail")).collect()
}

/// Returns the steps that scan a table, not a parameter or a subquery.
pub(crate) fn scans(plan: &[String]) -> Vec<&str> {
    let own = ["json_each", "after", "row", "span", "has", "listed", "CONSTANT", "("];
    let scan = |step: &&str| {
        step.strip_prefix("SCAN ").is_some_and(|what| !own.iter().any(|own| what.starts_with(own)))
    };
    plan.iter().map(String::as_str).filter(scan).collect()
}

/// Returns the string literals of a source that are statements. Those that are built from pieces have tests of their own.
fn statements(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found = Vec::new();
    for (at, _) in code.match_indices('"') {
        let rest = &code[at + 1..];
        let Some(end) = rest.find('"') else { continue };
        let mut text = String::new();
        for (number, line) in rest[..end].split("\\\n").enumerate() {
            text.push_str(if number == 0 { line } else { line.trim_start() });
        }
        if code[..at].ends_with("job_query!(") {
            text.insert_str(0, "SELECT * FROM jobs ");
        }
        let starts = ["SELECT ", "WITH ", "INSERT ", "UPDATE ", "DELETE "];
        // A beginning that a builder goes on with ends in the middle.
        let whole = !["=", "(", "FROM"].iter().any(|cut| text.trim_end().ends_with(cut));
        if starts.iter().any(|start| text.starts_with(start)) && whole {
            found.push(text);
        }
    }
    found
}

#[tokio::test]
async fn no_statement_walks_through_what_grows_with_the_farm() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
    let (mut looked_at, mut met) = (0, Vec::new());
    for source in SOURCES {
        for sql in statements(source) {
            // Only its WHERE is judged.
            if sql.starts_with("SELECT *, coalesce((SELECT max(seq)") {
                continue;
            }
            looked_at += 1;
            let plan = plan(&store, &sql).await;
            if scans(&plan).is_empty() {
                continue;
            }
            let allowed = ALLOWED.iter().find(|(begin, _)| sql.starts_with(begin));
            let (begin, _) = allowed.unwrap_or_else(|| panic!("{sql}\n{plan:#?}"));
            met.push(*begin);
        }
    }
    assert!(looked_at > 60, "only {looked_at} statements were found");
    for (begin, _) in ALLOWED {
        assert!(met.contains(&begin), "{begin} needs no exception any more");
    }
}
