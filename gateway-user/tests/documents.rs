//! What the texts for operators name is there: every command of `gatewayctl`, with its options.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Texts of an operator: the README, and all of deploy/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|kind| kind != "png") {
                found.push(path);
            }
        }
    }
    found
}

/// The manual page of each command by its words, `gatewayctl pki issue`, as the binaries write them.
fn pages() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for binary in [
        env!("CARGO_BIN_EXE_gatewayctl"),
        env!("CARGO_BIN_EXE_gatewayd"),
    ] {
        let written = Command::new(binary).arg("man").arg(folder.path()).status();
        assert!(written.unwrap().success());
    }
    let pages = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap().replace('\\', "");
        (name, text)
    });
    pages.collect()
}

/// The words after each `gatewayctl` or `gatewayd`, up to the end of what is quoted or of the line.
fn mentions(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.replace('\\', "").lines() {
        for binary in ["gatewayctl ", "gatewayd "] {
            for (at, _) in line.match_indices(binary) {
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '-') {
                    continue;
                }
                let rest = &line[at..];
                let end = rest
                    .find(['`', '"', ';', '|', '>', '#', ')', '&'])
                    .unwrap_or(rest.len());
                let words = rest[..end].split_whitespace().map(str::to_owned);
                found.push(words.collect());
            }
        }
    }
    found
}

/// What is wrong with a mention: an unknown command, or an option that it does not have.
fn wrong(words: &[String], pages: &BTreeMap<String, String>) -> Option<String> {
    let plain = |word: &&String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let is_command = |word: &&String| plain(word) && !word.starts_with('-');
    let mut name = words.first()?.clone();
    let mut rest = &words[1..];
    while let Some(word) = rest.first().filter(is_command) {
        let longer = format!("{name}-{word}");
        if !pages.contains_key(&longer) {
            break;
        }
        name = longer;
        rest = &rest[1..];
    }
    // A command, and not prose about the program.
    let bare = !name.contains('-');
    if bare && name == "gatewayctl" && rest.first().is_some_and(|word| is_command(&word)) {
        return Some(format!("{} has no command {}", name, rest[0]));
    }
    let page = pages.get(&name)?;
    let top = pages.get(words.first()?)?;
    let options = rest.iter().filter(|word| word.starts_with("--"));
    let unknown = options
        .map(|option| option.trim_end_matches([',', '.', ':', ']']))
        .map(|option| option.split('=').next().unwrap_or(option))
        .find(|option| !page.contains(option) && !top.contains(option));
    unknown.map(|option| format!("`{}` has no {option}", name.replace('-', " ")))
}

#[test]
fn commands_in_the_texts_exist() {
    let pages = pages();
    let mut found = 0;
    let mut bad = Vec::new();
    for file in documents() {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        for words in mentions(&text) {
            found += 1;
            if let Some(problem) = wrong(&words, &pages) {
                bad.push(format!("{}: {problem}: {words:?}", file.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(found > 50, "only {found} mentions were found");
}

#[test]
fn wrong_commands_and_options_are_found() {
    let pages = pages();
    let problem = |line: &str| mentions(line).iter().find_map(|words| wrong(words, &pages));
    assert_eq!(problem("run `gatewayctl status`"), None);
    assert_eq!(problem("\\fBgatewayctl\\fR pki"), None);
    assert_eq!(problem("gatewayctl pki issue --member 1 --out x"), None);
    assert_eq!(problem("`gatewayctl failover --to`, then"), None);
    assert!(problem("`gatewayctl state`").is_some());
    assert!(problem("`gatewayctl drain --hard`").is_some());
    assert!(problem("gatewayctl pki issue --membre 1").is_some());
    assert!(problem("gatewayd --nothing").is_some());
}

/// Manual pages are written without errors of the language that they are in.
#[test]
fn manual_pages_have_their_parts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/man");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(text.starts_with(&format!(".TH {} 7 ", name.to_uppercase())));
        for part in [".SH NAME\n", ".SH SEE ALSO\n"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        assert!(text.contains(&format!("{name} \\- ")), "{name}");
        let blank = text.lines().position(str::is_empty);
        assert_eq!(blank, None, "{name}: an empty line");
    }
}
