//! The JSON schema of the configuration files, and gateway.toml(5), which is made from it: a key
//! without description has no place in either.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::raw;
use super::witness::RawWitness;

/// JSON schema (2020-12) of a member's configuration file.
pub fn schema() -> Value {
    schemars::schema_for!(raw::File).to_value()
}

/// JSON schema (2020-12) of the witness's configuration file.
pub fn witness_schema() -> Value {
    schemars::schema_for!(RawWitness).to_value()
}

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigKey {
    /// Its path: tables by name, arrays of tables with `[]`, names that are free as `*`:
    /// `connection[].children.*.local_ts`.
    pub path: String,
    /// Its type or the words that it takes.
    pub kind: String,
    /// Its default; `None`: it has to be there, or has none.
    pub default: Option<Value>,
    /// Whether it has to be there.
    pub required: bool,
    /// What it does.
    pub description: String,
    /// Whether it is a table with keys of its own.
    pub table: bool,
}

/// All keys of a schema, tables before what is in them.
pub fn keys(schema: &Value) -> Vec<ConfigKey> {
    let mut found = Vec::new();
    walk(schema, schema, "", &mut found);
    found
}

fn walk(root: &Value, object: &Value, prefix: &str, found: &mut Vec<ConfigKey>) {
    let Some(properties) = object["properties"].as_object() else {
        return;
    };
    let required: Vec<&str> = object["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in properties {
        let resolved = resolve(root, property);
        let (inner, suffix) = inner(root, &resolved);
        let path = format!("{prefix}{name}{suffix}");
        let table = inner["properties"].is_object();
        let description = property["description"]
            .as_str()
            .or(resolved["description"].as_str());
        found.push(ConfigKey {
            kind: kind(root, &resolved),
            default: property.get("default").filter(|v| !v.is_null()).cloned(),
            required: required.contains(&name.as_str()),
            description: description.unwrap_or_default().to_owned(),
            path: path.clone(),
            table,
        });
        if table {
            walk(root, &inner, &format!("{path}."), found);
        }
    }
}

/// What a reference, or an option of something, stands for.
fn resolve(root: &Value, schema: &Value) -> Value {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or_default();
        return resolve(root, &root["$defs"][name]);
    }
    let Some(any) = schema["anyOf"].as_array() else {
        return schema.clone();
    };
    let mut some = any.iter().filter(|one| one["type"] != "null");
    match (some.next(), some.next()) {
        (Some(only), None) => resolve(root, only),
        _ => schema.clone(),
    }
}

/// The tables of an array of tables, or of a table of tables.
fn inner(root: &Value, schema: &Value) -> (Value, &'static str) {
    if schema["items"].is_object() {
        let items = resolve(root, &schema["items"]);
        if items["properties"].is_object() {
            return (items, "[]");
        }
    }
    if schema["additionalProperties"].is_object() {
        return (resolve(root, &schema["additionalProperties"]), ".*");
    }
    (schema.clone(), "")
}

fn kind(root: &Value, schema: &Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        let quoted: Vec<String> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        return quoted.join(", ");
    }
    let types = match &schema["type"] {
        Value::Array(all) => all.iter().find(|one| *one != "null").cloned(),
        one => Some(one.clone()),
    };
    let range = match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some(low), Some(high)) => format!(", {low} to {high}"),
        _ => String::new(),
    };
    match types.as_ref().and_then(Value::as_str) {
        Some("boolean") => "true or false".into(),
        Some("integer") => format!("number{range}"),
        Some("string") => "text".into(),
        Some("array") => {
            let items = resolve(root, &schema["items"]);
            if items["properties"].is_object() {
                "tables".into()
            } else {
                "list of texts".replace("texts", &format!("{}s", kind(root, &items)))
            }
        }
        Some("object") => "table".into(),
        _ if schema["anyOf"].is_array() => {
            "time, like \"50ms\", \"30s\", \"5m\", \"4h\", \"1d\"".into()
        }
        _ => "any".into(),
    }
}

/// The words that a key takes, each with its meaning.
fn words(schema: &Value) -> Vec<(String, String)> {
    if let Some(all) = schema["enum"].as_array() {
        let words = all.iter().filter_map(Value::as_str);
        return words.map(|word| (word.to_owned(), String::new())).collect();
    }
    let one_of = schema["oneOf"].as_array().into_iter().flatten();
    one_of
        .flat_map(|one| {
            let meaning = one["description"].as_str().unwrap_or_default();
            let listed = one["enum"].as_array().into_iter().flatten();
            let words = one.get("const").into_iter().chain(listed);
            words
                .filter_map(Value::as_str)
                .map(|word| (word.to_owned(), meaning.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// gateway.toml(5) in roff.
pub fn manual() -> String {
    let mut out = String::from(
        ".TH gateway.toml 5\n.SH NAME\ngateway.toml \\- configuration of gatewayd\n.SH DESCRIPTION\n\
         TOML. All members of a cluster have the same file except for \\fBcluster.local\\fR and the paths \
         of their certificate.\nAn unknown key is an error.\nFile names are relative to the file's folder. \
         Times are texts with a unit, or whole seconds.\n.PP\nFiles with secrets must not be readable by \
         others than their owner. Instead of a file's name, \\fBcredential:NAME\\fR names a credential of \
         systemd (\\fBLoadCredential=\\fR, \\fBLoadCredentialEncrypted=\\fR of the unit).\n.PP\n\
         \\fBgatewayd check\\-config\\fR checks the file, \\fBgatewayd config\\-schema\\fR prints its JSON \
         schema.\n",
    );
    out.push_str(".SH KEYS OF A MEMBER\n");
    section(&mut out, &schema());
    out.push_str(
        ".SH KEYS OF THE WITNESS\nOf the file that \\fBgatewayd \\-\\-witness\\fR reads.\n",
    );
    section(&mut out, &witness_schema());
    out.push_str(
        ".SH FILES\n\\fI/etc/gateway/gateway.toml\\fR, \\fI/etc/gateway/witness.toml\\fR\n",
    );
    out.push_str(".SH SEE ALSO\n\\fBgatewayd\\fR(8), \\fBgatewayctl\\fR(8)\n");
    out
}

fn section(out: &mut String, schema: &Value) {
    let meanings = meanings(schema);
    for key in keys(schema) {
        let _ = writeln!(out, ".TP\n\\fB{}\\fR", roff(&key.path));
        let mut facts = vec![key.kind.clone()];
        if key.required {
            facts.push("required".into());
        }
        if let Some(default) = key.default.as_ref().filter(|_| !key.table) {
            facts.push(format!("default {default}"));
        }
        let _ = writeln!(
            out,
            "({}) {}",
            roff(&facts.join("; ")),
            roff(&key.description)
        );
        for (word, meaning) in meanings.get(&key.path).into_iter().flat_map(pairs) {
            let _ = writeln!(out, ".br\n\\fB{}\\fR: {}", roff(&word), roff(&meaning));
        }
    }
}

/// The words of each key that has some, each with its meaning.
fn meanings(schema: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    collect(schema, schema, "", &mut found);
    found
}

fn collect(root: &Value, object: &Value, prefix: &str, found: &mut Map<String, Value>) {
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let resolved = resolve(root, property);
        let (inner, suffix) = inner(root, &resolved);
        let path = format!("{prefix}{name}{suffix}");
        let explained = words(&resolved)
            .into_iter()
            .filter(|(_, text)| !text.is_empty());
        let explained: Map<String, Value> =
            explained.map(|(word, text)| (word, text.into())).collect();
        if !explained.is_empty() {
            found.insert(path.clone(), explained.into());
        }
        collect(root, &inner, &format!("{path}."), found);
    }
}

fn pairs(words: &Value) -> Vec<(String, String)> {
    let words = words.as_object().into_iter().flatten();
    words
        .map(|(word, text)| (word.clone(), text.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Neither a backslash nor a minus nor a dot at a line's beginning means anything to roff.
fn roff(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\n', " ");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
