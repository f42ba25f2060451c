//! Replays the committed corpora of all fuzz targets.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use gateway_tests::fuzz::{TARGETS, run};

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a readable directory").file_name())
        .map(|name| name.into_string().expect("names in ASCII"))
        .collect()
}

#[test]
fn no_input_breaks_its_target() {
    let mut broken = Vec::new();
    for (target, _) in TARGETS {
        let corpus = fuzz_dir().join("corpus").join(target);
        let inputs = names(&corpus);
        assert!(!inputs.is_empty(), "the corpus of {target} is empty");
        for input in inputs {
            let data = fs::read(corpus.join(&input)).unwrap();
            if panic::catch_unwind(|| run(target, &data)).is_err() {
                broken.push(format!("{target}/{input}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken by: {broken:?}");
}

/// A target that is missing in one of the places would silently not be fuzzed, or not be replayed.
#[test]
fn every_target_is_everywhere() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names(&fuzz_dir().join("corpus")), targets);
    let files = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz_dir().join("fuzz_targets")), files);
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")));
        let body = fuzz_dir().join(format!("fuzz_targets/{target}.rs"));
        let body = fs::read_to_string(body).unwrap();
        assert!(body.contains(&format!("run(\"{target}\", data)")));
    }
}
