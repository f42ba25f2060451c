//! SAs in the words of list-sas.

use gateway_ike::mark::Mark;
use gateway_vici::Section;

use crate::api::model::{ChildInfo, IkeSaInfo};

/// The number that strongSwan gives an IKE SA: here the lower half of our SPI, so that it is the same
/// on all members and after a restart.
pub(super) fn ike_id(sa: &IkeSaInfo) -> u32 {
    u64::from_str_radix(&sa.local_spi, 16).map_or(0, |spi| (spi & 0xffff_ffff) as u32)
}

/// The number of a CHILD_SA: its inbound SPI.
pub(super) fn child_id(child: &ChildInfo) -> u32 {
    u32::from_str_radix(&child.spi_in, 16).unwrap_or(0)
}

/// One IKE SA with some of its CHILD_SAs; `here` if this member serves it.
pub fn ike_section(sa: &IkeSaInfo, here: bool, children: &[&ChildInfo]) -> Section {
    let (local, local_port) = split(&sa.local);
    let (remote, remote_port) = split(&sa.remote);
    let (initiator, responder) = if sa.initiator {
        (&sa.local_spi, &sa.remote_spi)
    } else {
        (&sa.remote_spi, &sa.local_spi)
    };
    let section = Section::new()
        .with("uniqueid", ike_id(sa))
        .with("version", 2)
        // strongSwan's word for what another node of a cluster serves.
        .with("state", if here { "ESTABLISHED" } else { "PASSIVE" })
        .with("local-host", local)
        .with("local-port", local_port)
        .with("local-id", &sa.local_id)
        .with("remote-host", remote)
        .with("remote-port", remote_port)
        .with("remote-id", &sa.remote_id)
        .with_some("initiator", sa.initiator.then_some("yes"))
        .with("initiator-spi", initiator)
        .with("responder-spi", responder)
        .with_some("nat-any", sa.nat.then_some("yes"));
    let section = suite(section, &sa.proposal)
        .with("established", whole(sa.established_seconds))
        .with_some("rekey-time", sa.rekey_seconds.map(whole))
        .with_some("reauth-time", sa.reauth_seconds.map(whole))
        .with("owner", sa.owner)
        .with("slot", sa.slot);
    let all = children.iter().fold(Section::new(), |all, child| {
        let name = format!("{}-{}", child.name, child_id(child));
        all.with_section(&name, child_section(child))
    });
    section.with_section("child-sas", all)
}

/// One CHILD_SA.
fn child_section(child: &ChildInfo) -> Section {
    let section = Section::new()
        .with("name", &child.name)
        .with("uniqueid", child_id(child))
        .with("reqid", child.reqid)
        .with("state", "INSTALLED")
        .with("mode", "TUNNEL")
        .with("protocol", "ESP")
        .with_some("encap", child.encap.then_some("yes"))
        .with("spi-in", &child.spi_in)
        .with("spi-out", &child.spi_out);
    let section = marked(
        section,
        ["mark-in", "mark-mask-in"],
        child.mark_in.as_deref(),
    );
    let section = marked(
        section,
        ["mark-out", "mark-mask-out"],
        child.mark_out.as_deref(),
    );
    suite(section, &child.proposal)
        .with("bytes-in", child.bytes_in)
        .with("packets-in", child.packets_in)
        .with_some("use-in", child.idle_seconds)
        .with("bytes-out", child.bytes_out)
        .with("packets-out", child.packets_out)
        .with_some("rekey-time", child.rekey_seconds.map(whole))
        .with("life-time", whole(child.life_seconds))
        .with("install-time", whole(child.installed_seconds))
        .with_list("local-ts", &child.local_ts)
        .with_list("remote-ts", &child.remote_ts)
}

/// A mark as charon names it: the mask only if it is not all ones.
fn marked(section: Section, [value, mask]: [&str; 2], mark: Option<&str>) -> Section {
    let Some(mark) = mark.and_then(|mark| mark.parse::<Mark>().ok()) else {
        return section;
    };
    let hex = |bits: u32| format!("{bits:08x}");
    section
        .with(value, hex(mark.value))
        .with_some(mask, (mark.mask != u32::MAX).then(|| hex(mark.mask)))
}

/// `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768`, part by part.
fn suite(section: Section, proposal: &str) -> Section {
    let mut section = section;
    for (index, part) in proposal.split('/').enumerate() {
        section = match part {
            _ if index == 0 => match part.rsplit_once('-') {
                Some((name, bits)) => section.with("encr-alg", name).with("encr-keysize", bits),
                None => section.with("encr-alg", part),
            },
            "NO_EXT_SEQ" => section,
            "EXT_SEQ" => section.with("esn", 1),
            _ if part.starts_with("PRF_") => section.with("prf-alg", part),
            _ if part.starts_with("HMAC_") => section.with("integ-alg", part),
            _ => match part
                .strip_prefix("KE")
                .and_then(|rest| rest.split_once('_'))
            {
                Some((number, name)) if number.parse::<u8>().is_ok() => {
                    section.with(&format!("ake{number}"), name)
                }
                _ => section.with("dh-group", part),
            },
        };
    }
    section
}

/// Address and port.
fn split(socket: &str) -> (String, u16) {
    match socket.parse::<std::net::SocketAddr>() {
        Ok(socket) => (socket.ip().to_string(), socket.port()),
        Err(_) => (socket.to_owned(), 0),
    }
}

/// Whole seconds.
pub(super) fn whole(seconds: f64) -> u64 {
    seconds.max(0.0) as u64
}
