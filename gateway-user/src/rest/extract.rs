//! Extractors whose rejections are problem details.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// The query string.
pub(super) struct Query<T>(pub(super) T);

/// A segment of the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(error) => Err(body_problem(&error)),
        }
    }
}

/// Without the offending text: what was sent may hold more than the log should.
fn body_problem(error: &JsonRejection) -> Problem {
    let detail = match error {
        JsonRejection::MissingJsonContentType(_) => {
            "the body has to be JSON, with `Content-Type: application/json`".to_owned()
        }
        other => other.body_text(),
    };
    Problem::new(error.status(), detail)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|error| Problem::new(StatusCode::NOT_FOUND, error.body_text()))
    }
}
