//! A configuration file without its secrets.
//!
//! What is not known is not shown: of keys that the schema does not have only the name is left, for
//! a misspelt `secret` is one all the same. Comments go, for anything may stand in them.

use toml::{Table, Value};

use super::schema::{ConfigKey, keys, schema};

/// Stands where a secret stood.
const REMOVED: &str = "(secret removed)";
/// Stands where a value stood whose key is not known.
const UNKNOWN: &str = "(unknown key: value removed)";

/// The text of a configuration file without secrets and comments. A file that is no TOML has no
/// keys by which to tell what is secret: only where it goes wrong is said.
pub fn redacted(text: &str) -> String {
    match text.parse::<Table>() {
        Ok(mut table) => {
            let known = keys(&schema());
            table_without(&mut table, "", &known);
            toml::to_string_pretty(&table).unwrap_or_default()
        }
        Err(error) => {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("# not shown: no TOML from line {line} on\n")
        }
    }
}

fn table_without(table: &mut Table, prefix: &str, known: &[ConfigKey]) {
    for (name, value) in table {
        let found = known.iter().find(|key| {
            key.path == format!("{prefix}{name}")
                || key.path == format!("{prefix}{name}[]")
                || key.path == format!("{prefix}{name}.*")
        });
        match found {
            None => *value = UNKNOWN.into(),
            Some(key) => value_without(value, key, known),
        }
    }
}

fn value_without(value: &mut Value, key: &ConfigKey, known: &[ConfigKey]) {
    let inner = format!("{}.", key.path);
    let free = key.path.ends_with(".*");
    match value {
        Value::Table(table) if free => {
            for (_, named) in table.iter_mut() {
                match named {
                    Value::Table(table) => table_without(table, &inner, known),
                    other => *other = UNKNOWN.into(),
                }
            }
        }
        Value::Table(table) if key.table => table_without(table, &inner, known),
        Value::Array(tables) if key.table => {
            for element in tables {
                match element {
                    Value::Table(table) => table_without(table, &inner, known),
                    other => *other = UNKNOWN.into(),
                }
            }
        }
        // A table where a value belongs, or a value where a table does.
        Value::Table(_) => *value = UNKNOWN.into(),
        _ if key.table => *value = UNKNOWN.into(),
        _ if is_secret(&key.path) => *value = REMOVED.into(),
        Value::Array(values) => values.iter_mut().for_each(plain),
        other => plain(other),
    }
}

/// Keys whose value is a secret, not the name of a file with one.
fn is_secret(path: &str) -> bool {
    path.rsplit('.').next() == Some("secret") && path != "secret[]"
}

/// Somebody may have pasted a key where the name of its file belongs.
fn plain(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("PRIVATE KEY") => *value = REMOVED.into(),
        Value::Table(_) | Value::Array(_) => *value = UNKNOWN.into(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_all_else_stays() {
        let text = r#"
            # psk: planted-1
            [cluster]
            local = 1
            vips = ["203.0.113.10"]
            secrt = "planted-2"
            [[connection]]
            name = "site-a"
            psk = "planted-3"
            [connection.local]
            id = "gw"
            certs = ["-----BEGIN PRIVATE KEY-----planted-4"]
            [connection.children.net]
            local_ts = ["10.1.0.0/16"]
            local_ts_secret = "planted-5"
            [connection.children]
            other = "planted-6"
            [[secret]]
            ids = ["gw"]
            secret = "planted-7"
            [[ppk]]
            id = "one"
            secret = { inner = "planted-8" }
            secret_file = "ppk/one"
            [nobody]
            knows = "planted-9"
        "#;
        // The same file with the children's tables in one place.
        let text = text.replace(
            "            [connection.children]\n            other = \"planted-6\"\n",
            "",
        );
        let shown = redacted(&text);
        assert!(!shown.contains("planted"), "{shown}");
        for stays in [
            "203.0.113.10",
            "site-a",
            "10.1.0.0/16",
            "ppk/one",
            "\"gw\"",
            REMOVED,
            UNKNOWN,
        ] {
            assert!(shown.contains(stays), "{stays}: {shown}");
        }
        assert!(shown.parse::<Table>().is_ok());
    }

    #[test]
    fn misplaced_values_are_not_shown() {
        for text in [
            "cluster = \"planted\"",
            "connection = [\"planted\"]",
            "[[connection]]\nname = [[\"planted\"]]",
            "[[connection]]\n[connection.children]\nnet = \"planted\"",
            "[[secret]]\nsecret = [\"planted\"]",
            "secret = \"planted\"",
        ] {
            let shown = redacted(text);
            assert!(!shown.contains("planted"), "{text}: {shown}");
        }
    }

    #[test]
    fn what_is_no_toml_is_not_shown() {
        let shown = redacted("[cluster]\nlocal = 1\nsecret = planted\n");
        assert_eq!(shown, "# not shown: no TOML from line 3 on\n");
    }

    /// A new key with a secret in it has to be told here.
    #[test]
    fn the_keys_with_secrets_are_these() {
        let secret = keys(&schema())
            .into_iter()
            .filter(|key| is_secret(&key.path))
            .map(|key| key.path);
        assert_eq!(
            secret.collect::<Vec<_>>(),
            ["ppk[].secret", "secret[].secret"]
        );
    }
}
