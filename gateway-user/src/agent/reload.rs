//! The configuration file, read again.

use std::path::Path;

use gateway_cluster::membership::Command;

use super::revocation::Crls;
use super::{Agent, translate};
use crate::api::model::Reloaded;
use crate::config::Config;

impl Agent {
    /// Reads the configuration file again. Connections, secrets, keys, authorities and CRLs are
    /// replaced, SAs stay. What needs a restart stays as it was and is named. On error nothing
    /// changes.
    pub(super) fn reload(&mut self) -> Result<Reloaded, String> {
        let file = self.config_file.clone();
        let new = Config::load(&file).map_err(|error| {
            tracing::error!("not reloaded, everything stays as it was: {error}");
            format!("not reloaded, everything stays as it was: {error}")
        })?;
        let outcome = self.take_config(new);
        log(&file, &outcome);
        Ok(outcome)
    }

    fn take_config(&mut self, new: Config) -> Reloaded {
        let outcome = compare(&self.config, &new);
        self.config.digest = self.config.digest_with(&new.connections);
        self.config.connections = new.connections;
        self.config.secrets = new.secrets;
        self.config.credentials = new.credentials;
        self.config.crl_files = new.crl_files;
        self.config.exposed = new.exposed;
        self.crls = Crls::new(&self.config.crl_files);
        self.node.set_config_hash(self.config.digest);
        let hash = translate::short_digest(&self.config);
        self.membership.command(Command::Configured { hash }, None);
        self.apply_loaded();
        self.watch_clock_and_crls();
        outcome
    }
}

/// What differs.
fn compare(old: &Config, new: &Config) -> Reloaded {
    let names = |config: &Config| -> Vec<String> {
        let connections = config.connections.iter();
        connections
            .map(|connection| connection.name.clone())
            .collect()
    };
    let find = |config: &Config, name: &str| {
        let mut connections = config.connections.iter();
        connections
            .find(|connection| connection.name == name)
            .cloned()
    };
    let (before, after) = (names(old), names(new));
    let same = |name: &String| find(old, name) == find(new, name);
    Reloaded {
        added: after
            .iter()
            .filter(|name| !before.contains(name))
            .cloned()
            .collect(),
        changed: after
            .iter()
            .filter(|name| before.contains(name) && !same(name))
            .cloned()
            .collect(),
        removed: before
            .iter()
            .filter(|name| !after.contains(name))
            .cloned()
            .collect(),
        needs_restart: needs_restart(old, new),
    }
}

fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let fixed = |config: &Config| {
        [
            ("cluster", format!("{:?}", config.cluster)),
            ("witness", format!("{:?}", config.witness)),
            ("ha", format!("{:?}", config.floating)),
            ("health", format!("{:?}", config.health)),
            ("interfaces", format!("{:?}", config.interfaces)),
            ("sync", format!("{:?}", config.sync)),
            ("ike_forwarding", format!("{:?}", config.ike_forwarding)),
            ("table", format!("{:?}", config.table_max_entries)),
            (
                "steering",
                format!("{:?} {:?}", config.attach, config.bpffs),
            ),
            (
                "kernel",
                format!("{:?} {:?}", config.backend, config.forwarding_block),
            ),
            ("takeover", format!("{:?}", config.takeover)),
            ("api", format!("{:?}", config.api_socket)),
            ("vici", format!("{:?}", config.vici_socket)),
            ("ike", format!("{:?}", config.ike)),
        ]
    };
    let pairs = fixed(old).into_iter().zip(fixed(new));
    pairs
        .filter(|(old, new)| old != new)
        .map(|((table, _), _)| table.to_owned())
        .collect()
}

fn log(file: &Path, outcome: &Reloaded) {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    tracing::info!(
        "{} reloaded: connections added: {}; changed: {}; removed: {}",
        file.display(),
        list(&outcome.added),
        list(&outcome.changed),
        list(&outcome.removed),
    );
    for table in &outcome.needs_restart {
        tracing::warn!("[{table}] has changed: that takes effect at the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../deploy/gateway.toml");

    /// The example with its secret in the text.
    fn example(change: impl Fn(&str) -> String) -> Config {
        let text = FILE.replace(
            "secret_file = \"/etc/gateway/psk/site-a\"",
            "secret = \"a\"",
        );
        Config::parse(&change(&text)).unwrap()
    }

    #[test]
    fn a_reload_names_what_changed_and_what_needs_a_restart() {
        let old = example(str::to_owned);
        assert_eq!(compare(&old, &example(str::to_owned)), Reloaded::default());
        let new = example(|text| {
            text.replace("dpd_delay = \"30s\"", "dpd_delay = \"20s\"")
                .replace("max_entries = 65536", "max_entries = 32768")
        });
        let outcome = compare(&old, &new);
        assert_eq!(outcome.changed, ["site-a"]);
        assert_eq!(outcome.needs_restart, ["table"]);
        let new = example(|text| text.replace("name = \"site-a\"", "name = \"site-b\""));
        let outcome = compare(&old, &new);
        assert_eq!(
            (outcome.added, outcome.removed),
            (vec!["site-b".to_owned()], vec!["site-a".to_owned()])
        );
    }
}
