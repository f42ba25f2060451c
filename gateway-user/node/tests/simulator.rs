//! Clusters by seed.

#![allow(clippy::unwrap_used)]

use gateway_node::sim::{Options, run};

#[test]
fn without_faults_everybody_agrees() {
    for seed in 0..100 {
        let options = Options {
            seed,
            quiet: true,
            ..Options::default()
        };
        let outcome = run(options);
        assert_eq!(outcome.violation, None, "{}", outcome.replay());
        assert!(outcome.esp_sent > 0, "{}", outcome.replay());
    }
}
