//! The REST API: HTTP in front of the agent's loop.
//!
//! Handlers translate a request to a [`Request`](crate::api::model::Request), wait for the loop's
//! answer and translate that back; they know nothing of the gateway themselves. The OpenAPI document
//! is made from the same handlers and types. Every route is registered with the role that it takes
//! ([`routes`]), which one middleware enforces ([`guard`]).

mod access;
mod browser;
mod connection;
mod events;
mod extract;
mod forwarding;
mod guard;
mod listen;
mod metrics;
mod operations;
mod page;
mod problem;
mod resources;
mod routes;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::sync::Arc;

use axum::Json;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use self::access::RateLimit;
use self::connection::Limits;
use self::problem::Problem;
use self::routes::Roles;
use crate::api::event::ApiEvent;
use crate::api::model::{Refusal, RefusalKind, Reply, Request, SaQuery};
use crate::api::{self, Call};
use crate::config::{Rest as Config, RestAccess};

/// Default path of the REST socket.
pub const DEFAULT_SOCKET: &str = "/run/gateway/rest.sock";

/// Longest body of a request, in octets.
const MAX_BODY: usize = 128 * 1024;

/// What the handlers share.
#[derive(Clone)]
struct Rest {
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<ApiEvent>,
    shared: Arc<Shared>,
}

struct Shared {
    access: RestAccess,
    rate: RateLimit,
    rate_value: u32,
    roles: Roles,
    openapi: Value,
    per_sa_metrics: bool,
    inject_over_tls: bool,
    injections: RateLimit,
}

/// Answer of most handlers: the agent's, as it is.
type Answer = Result<Json<Value>, Problem>;

/// Injected packets per second.
const INJECTIONS: u32 = 20;

impl Rest {
    fn new(
        config: &Config,
        access: RestAccess,
        calls: mpsc::Sender<Call>,
        events: broadcast::Sender<ApiEvent>,
    ) -> Self {
        let (_, document, roles) = routes::all();
        Self {
            calls,
            events,
            shared: Arc::new(Shared {
                access,
                rate: RateLimit::new(config.rate),
                rate_value: config.rate,
                roles,
                openapi: serde_json::to_value(document).unwrap_or_default(),
                per_sa_metrics: config.per_sa_metrics,
                inject_over_tls: config.inject_over_tls,
                injections: RateLimit::new(INJECTIONS),
            }),
        }
    }

    /// Asks the agent's loop.
    async fn value(&self, request: Request) -> Result<Value, Problem> {
        match api::ask(&self.calls, request).await {
            Some(Reply::Ok(value)) => Ok(value),
            Some(reply) => Err(refused(reply)),
            None => Err(Problem::unavailable()),
        }
    }

    /// A page of SAs.
    async fn page(&self, query: SaQuery) -> Answer {
        match api::full_page(&self.calls, query).await {
            Ok(page) => Ok(Json(serde_json::to_value(page).unwrap_or_default())),
            Err(reply) => Err(refused(reply)),
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        self.value(request).await.map(Json)
    }
}

fn refused(reply: Reply) -> Problem {
    match reply {
        Reply::Refused(refusal) => refusal.into(),
        Reply::Error(reason) => Refusal::new(RefusalKind::Conflict, reason).into(),
        Reply::Ok(_) => Problem::unavailable(),
    }
}

/// Serves the API where the configuration says, until the agent ends. The access list is taken over
/// for good: it holds secrets, of which there is one copy.
///
/// # Errors
/// A socket cannot be bound, or a certificate cannot be read.
pub async fn serve(
    mut config: Config,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<ApiEvent>,
) -> io::Result<()> {
    let access = std::mem::take(&mut config.access);
    let rest = Rest::new(&config, access, calls, events);
    let app = routes::app(rest);
    if let Some(path) = &config.socket {
        let listener = listen::unix(path, config.mode, config.group).await?;
        tokio::spawn(listen::serve(listener, app.clone(), Limits::default()));
    }
    if let Some(tls) = &config.tls {
        let listener = tls::Listener::bind(tls, Limits::default()).await?;
        tokio::spawn(listener.serve(app));
    }
    Ok(())
}

/// The OpenAPI document (3.1), without a running gateway.
pub fn openapi() -> String {
    let (_, document, _) = routes::all();
    document.to_pretty_json().unwrap_or_default()
}
