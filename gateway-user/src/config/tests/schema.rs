//! The published schema, against the examples and the manual page.

use std::collections::BTreeSet;

use super::super::{ConfigKey, keys, manual, schema, witness_schema};
use toml::{Table, Value};

const EXAMPLE: &str = include_str!("../../../../deploy/gateway.toml");
const WITNESS: &str = include_str!("../../../../deploy/witness.toml");

/// Also what stands in comments: `# key = value`, `# [table]`. Prose has neither form.
fn with_comments(text: &str) -> String {
    let assigns = |line: &str| {
        let key = line.split_once(" = ").map(|(key, _)| key);
        key.is_some_and(|key| {
            key.bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
        })
    };
    let commented = |line: &str| -> Option<String> {
        let rest = line.strip_prefix("# ")?;
        (assigns(rest) || (rest.starts_with('[') && rest.ends_with(']'))).then(|| rest.to_owned())
    };
    let lines = text.lines();
    lines
        .map(|line| commented(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

fn parse(text: &str) -> Table {
    let text = with_comments(text);
    let parsed: Result<Table, toml::de::Error> = text.parse();
    parsed.unwrap_or_else(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].lines().count());
        panic!("line {line}: {}", error.message())
    })
}

/// The paths of a file's keys, as the schema writes them.
fn paths(table: &Table, prefix: &str, known: &[ConfigKey], found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let plain = format!("{prefix}{name}");
        let forms = [plain.clone(), format!("{plain}[]"), format!("{plain}.*")];
        let key = known.iter().find(|key| forms.contains(&key.path));
        let path = key.map_or(plain, |key| key.path.clone());
        found.insert(path.clone());
        let below = format!("{path}.");
        match value {
            Value::Table(named) if path.ends_with(".*") => {
                for table in named.values().filter_map(Value::as_table) {
                    paths(table, &below, known, found);
                }
            }
            Value::Table(table) => paths(table, &below, known, found),
            Value::Array(all) if path.ends_with("[]") => {
                for table in all.iter().filter_map(Value::as_table) {
                    paths(table, &below, known, found);
                }
            }
            _ => {}
        }
    }
}

/// All TOML files of a folder and those below it.
fn examples(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(examples(&path));
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_key_of_every_example_is_in_a_schema() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let known: [Vec<ConfigKey>; 2] = [keys(&schema()), keys(&witness_schema())];
    let files = examples(&deploy);
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let table = parse(&text);
        // A member's file has the table [cluster], a witness's has not.
        let known = &known[usize::from(!table.contains_key("cluster"))];
        let mut found = BTreeSet::new();
        paths(&table, "", known, &mut found);
        let known: BTreeSet<String> = known.iter().map(|key| key.path.clone()).collect();
        let strangers: Vec<_> = found.difference(&known).collect();
        assert!(strangers.is_empty(), "{}: {strangers:?}", file.display());
    }
}

/// The example is the reference: what it does not show, nobody finds.
#[test]
fn every_key_is_in_the_example() {
    for (text, schema) in [(EXAMPLE, schema()), (WITNESS, witness_schema())] {
        let known = keys(&schema);
        let table = parse(text);
        let mut found = BTreeSet::new();
        paths(&table, "", &known, &mut found);
        let missing: Vec<_> = known
            .iter()
            .map(|key| &key.path)
            .filter(|path| !found.contains(*path))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn every_key_has_a_description_a_type_and_a_place_in_the_manual() {
    let page = manual();
    for schema in [schema(), witness_schema()] {
        let all = keys(&schema);
        assert!(all.len() > 5, "{all:?}");
        for key in &all {
            assert!(!key.description.trim().is_empty(), "{}", key.path);
            assert_ne!(key.kind, "any", "{}", key.path);
            let heading = format!(".TP\n\\fB{}\\fR\n", key.path.replace('-', "\\-"));
            assert!(page.contains(&heading), "{}", key.path);
        }
    }
    let documented = page.matches("\n.TP\n\\fB").count();
    assert_eq!(
        documented,
        keys(&schema()).len() + keys(&witness_schema()).len()
    );
}

/// What serde takes and what the schema says are made from the same types; the defaults are, too.
#[test]
fn types_defaults_and_words_are_those_of_the_file() {
    let all = keys(&schema());
    let key = |path: &str| all.iter().find(|key| key.path == path).unwrap();
    assert_eq!(key("cluster.mode").kind, "\"ha\", \"load-sharing\"");
    assert_eq!(key("cluster.mode").default, Some("load-sharing".into()));
    assert!(key("cluster.local").required && !key("cluster.id").required);
    assert_eq!(key("cluster.id").kind, "number, 1 to 255");
    assert_eq!(key("cluster.id").default, Some(1.into()));
    assert_eq!(key("cluster.vips").kind, "list of texts");
    assert!(key("connection[].children.*.local_ts").required);
    assert_eq!(key("rest.per_sa_metrics").kind, "true or false");
    assert!(key("cluster.lease").kind.starts_with("time"));
    assert_eq!(schema()["additionalProperties"], false);
}

/// What a table has as a whole, and what a function gives.
#[test]
fn defaults_of_times_and_words_are_shown() {
    let all = keys(&schema());
    let default = |path: &str| {
        all.iter()
            .find(|key| key.path == path)
            .unwrap()
            .default
            .clone()
    };
    for (path, value) in [
        ("cluster.drain", "5s"),
        ("ike.half_open_timeout", "30s"),
        ("takeover.inbound", "learn"),
        ("connection[].unique", "no"),
        ("connection[].children.*.dpd_action", "clear"),
    ] {
        assert_eq!(default(path), Some(value.into()), "{path}");
    }
}
