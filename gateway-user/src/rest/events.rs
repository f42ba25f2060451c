//! What happens, as it happens: Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::Rest;
use crate::api::event::ApiEvent;

/// So often a comment keeps proxies from closing a stream on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who loses the stream asks again after this; browsers would take seconds, in which a failover is over.
const RETRY: Duration = Duration::from_millis(500);

/// Changes of views, of members' states and of SAs, and failures, as they happen.
///
/// A `text/event-stream` (Server-Sent Events): the event's name is its `kind`, its data an ApiEvent
/// in JSON. Who reads too slowly is told with an event `lagged` how many it has missed. What happens
/// between two streams is in `/api/v1/history`.
#[utoipa::path(get, path = "/api/v1/events", tag = "gateway",
    responses((status = 200, description = "An endless stream", body = String,
        content_type = "text/event-stream")))]
pub(super) async fn events(
    State(rest): State<Rest>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let received = BroadcastStream::new(rest.events.subscribe());
    let told = received.map(|event| Ok(told(event)));
    let first = Event::default().retry(RETRY);
    Sse::new(tokio_stream::once(Ok(first)).chain(told))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn told(event: Result<ApiEvent, BroadcastStreamRecvError>) -> Event {
    match event {
        Ok(event) => {
            let named = Event::default().event(event.kind.as_str());
            let data = serde_json::to_string(&event).unwrap_or_default();
            named.data(data)
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => {
            let data = serde_json::json!({ "missed": missed }).to_string();
            Event::default().event("lagged").data(data)
        }
    }
}
