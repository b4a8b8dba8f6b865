//! Requests about configurations: what was applied is read from the book, orders go to the daemon.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::StatusCode;
use axum::response::Response;

use super::{ApiState, Asker, Refused, Shared, answer, answers};
use crate::config_book::ConfigBook;
use crate::config_store::Now;

pub async fn get_config(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(book(state)?.view(&Now::read()))).await
}

pub async fn get_text(
    State(state): Shared,
    entry: Result<Path<String>, PathRejection>,
) -> Result<Response, Refused> {
    let entry = entry?.0;
    answer(state, move |state| book(state)?.text(&entry)).await
}

pub async fn post_command(
    State(state): Shared,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let request = answers::from_json(&body?)?;
    let book = book(&state)?.clone();
    let done = book.order(request, asker.uid()).await?;
    Ok(answers::json_response(
        StatusCode::OK,
        answers::to_json(&done)?,
    ))
}

fn book(state: &ApiState) -> Result<&Arc<ConfigBook>, Refused> {
    let none = || Refused::failed("this gateway keeps no configurations");
    state.config.as_ref().ok_or_else(none)
}
