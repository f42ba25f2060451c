//! Whether this member takes traffic, for routing daemons.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config;
use crate::rtnl::{self, Socket};

/// Tells it: a file with the state, and host routes in a routing table that a daemon imports.
#[derive(Debug)]
pub struct Health {
    file: PathBuf,
    table: Option<u8>,
    vips: Vec<IpAddr>,
    told: Option<(String, bool)>,
}

impl Health {
    /// Nothing is told before the first [`Health::tell`].
    pub fn new(config: &config::Health, vips: &[IpAddr]) -> Self {
        let table = config
            .route_table
            .map(|table| u8::try_from(table).unwrap_or(u8::MAX));
        Self {
            file: config.state_file.clone(),
            table,
            vips: vips.to_vec(),
            told: None,
        }
    }

    /// The member is in `state`; `healthy`: upstream may send to it.
    ///
    /// # Errors
    /// File or routes cannot be written; what could be was. The next call tries again.
    pub fn tell(&mut self, state: &str, healthy: bool) -> io::Result<()> {
        let news = (state.to_owned(), healthy);
        if self.told.as_ref() == Some(&news) {
            return Ok(());
        }
        self.told = None;
        let routes = self.mark_routes(healthy);
        write(&self.file, state)?;
        routes?;
        self.told = Some(news);
        Ok(())
    }

    fn mark_routes(&self, there: bool) -> io::Result<()> {
        let Some(table) = self.table else {
            return Ok(());
        };
        let mut socket = Socket::open()?;
        for vip in &self.vips {
            rtnl::mark_route(&mut socket, table, *vip, there)?;
        }
        Ok(())
    }
}

/// A reader sees the old word or the new one.
fn write(file: &Path, state: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{state}\n"))?;
    std::fs::rename(new, file)
}
