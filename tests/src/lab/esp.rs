//! Whether the running kernel can do ESP.

use std::path::Path;

use anyhow::Result;

use super::node::Node;
use super::run::Run;

/// Tries to install an AES-GCM ESP SA in a scratch namespace.
///
/// # Errors
/// The scratch namespace cannot be made.
pub fn kernel_has_esp(base: &Path) -> Result<bool> {
    load_modules();
    let run = Run::new(base, "esp-probe")?;
    let node = Node::new(&run, "probe")?;
    let key = "0x000102030405060708090a0b0c0d0e0f10111213";
    let command = format!(
        "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 reqid 1 mode tunnel \
         aead rfc4106(gcm(aes)) {key} 128"
    );
    Ok(node.ip(&command).is_ok())
}

/// Loads what the lab uses on a kernel with modules; elsewhere it is built in or absent.
pub fn load_modules() {
    // Without drbg, AES-GCM SAs fail on Debian's kernels for want of a random number generator.
    let modules = [
        "esp4",
        "esp6",
        "drbg",
        "gcm",
        "seqiv",
        "veth",
        "bridge",
        "nft_numgen",
        "nft_masq",
        "nft_chain_nat",
        "tun",
        "sch_ingress",
        "cls_bpf",
        "ip_tables",
    ];
    let _ = std::process::Command::new("modprobe")
        .arg("-qa")
        .args(modules)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
}
