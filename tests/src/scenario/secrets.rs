//! Secrets are planted wherever the gateway takes them, and looked for wherever it shows something.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Plan, Rest, secret};

/// As the configuration has it, in hexadecimal digits.
const PPK: &str = "planted ppk with enough octets!!";
const TOKEN: &str = "planted-bearer-token-0123456789abcdef";

/// PSK, PPK, bearer token and the members' private keys, in pages, REST answers, metrics, logs and
/// support bundles: plain, in hexadecimal digits and in base64.
pub(super) fn nowhere(context: &Context) -> Result<String> {
    let folder = context.logs.join("secrets");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let token = context.logs.join("secrets.token").display().to_string();
    fs::write(&token, TOKEN)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let token = Path::new(&token).canonicalize()?;
    let pki = folder.join("pki/member-1");
    let wishes = Wishes {
        plan: Plan {
            sites: 1,
            ..Plan::default()
        },
        tables: format!(
            "[[ppk]]\nid = \"planted\"\nsecret = \"0x{}\"\n[rest]\nlisten = \"127.0.0.1:8443\"\n\
             certificate = \"{pki}/member.crt\"\nkey = \"{pki}/member.key\"\n[[rest.token]]\n\
             name = \"planted\"\nrole = \"read\"\nfile = \"{}\"\n",
            hex(PPK.as_bytes()),
            token.display(),
            pki = pki.display(),
        ),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "secrets", &wishes)?;
    lab.peer.initiate("site-1", 20)?;
    let mut shown = Shown::default();
    shown.rest(&lab)?;
    shown.pages(&lab, &folder)?;
    for (number, member) in lab.cluster.members.iter().enumerate() {
        shown
            .texts
            .insert(format!("log of member {}", number + 1), member.log().into());
    }
    let planted = planted(&folder)?;
    let mut octets = 0;
    for (name, text) in &shown.texts {
        octets += text.len();
        for (secret, form) in &planted {
            ensure!(!contains(text, form), "{name} holds {secret}");
        }
    }
    fs::remove_file(&token)?;
    Ok(format!(
        "{} answers, pages and logs of {octets} octets hold none of {} forms of the secrets",
        shown.texts.len(),
        planted.len()
    ))
}

/// What the gateway showed, by where.
#[derive(Default)]
struct Shown {
    texts: BTreeMap<String, Vec<u8>>,
}

impl Shown {
    /// Every GET of the OpenAPI document, with a parameter where one is needed.
    fn rest(&mut self, lab: &Lab) -> Result<()> {
        for (number, node) in lab.network.members.iter().enumerate() {
            let rest = Rest::new(node.run_dir());
            let document = rest.get("/openapi.json")?;
            let paths = document["paths"].as_object().context("no paths")?;
            for (path, item) in paths {
                if item.get("get").is_none() || path.contains('{') || path.ends_with("/events") {
                    continue;
                }
                let asked = match path.as_str() {
                    "/api/v1/explain" => format!("{path}?subject=site-1"),
                    _ => path.clone(),
                };
                let answer = rest.call("GET", &asked, None)?;
                let name = format!("GET {asked} of member {}", number + 1);
                self.texts.insert(name, answer.text.into());
            }
        }
        Ok(())
    }

    /// The pages as text and JSON, and a support bundle, file by file.
    fn pages(&mut self, lab: &Lab, folder: &Path) -> Result<()> {
        for id in 1..=3 {
            let member = lab.cluster.member(id)?;
            for page in [
                &["top", "--once", "--interval", "0.1"][..],
                &["explain", "site-1"],
                &["log", "-n", "1000"],
            ] {
                let output = member.gatewayctl(page)?;
                ensure!(output.status.success(), "gatewayctl {page:?}: {output:?}");
                self.texts
                    .insert(format!("{page:?} of member {id}"), output.stdout);
            }
            let file = folder
                .join(format!("bundle-{id}.tar.gz"))
                .display()
                .to_string();
            let config = member.config().display().to_string();
            let output = member.gatewayctl(&["support-bundle", &file, "--config", &config])?;
            ensure!(
                output.status.success(),
                "gatewayctl support-bundle: {output:?}"
            );
            self.bundle(id, &file)?;
        }
        Ok(())
    }

    fn bundle(&mut self, id: u64, file: &str) -> Result<()> {
        let mode = fs::metadata(file)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{file} has mode {mode:o}");
        let list = tar(&["-tzf", file])?;
        let names = String::from_utf8(list)?;
        for name in names.lines() {
            let octets = tar(&["-xzOf", file, name])?;
            self.texts.insert(format!("{name} of member {id}"), octets);
        }
        // What it is made for is in it.
        for (name, wanted) in [
            ("pages/members.txt", "ACTIVE"),
            ("pages/sas.json", "site-1"),
            ("log.txt", "view"),
            ("gateway.toml", "site-1"),
            ("host/proc/version", "Linux"),
            ("commands/uname.txt", "Linux"),
        ] {
            let name = format!("gateway-support/{name} of member {id}");
            let text = self
                .texts
                .get(&name)
                .with_context(|| format!("no {name}"))?;
            ensure!(contains(text, wanted.as_bytes()), "{name} lacks {wanted}");
        }
        let sas: Value = serde_json::from_slice(
            &self.texts[&format!("gateway-support/pages/sas.json of member {id}")],
        )?;
        ensure!(sas["ike_sas"].is_array(), "{sas}");
        Ok(())
    }
}

fn tar(args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("tar").args(args).output()?;
    ensure!(output.status.success(), "tar {args:?}: {output:?}");
    Ok(output.stdout)
}

/// Each secret in each form that it could appear in.
fn planted(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for (name, value) in [
        ("the PSK", secret(0)),
        ("the PPK", PPK.into()),
        ("the token", TOKEN.into()),
    ] {
        forms(name, value.as_bytes(), &mut found);
    }
    found.push(("a private key's beginning".into(), b"PRIVATE KEY".to_vec()));
    for id in 1..=3 {
        let file = folder.join(format!("pki/member-{id}/member.key"));
        let pem = fs::read_to_string(file)?;
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        // The lines' middle: the key's octets, whatever stands before them.
        for line in lines.filter(|line| line.len() > 40) {
            found.push((format!("the key of member {id}"), line[8..32].into()));
        }
    }
    ensure!(found.len() > 20, "{found:?}");
    Ok(found)
}

fn forms(name: &str, secret: &[u8], found: &mut Vec<(String, Vec<u8>)>) {
    found.push((format!("{name}, plain"), secret.to_vec()));
    found.push((format!("{name}, hexadecimal"), hex(secret).into()));
    found.push((
        format!("{name}, hexadecimal"),
        hex(secret).to_uppercase().into(),
    ));
    // As a list of numbers, which is how serde shows octets.
    let numbers: Vec<String> = secret.iter().map(ToString::to_string).collect();
    found.push((format!("{name}, numbers"), numbers.join(",").into()));
    found.push((format!("{name}, numbers"), numbers.join(", ").into()));
    // What stands before it shifts base64 by none, one or two octets.
    for shift in 0..3 {
        let rest = &secret[shift..];
        let whole = &rest[..rest.len() / 3 * 3];
        found.push((format!("{name}, base64"), base64(whole).into()));
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Of a multiple of three octets.
fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = octets.chunks_exact(3).flat_map(|three| {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    });
    digits.collect()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let mut found = Vec::new();
        forms("x", b"planted secret", &mut found);
        let holds = |text: &str| {
            found
                .iter()
                .any(|(_, form)| contains(text.as_bytes(), form))
        };
        for text in [
            "psk=planted secret.",
            "706c616e74656420736563726574",
            // base64 of "planted secret", and of it behind one and two other octets.
            "cGxhbnRlZCBzZWNyZXQ=",
            "eHBsYW50ZWQgc2VjcmV0",
            "eHhwbGFudGVkIHNlY3JldA==",
        ] {
            assert!(holds(text), "{text}");
        }
        assert!(!holds("planted secre"));
    }
}
