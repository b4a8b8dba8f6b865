//! What hellos and counters say about a path, in fixed memory: nothing here allocates after it was made.
//!
//! Each estimator takes samples with their time and answers for now. They know neither messages nor states.

pub(crate) mod data;
pub(crate) mod delay;
pub(crate) mod histogram;
pub(crate) mod loss;
pub(crate) mod rate;
pub(crate) mod smooth;
pub(crate) mod train;

pub(crate) use data::DataLoss;
pub(crate) use delay::{Jitter, OneWay, RoundTrip};
pub(crate) use loss::{Arrivals, Departures, Windows};
pub(crate) use rate::{Passive, RateMeter};
pub(crate) use train::TrainMeter;
