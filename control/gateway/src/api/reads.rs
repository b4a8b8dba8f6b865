//! Handlers of requests that only read what is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use patronus_api::{HistoryQuery, METER_MAX_S, MeterStagesRequest, OrderedResponse, WatchQuery};

use super::answers::{self, Refused};
use super::{ApiState, Asker, Query1, Shared, answer, beside, counting, history, watch};
use crate::metrics;
use crate::path_events::{About, What};

pub async fn get_workers(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(counting::workers(state))).await
}

pub async fn get_peers(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(counting::peers(state))).await
}

pub async fn get_counters(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(counting::counters(state))).await
}

pub async fn get_rules(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(counting::rules(state))).await
}

pub async fn get_metrics(State(state): Shared) -> Result<Response, Refused> {
    metrics_response(state).await
}

/// Everything for Prometheus.
pub async fn metrics_response(state: Arc<ApiState>) -> Result<Response, Refused> {
    let text = beside(state, |state| {
        let text = metrics::to_text(metrics::families(state));
        text.map_err(|error| Refused::failed(&error.to_string()))
    })
    .await?;
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((StatusCode::OK, kind, text).into_response())
}

pub async fn get_history(
    State(state): Shared,
    query: Query1<HistoryQuery>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|it| Refused::query(&it, "?metric=path_rtt_ms&since=3600"))?;
    answer(state, move |state| history::answer(state, &query)).await
}

pub async fn post_stages(
    State(state): Shared,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let MeterStagesRequest { seconds } = answers::from_json(&body?)?;
    if seconds > METER_MAX_S {
        let fix = format!("meter for at most {METER_MAX_S} seconds and ask again");
        let error = format!("{seconds} s is too long");
        return Err(Refused::field("seconds", error, fix));
    }
    answer(state, move |state| {
        let span = Duration::from_secs(seconds.into());
        state.dataplane.facts.meter_stages(span);
        let text = match seconds {
            0 => "meter stages no more".to_owned(),
            seconds => format!("meter the stages of every worker for {seconds} s"),
        };
        let what = What::Command(text.clone(), asker.uid());
        let live = state.live();
        let about = About::default();
        state.desk.put(&live.snapshot, about, what, Instant::now());
        tracing::info!(uid = asker.uid(), "{text}");
        Ok(OrderedResponse {
            done: true,
            text,
            warnings: Vec::new(),
        })
    })
    .await
}

pub async fn get_watch(
    State(state): Shared,
    Extension(asker): Extension<Asker>,
    query: Query1<WatchQuery>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|it| Refused::query(&it, "?interval_ms=1000"))?;
    let rhythm = watch::Rhythm::new(&query)?;
    let place = state.watchers.clone().try_acquire_owned();
    let place = place.map_err(|_| state.crowded())?;
    Ok(watch::stream_of(state, asker, rhythm, place))
}
