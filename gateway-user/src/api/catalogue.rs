//! The pages that need no more than a request without arguments: for the command line, and for a
//! support bundle, which has all of them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::model::{
    Checks, Connections, FailoverHistory, Health, Interfaces, Members, Pnotes, Request, Sas, Stats,
    Status, SyncStatus, Table, ViewStatus,
};
use super::render;

/// What is asked, and how the answer is shown.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The command that shows it.
    pub name: &'static str,
    request: fn() -> Request,
    text: fn(&Value) -> serde_json::Result<String>,
}

impl Page {
    /// The request.
    pub fn request(&self) -> Request {
        (self.request)()
    }

    /// The answer as a table for humans.
    ///
    /// # Errors
    /// It is not an answer to this request.
    pub fn text(&self, answer: &Value) -> serde_json::Result<String> {
        (self.text)(answer)
    }
}

fn shown<T: Serialize + DeserializeOwned>(
    answer: &Value,
    render: fn(&T) -> String,
) -> serde_json::Result<String> {
    Ok(render(&serde_json::from_value(answer.clone())?))
}

macro_rules! pages {
    ($($name:literal $request:expr => $type:ty, $render:path;)+) => {
        &[$(Page {
            name: $name,
            request: || $request,
            text: |answer| shown::<$type>(answer, $render),
        },)+]
    };
}

/// All of them.
pub const PAGES: &[Page] = pages! {
    "status" Request::Status => Status, render::status;
    "members" Request::Members => Members, render::cluster::members;
    "view" Request::View => ViewStatus, render::cluster::view;
    "interfaces" Request::Interfaces => Interfaces, render::interfaces;
    "pnotes" Request::Pnotes => Pnotes, render::cluster::pnotes;
    "sync" Request::Sync => SyncStatus, render::cluster::sync;
    "failover-history" Request::FailoverHistory => FailoverHistory, render::failovers::history;
    "health" Request::Health => Health, render::cluster::health;
    "table" Request::Table => Table, render::table;
    "sas" Request::Sas { all: true } => Sas, render::sas;
    "connections" Request::Connections => Connections, render::connections::connections;
    "stats" Request::Stats => Stats, render::stats;
    "check" Request::Check => Checks, render::checks;
};
