//! Every page of `gatewayctl`: a fixed answer (`NAME.json`) is shown as it always was (`NAME.txt`).
//!
//! `GATEWAY_BLESS=1 cargo test -p gateway-user --test pages` writes the texts anew, to be read
//! before they are committed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gateway_user::api::model::{
    Accepted, Checks, Connections, Explanation, FailoverHistory, Health, Interfaces, LogLine,
    Members, Ordered, Pnotes, Redirected, Reloaded, Sas, Stats, Status, SyncStatus, Table,
    ViewStatus,
};
use gateway_user::api::top::Top;
use gateway_user::api::{catalogue, render};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Show = fn(&Value) -> (String, Value);

/// The text of an answer, and the answer as `--json` prints it.
fn page<T: Serialize + DeserializeOwned>(
    answer: &Value,
    render: impl Fn(&T) -> String,
) -> (String, Value) {
    let answer: T = serde_json::from_value(answer.clone()).unwrap();
    (render(&answer), serde_json::to_value(&answer).unwrap())
}

/// What precedes the first `-` of a file's name, or all of it, and how that is shown.
const PAGES: &[(&str, Show)] = &[
    ("status", |v| page::<Status>(v, render::status)),
    ("members", |v| page::<Members>(v, render::cluster::members)),
    ("view", |v| page::<ViewStatus>(v, render::cluster::view)),
    ("pnotes", |v| page::<Pnotes>(v, render::cluster::pnotes)),
    ("sync", |v| page::<SyncStatus>(v, render::cluster::sync)),
    ("interfaces", |v| page::<Interfaces>(v, render::interfaces)),
    ("failovers", |v| {
        page::<FailoverHistory>(v, render::failovers::history)
    }),
    ("top", |v| page::<Top>(v, render::top::top)),
    ("explain", |v| {
        page::<Explanation>(v, render::explain::explanation)
    }),
    ("health", |v| page::<Health>(v, render::cluster::health)),
    ("table", |v| page::<Table>(v, render::table)),
    ("sas", |v| page::<Sas>(v, render::sas)),
    ("connections", |v| {
        page::<Connections>(v, render::connections::connections)
    }),
    ("stats", |v| page::<Stats>(v, render::stats)),
    ("checks", |v| page::<Checks>(v, render::checks)),
    ("ordered", |v| {
        page::<Ordered>(v, render::connections::ordered)
    }),
    ("reloaded", |v| {
        page::<Reloaded>(v, render::connections::reloaded)
    }),
    ("accepted", |v| {
        page::<Accepted>(v, render::cluster::accepted)
    }),
    ("redirected", |v| {
        page::<Redirected>(v, render::cluster::redirected)
    }),
    ("log", |v| page::<LogLine>(v, render::log_line)),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages")
}

/// Names of the answers of a page, without their ending.
fn answers(of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json").map(str::to_owned)
        })
        .filter(|name| name.split('-').next() == Some(of))
        .collect();
    names.sort();
    names
}

#[test]
fn every_page_is_shown_as_it_was() {
    let bless = std::env::var_os("GATEWAY_BLESS").is_some();
    let mut differing = Vec::new();
    for (name, show) in PAGES {
        let answers = answers(name);
        assert!(!answers.is_empty(), "there is no answer for page {name}");
        for answer in answers {
            let json = std::fs::read_to_string(folder().join(format!("{answer}.json"))).unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            let (text, again) = show(&json);
            assert_eq!(
                again, json,
                "{answer}: --json has other fields than were asked for"
            );
            let expected = folder().join(format!("{answer}.txt"));
            if bless {
                std::fs::write(&expected, &text).unwrap();
            } else if std::fs::read_to_string(&expected).unwrap_or_default() != text {
                differing.push(format!("--- {answer}\n{text}"));
            }
        }
    }
    assert!(
        differing.is_empty(),
        "shown otherwise than before (GATEWAY_BLESS=1 accepts it):\n{}",
        differing.join("\n")
    );
}

/// The support bundle has the same pages as the command line.
#[test]
fn the_catalogue_shows_the_same() {
    for page in catalogue::PAGES {
        let known = match page.name {
            "failover-history" => "failovers",
            "check" => "checks",
            name => name,
        };
        let answers = answers(known);
        assert!(!answers.is_empty(), "no answer for {}", page.name);
        for answer in answers {
            let file = |ending: &str| folder().join(format!("{answer}.{ending}"));
            let json = std::fs::read_to_string(file("json")).unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            let text = std::fs::read_to_string(file("txt")).unwrap();
            assert_eq!(page.text(&json).unwrap(), text, "{answer}");
        }
        assert!(
            page.text(&Value::Null).is_err(),
            "{} shows anything",
            page.name
        );
    }
}

#[test]
fn every_answer_belongs_to_a_page() {
    let known: BTreeSet<String> = PAGES.iter().flat_map(|(name, _)| answers(name)).collect();
    let entries = std::fs::read_dir(folder()).unwrap();
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.split('.').next().unwrap();
        assert!(known.contains(stem) || stem == "main", "{name} is nobody's");
    }
}

/// Nobody reads a table whose lines end in spaces, or that is not one line an entry.
#[test]
fn no_page_has_trailing_spaces_or_lacks_its_last_newline() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "txt") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.ends_with('\n'), "{}", path.display());
            let trailing = text.lines().find(|line| line.ends_with(' '));
            assert_eq!(trailing, None, "{}", path.display());
        }
    }
}
