//! CRL files: read at the start, and again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use gateway_ike::x509::Crl;

use crate::config::read_crl;

/// The CRLs of `[[authority]] crls`.
#[derive(Debug, Default)]
pub(super) struct Crls {
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// What the file looked like when it was read last.
    stamp: Option<Stamp>,
    /// The last good content.
    crl: Option<Arc<Crl>>,
}

type Stamp = (SystemTime, u64);

impl Crls {
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let unread = |path: &PathBuf| File {
            path: path.clone(),
            stamp: None,
            crl: None,
        };
        Self {
            files: files.iter().map(unread).collect(),
        }
    }

    /// All of them, if any has changed since the last call. One that has become unreadable stays
    /// what it was: a revocation is not forgotten because of a bad download.
    pub(super) fn refresh(&mut self) -> Option<Vec<Arc<Crl>>> {
        let mut changed = false;
        for file in &mut self.files {
            let stamp = stamp(&file.path);
            if stamp.is_some() && file.stamp == stamp {
                continue;
            }
            match read_crl(&file.path) {
                Ok(crl) => {
                    tracing::info!(
                        "CRL {}: {} certificates of \"{}\" are revoked",
                        file.path.display(),
                        crl.len(),
                        crl.issuer()
                    );
                    file.crl = Some(Arc::new(crl));
                    changed = true;
                }
                // Once per change.
                Err(why) if file.stamp.is_some() => {
                    tracing::warn!("CRL {}: {why}; the last one stays", file.path.display());
                }
                Err(_) => {}
            }
            file.stamp = stamp;
        }
        changed.then(|| {
            self.files
                .iter()
                .filter_map(|file| file.crl.clone())
                .collect()
        })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
