//! Connections and counters in the words of list-conns and stats.

use gateway_vici::Section;

use crate::api::model::{ConfiguredChild, ConnectionInfo};

/// One configured connection, under its name.
pub(super) fn connection(info: &ConnectionInfo) -> Section {
    let any = |list: &[String]| {
        if list.is_empty() {
            vec!["%any".to_owned()]
        } else {
            list.to_vec()
        }
    };
    let side = |auth: &str, id: &str| {
        let class = match auth {
            "psk" => "pre-shared key",
            _ => "public key",
        };
        let id = if id.is_empty() { "%any" } else { id };
        Section::new().with("class", class).with("id", id)
    };
    let children = info.children.iter().fold(Section::new(), |all, one| {
        all.with_section(&one.name, child(one))
    });
    let shown = Section::new()
        .with_list("local_addrs", any(&info.local_addrs))
        .with_list("remote_addrs", any(&info.remote_addrs))
        .with("version", "IKEv2")
        .with("reauth_time", info.reauth_time)
        .with("rekey_time", info.rekey_time)
        .with("unique", unique(&info.unique))
        .with_some("dpd_delay", Some(info.dpd_delay).filter(|delay| *delay > 0))
        .with_section("local-1", side(&info.local_auth, &info.local_id))
        .with_section("remote-1", side(&info.remote_auth, &info.remote_id))
        .with_section("children", children);
    Section::new().with_section(&info.name, shown)
}

fn child(child: &ConfiguredChild) -> Section {
    Section::new()
        .with("mode", "TUNNEL")
        .with("rekey_time", child.rekey_time)
        .with("rekey_bytes", child.rekey_bytes)
        .with("rekey_packets", child.rekey_packets)
        .with("dpd_action", &child.dpd_action)
        .with("close_action", &child.close_action)
        .with_list("local-ts", &child.local_ts)
        .with_list("remote-ts", &child.remote_ts)
}

/// strongSwan's names.
fn unique(text: &str) -> &'static str {
    match text {
        "never" => "UNIQUE_NEVER",
        "replace" => "UNIQUE_REPLACE",
        "keep" => "UNIQUE_KEEP",
        _ => "UNIQUE_NO",
    }
}

/// Algorithms, by the names of strongSwan, all of one provider.
pub(super) fn algorithms() -> Section {
    let all = [
        ("encryption", &["AES_CBC"][..]),
        (
            "integrity",
            &[
                "HMAC_SHA1_96",
                "HMAC_SHA2_256_128",
                "HMAC_SHA2_384_192",
                "HMAC_SHA2_512_256",
            ],
        ),
        ("aead", &["AES_GCM_16", "CHACHA20_POLY1305"]),
        (
            "prf",
            &[
                "PRF_HMAC_SHA1",
                "PRF_HMAC_SHA2_256",
                "PRF_HMAC_SHA2_384",
                "PRF_HMAC_SHA2_512",
            ],
        ),
        (
            "ke",
            &[
                "MODP_2048",
                "MODP_3072",
                "MODP_4096",
                "ECP_256",
                "ECP_384",
                "ECP_521",
                "CURVE_25519",
                "ML_KEM_512",
                "ML_KEM_768",
                "ML_KEM_1024",
            ],
        ),
    ];
    all.into_iter()
        .fold(Section::new(), |shown, (kind, names)| {
            let names = names
                .iter()
                .fold(Section::new(), |section, name| section.with(name, "aws-lc"));
            // swanctl 5.9.8 asks for "dh", later ones for "ke".
            let shown = if kind == "ke" {
                shown.with_section("dh", names.clone())
            } else {
                shown
            };
            shown.with_section(kind, names)
        })
}
