//! Peers of all kinds side by side: by pre-shared key, with a post-quantum key beside it, with
//! certificates in fragments, with MOBIKE.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use rcgen::{KeyPair, RsaKeySize};

use super::authority::{Authority, secret_file};
use super::charon::{Connection, Ppk};
use super::cluster::{ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, PROPOSAL, SITE_NETWORKS};

/// Largest IP datagram of IKE that the peer sends: certificates do not fit into one.
pub const FRAGMENT_SIZE: u32 = 576;

/// What a peer's tunnel is like. Sites take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Pre-shared key alone.
    Plain,
    /// Certificates on both sides: IKE_AUTH is fragmented both ways (RFC 7383).
    Certificate,
    /// MOBIKE announced (RFC 4555): on port 4500 from IKE_AUTH on.
    Mobike,
    /// A post-quantum pre-shared key is mixed in, and required (RFC 8784).
    Ppk,
}

impl Kind {
    /// That of a site (0-based).
    fn of(site: u16) -> Self {
        [Self::Plain, Self::Certificate, Self::Mobike, Self::Ppk][usize::from(site % 4)]
    }
}

/// The post-quantum key's name at a site (0-based).
fn ppk_id(site: u16) -> String {
    format!("ppk-{}", site + 1)
}

/// The post-quantum key of a site (0-based), in hexadecimal as both configurations take it.
fn ppk(site: u16) -> String {
    format!("0x{:064x}", 0x5eed_0000_u64 + u64::from(site))
}

/// Makes the peer's connections those of their kinds, writes the certificates and keys that they
/// name into its folder `peer` and those of the gateway into `gateway`. Returns the tables that the
/// members' files need for it.
///
/// # Errors
/// A certificate cannot be made, or a file not written.
pub fn mix(connections: &mut [Connection], peer: &Path, gateway: &Path) -> Result<String> {
    let authority = Authority::new("Lab CA")?;
    let mut tables = own(&authority, peer, gateway)?;
    for (site, connection) in (0u16..).zip(connections) {
        match Kind::of(site) {
            Kind::Plain => {}
            Kind::Mobike => connection.mobike = true,
            Kind::Ppk => {
                let (id, key) = (ppk_id(site), ppk(site));
                let _ = write!(tables, "[[ppk]]\nid = \"{id}\"\nsecret = \"{key}\"\n");
                let way = format!("ppk_id = \"{id}\"\nppk_required = true\n");
                tables += &table(connection, &way, "auth = \"psk\"\n");
                connection.ppk = Some(Ppk { id, key });
            }
            Kind::Certificate => {
                let name = &connection.local_id;
                let key = KeyPair::generate()?;
                let certificate = authority.issue(name, site.into(), &key)?;
                let file = format!("{name}.pem");
                fs::write(peer.join("x509").join(&file), certificate.pem())?;
                secret_file(&peer.join("private").join(&file), &key.serialize_pem())?;
                let ours = format!("certs = [\"{}\"]\n", gateway.join("gw.pem").display());
                let auth = format!("auth = \"pubkey\"\n{ours}");
                tables += &table(connection, "", &auth);
                connection.certificate = Some(file);
            }
        }
    }
    Ok(tables)
}

/// The gateway's certificate, and the tables about it.
fn own(authority: &Authority, peer: &Path, gateway: &Path) -> Result<String> {
    for folder in ["x509", "x509ca", "private"] {
        fs::create_dir_all(peer.join(folder))?;
    }
    fs::write(peer.join("x509ca/ca.pem"), authority.pem())?;
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    authority.equip(gateway, &[("gw", &key)])?;
    let folder = gateway.display();
    Ok(format!(
        "[[private]]\nfile = \"{folder}/gw.key\"\n\
         [[authority]]\ncacert = \"{folder}/ca.pem\"\n"
    ))
}

/// The gateway's connection for one peer. `auth` says how the gateway proves who it is; the peer
/// does it in the same way, with a certificate of its own.
fn table(peer: &Connection, lines: &str, auth: &str) -> String {
    let theirs = auth.lines().next().unwrap_or_default();
    format!(
        "[[connection]]\nname = \"{name}\"\nproposals = [\"{PROPOSAL}\"]\n{lines}\
         [connection.local]\n{auth}id = \"{GATEWAY_ID}\"\n\
         [connection.remote]\n{theirs}\nid = \"{name}\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"{SITE_NETWORKS}\"]\nesp_proposals = [\"{ESP_PROPOSAL}\", \"aes128gcm16-x25519\"]\n",
        name = peer.local_id
    )
}

/// Whether the peer's log shows each kind at work at a quarter of the `sites`.
///
/// # Errors
/// A kind did not take part; the error says what the log lacks.
pub fn mixed_indeed(log: &str, sites: u16) -> Result<()> {
    let signs = [
        "authentication of 'gw.example.org' with RSA",
        "splitting IKE message",
        "using PPK for PPK_ID",
        "peer supports MOBIKE",
    ];
    for sign in signs {
        let seen = log.lines().filter(|line| line.contains(sign)).count();
        ensure!(
            seen >= usize::from(sites / 4),
            "the peer logged \"{sign}\" {seen} times for {sites} sites"
        );
    }
    Ok(())
}
