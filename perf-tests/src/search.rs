//! The search for the highest rate that loses no more than allowed (NDR: nothing; PDR: a stated share).
//!
//! RFC 2544, section 26.1, asks for the rate; T-Rex's NDR benchmark shows how to get there fast: the loss that a
//! trial measured says how much the device carried, so the next trial is made there and not blindly in the
//! middle. Pure: it proposes rates and is told what came of them.

/// What a trial showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The rate that was really offered, packets per second.
    pub offered_pps: f64,
    /// Share of the packets that did not arrive, 0 to 1.
    pub loss: f64,
}

/// What to search for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The share of packets that may be lost.
    pub loss_max: f64,
    /// How close the answer has to be: the gap between the best rate that passed and the lowest that failed, as a
    /// share of the latter.
    pub precision: f64,
    /// Rates below this are not tried, packets per second.
    pub floor_pps: f64,
    /// Rates above this are not tried, packets per second: what the sender makes.
    pub ceiling_pps: f64,
    /// The most trials; the search ends with what it has then.
    pub trials_max: usize,
}

/// The search's next wish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Make a trial at this rate and [`Search::record`] it.
    Try(f64),
    /// There is nothing more to learn.
    Done(Answer),
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The highest rate that passed below every rate that failed; `None` where even the lowest failed.
    pub rate_pps: Option<f64>,
    /// Nothing failed: the device may carry more than the sender makes.
    pub at_ceiling: bool,
    /// The gap to the lowest rate that failed is within the precision asked for.
    pub is_precise: bool,
    /// Trials made.
    pub trials: usize,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    goal: Goal,
    first_pps: f64,
    points: Vec<Point>,
    trials: usize,
    /// Whether the last proposal came from a measured loss; the next one then halves, so that a device which
    /// carries less the more it is offered cannot lead the search by small steps.
    guessed: bool,
}

impl Search {
    /// A search that begins at `first_pps`, which is taken into the goal's bounds.
    ///
    /// # Panics
    /// On a goal that makes no sense: these are constants and checked options of ours.
    pub fn new(goal: Goal, first_pps: f64) -> Self {
        assert!(
            goal.floor_pps > 0.0 && goal.ceiling_pps >= goal.floor_pps,
            "{goal:?}"
        );
        assert!(
            (0.0..1.0).contains(&goal.loss_max) && (1e-4..0.5).contains(&goal.precision),
            "{goal:?}"
        );
        Self {
            goal,
            first_pps: first_pps.clamp(goal.floor_pps, goal.ceiling_pps),
            points: Vec::new(),
            trials: 0,
            guessed: false,
        }
    }

    /// Takes over what another search learnt, at no trial.
    pub fn knowing(mut self, point: Point) -> Self {
        self.points.push(point);
        self
    }

    /// Tells what came of a trial. One that fell short of the proposed rate shows where the sender ends.
    pub fn record(&mut self, point: Point, sender_fell_short: bool) {
        if sender_fell_short {
            let ceiling = self.goal.ceiling_pps.min(point.offered_pps);
            self.goal.ceiling_pps = ceiling.max(self.goal.floor_pps);
        }
        self.points.push(point);
        self.trials += 1;
    }

    /// The next rate to try, or the answer.
    pub fn step(&mut self) -> Step {
        let (low, high) = (self.passed_pps(), self.failed());
        if self.trials >= self.goal.trials_max {
            return Step::Done(self.answer(low, high));
        }
        let Goal {
            floor_pps,
            ceiling_pps,
            precision,
            ..
        } = self.goal;
        if self.trials == 0 {
            return Step::Try(self.first_pps);
        }
        let next = match (low, high) {
            // Unreachable after a trial; a sender without a rate has none that passed.
            (None, None) => return Step::Done(self.answer(None, None)),
            (Some(low), None) if low >= ceiling_pps * (1.0 - precision) => {
                return Step::Done(self.answer(Some(low), None));
            }
            (Some(low), None) => (low * GROWTH).min(ceiling_pps),
            (None, Some(high)) if high.offered_pps <= floor_pps * (1.0 + precision) => {
                return Step::Done(self.answer(None, Some(high)));
            }
            (None, Some(high)) => {
                let failures = self.points.len() as f64;
                let carried = 1.0 - high.loss.max(failures * DESCENT).min(0.9);
                (high.offered_pps * carried).max(floor_pps)
            }
            (Some(low), Some(high)) if high.offered_pps - low <= precision * high.offered_pps => {
                return Step::Done(self.answer(Some(low), Some(high)));
            }
            (Some(low), Some(high)) => self.between(low, high),
        };
        Step::Try(next)
    }

    /// Where the measured loss points, every other time; else the middle. What the device carried under overload
    /// may be no more than what has passed: then the trial is made as little above that as closes the gap.
    fn between(&mut self, low: f64, high: Point) -> f64 {
        let width = high.offered_pps - low;
        let carried = high.offered_pps * (1.0 - high.loss);
        let lowest = low / (1.0 - self.goal.precision * CLOSING);
        let highest = high.offered_pps - EDGE * width;
        self.guessed = !self.guessed && lowest < highest && carried <= highest;
        match self.guessed {
            true => carried.max(lowest),
            false => low + width / 2.0,
        }
    }

    /// The lowest rate that failed.
    fn failed(&self) -> Option<Point> {
        let failed = self.points.iter().filter(|point| !self.passes(point));
        failed
            .min_by(|a, b| a.offered_pps.total_cmp(&b.offered_pps))
            .copied()
    }

    /// The highest rate that passed below every failure: a lucky trial above one proves nothing.
    fn passed_pps(&self) -> Option<f64> {
        let high = self.failed().map_or(f64::INFINITY, |high| high.offered_pps);
        let passed = self.points.iter().filter(|point| self.passes(point));
        let below = passed.filter(|point| point.offered_pps < high);
        below.map(|point| point.offered_pps).max_by(f64::total_cmp)
    }

    fn passes(&self, point: &Point) -> bool {
        point.loss <= self.goal.loss_max
    }

    fn answer(&self, low: Option<f64>, high: Option<Point>) -> Answer {
        let is_precise = match (low, high) {
            (Some(low), Some(high)) => {
                high.offered_pps - low <= self.goal.precision * high.offered_pps
            }
            (Some(low), None) => low >= self.goal.ceiling_pps * (1.0 - self.goal.precision),
            (None, _) => false,
        };
        Answer {
            rate_pps: low,
            at_ceiling: low.is_some() && high.is_none(),
            is_precise,
            trials: self.trials,
        }
    }
}

/// How much higher the next trial is as long as nothing failed.
const GROWTH: f64 = 1.25;
/// How much lower at least, per failure, as long as nothing passed.
const DESCENT: f64 = 0.1;
/// A guess this close to the upper end of the gap, as a share of it, teaches little.
const EDGE: f64 = 0.1;
/// The share of the precision at which a trial above the best rate is made, to close the gap if it fails.
const CLOSING: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn goal(loss_max: f64, ceiling_pps: f64) -> Goal {
        Goal {
            loss_max,
            precision: 0.02,
            floor_pps: 100.0,
            ceiling_pps,
            trials_max: 60,
        }
    }

    /// Runs a search against a device that loses `loss(rate)`, offered by a sender that makes `sender_pps`.
    fn run(
        mut search: Search,
        sender_pps: f64,
        mut loss: impl FnMut(f64) -> f64,
    ) -> (Answer, Vec<Point>) {
        let mut points = Vec::new();
        loop {
            match search.step() {
                Step::Done(answer) => return (answer, points),
                Step::Try(rate) => {
                    let offered_pps = rate.min(sender_pps);
                    let point = Point {
                        offered_pps,
                        loss: loss(offered_pps),
                    };
                    points.push(point);
                    search.record(point, rate > sender_pps);
                }
            }
        }
    }

    /// Carries all up to `capacity` and, above it, the less the more it is offered.
    fn overload(capacity: f64, collapse: f64) -> impl Fn(f64) -> f64 {
        move |rate: f64| match rate <= capacity {
            true => 0.0,
            false => 1.0 - (capacity / rate).powf(collapse),
        }
    }

    #[test]
    fn a_device_that_drops_only_the_excess_is_found_in_a_few_trials() {
        let search = Search::new(goal(0.0, 1e6), 1e6);
        let (answer, points) = run(search, f64::INFINITY, overload(200_000.0, 1.0));
        let rate = answer.rate_pps.unwrap();
        assert!((196_000.0..=200_000.0).contains(&rate), "{rate}");
        assert!(answer.is_precise && answer.trials <= 6, "{points:?}");
    }

    #[test]
    fn a_device_faster_than_the_sender_is_reported_as_such() {
        let search = Search::new(goal(0.0, 1e6), 1e6);
        let (answer, _) = run(search, 300_000.0, |_| 0.0);
        assert_eq!(answer.rate_pps, Some(300_000.0));
        assert!(answer.at_ceiling && answer.is_precise, "{answer:?}");
    }

    #[test]
    fn a_device_that_always_loses_has_no_rate_and_the_search_ends() {
        let search = Search::new(goal(0.0, 1e6), 1e6);
        let (answer, points) = run(search, f64::INFINITY, |_| 0.001);
        assert_eq!(answer.rate_pps, None);
        assert!(!answer.at_ceiling && !answer.is_precise);
        assert_eq!(points.last().unwrap().offered_pps, 100.0);
    }

    #[test]
    fn a_lucky_trial_above_a_failure_does_not_count() {
        let mut search = Search::new(goal(0.0, 1e6), 50_000.0);
        for (offered_pps, loss) in [(50_000.0, 0.0), (80_000.0, 0.1), (90_000.0, 0.0)] {
            search.record(Point { offered_pps, loss }, false);
        }
        let Step::Try(next) = search.step() else {
            panic!("50 000 and 80 000 are far apart")
        };
        assert!((50_000.0..80_000.0).contains(&next), "{next}");
    }

    #[test]
    fn a_search_out_of_trials_says_that_it_is_not_precise() {
        let mut short = goal(0.0, 1e6);
        short.trials_max = 2;
        let (answer, _) = run(Search::new(short, 1e6), 1e9, overload(90_000.0, 2.0));
        assert!(!answer.is_precise);
        assert_eq!(answer.trials, 2);
    }

    #[test]
    fn what_another_search_learnt_costs_no_trial() {
        let known = Point {
            offered_pps: 100_000.0,
            loss: 0.0,
        };
        let search = Search::new(goal(0.005, 1e6), 105_000.0).knowing(known);
        let (answer, _) = run(search, 1e9, overload(100_000.0, 1.0));
        let rate = answer.rate_pps.unwrap();
        assert!((100_000.0..=100_503.0).contains(&rate), "{rate}");
        assert!(answer.trials <= 4, "{answer:?}");
    }

    proptest! {
        #[test]
        fn every_overload_curve_is_found_to_the_precision_asked_for(
            capacity in 200.0..2e6_f64,
            collapse in 0.3..4.0_f64,
            ceiling in 1e3..3e6_f64,
            first_share in 0.01..1.0_f64,
            loss_max in prop_oneof![Just(0.0), Just(0.005)],
        ) {
            let curve = overload(capacity, collapse);
            let search = Search::new(goal(loss_max, ceiling), ceiling * first_share);
            let (answer, points) = run(search, f64::INFINITY, &curve);

            // The rate at which the curve loses just what is allowed.
            let limit = (capacity / (1.0 - loss_max).powf(1.0 / collapse)).min(ceiling);
            let rate = answer.rate_pps.expect("the floor is below every capacity");
            prop_assert!(rate <= limit * 1.000_001, "{rate} above {limit}: {points:?}");
            prop_assert!(rate >= limit * 0.979, "{rate} far below {limit}: {points:?}");
            prop_assert!(answer.is_precise && answer.trials <= 40, "{answer:?} {points:?}");
        }

        #[test]
        fn a_noisy_device_never_gets_a_rate_that_it_failed_at_or_above(
            losses in prop::collection::vec(prop_oneof![3 => Just(0.0), 2 => 0.0..0.9_f64], 60),
            first in 100.0..1e6_f64,
        ) {
            let mut noise = losses.into_iter();
            let search = Search::new(goal(0.0, 1e6), first);
            let (answer, points) = run(search, 8e5, |_| noise.next().unwrap_or(0.5));
            prop_assert!(answer.trials <= 60);
            if let Some(rate) = answer.rate_pps {
                prop_assert!(points.iter().any(|point| point.offered_pps == rate && point.loss == 0.0));
                prop_assert!(points.iter().all(|point| point.loss == 0.0 || point.offered_pps > rate));
            }
        }
    }
}
