//! What a numbered flow leaves behind, packet by packet, and what can be read from it: gaps, losses, packets out of
//! order, packets that came twice.
//!
//! Pure: times are nanoseconds of one clock that sender and receiver share.

/// One packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number.
    pub number: u64,
    /// When it arrived.
    pub at_ns: u64,
}

/// A whole flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When each packet was sent, by number.
    pub sent_ns: Vec<u64>,
    /// What arrived, in the order of arrival.
    pub arrivals: Vec<Arrival>,
    /// Times that the sender's kernel refused a packet, which was then sent later.
    pub refused: u64,
}

/// A part of a flow, by time: from the first time on, up to but not including the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Begin.
    pub from_ns: u64,
    /// End.
    pub to_ns: u64,
}

/// What became of the packets that were sent in a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Packets sent.
    pub sent: u64,
    /// Packets of which none arrived.
    pub lost: u64,
    /// Packets that first arrived behind one with a higher number (RFC 4737, type P-reordered).
    pub reordered: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
}

/// A pause at the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When the last packet before it arrived.
    pub begun_ns: u64,
    /// How long nothing arrived.
    pub length_ns: u64,
    /// The longest pause of the sender within it: that much is the measurement's own.
    pub sender_pause_ns: u64,
    /// Whether a packet ended it; `false` where nothing came until the span ended.
    pub is_over: bool,
}

impl Record {
    /// What became of the packets sent in the span.
    pub fn account(&self, span: Span) -> Account {
        let numbers = self.numbers(span);
        let mut account = Account {
            sent: numbers.end - numbers.start,
            ..Account::default()
        };
        let mut has_come = vec![false; self.sent_ns.len()];
        let (mut highest, mut came) = (None, 0);
        for arrival in &self.arrivals {
            let Some(seen) = has_come.get_mut(arrival.number as usize) else {
                continue;
            };
            let counts = numbers.contains(&arrival.number);
            let is_late = highest.is_some_and(|highest| arrival.number < highest);
            match (*seen, counts) {
                (true, true) => account.duplicated += 1,
                (false, true) => {
                    came += 1;
                    account.reordered += u64::from(is_late);
                }
                (_, false) => {}
            }
            *seen = true;
            highest = highest.max(Some(arrival.number));
        }
        account.lost = account.sent - came;
        account
    }

    /// The longest pause between arrivals that touches the span; `None` where nothing arrived before its end.
    pub fn gap(&self, span: Span) -> Option<Gap> {
        let mut times = self.arrivals.iter().map(|arrival| arrival.at_ns);
        let mut last = times.next().filter(|first| *first < span.to_ns)?;
        let mut longest = Gap {
            begun_ns: last,
            is_over: true,
            ..Gap::default()
        };
        let mut consider = |from: u64, to: u64, is_over| {
            let length_ns = to.saturating_sub(from);
            if to > span.from_ns && length_ns > longest.length_ns {
                longest = Gap {
                    begun_ns: from,
                    length_ns,
                    sender_pause_ns: 0,
                    is_over,
                };
            }
        };
        let mut is_open = true;
        for at_ns in times {
            consider(last, at_ns, true);
            last = last.max(at_ns);
            if at_ns >= span.to_ns {
                is_open = false;
                break;
            }
        }
        if is_open {
            consider(last, span.to_ns, false);
        }
        longest.sender_pause_ns = self.sender_pause_ns(Span {
            from_ns: longest.begun_ns,
            to_ns: longest.begun_ns + longest.length_ns,
        });
        Some(longest)
    }

    /// The longest time without an arrival inside the span; what a pause has outside of it does not count.
    pub fn pause_within_ns(&self, span: Span) -> u64 {
        let inside = |at_ns: &u64| (span.from_ns..span.to_ns).contains(at_ns);
        let times = self.arrivals.iter().map(|arrival| arrival.at_ns);
        let (mut last, mut longest) = (span.from_ns, 0);
        for at_ns in times.filter(inside).chain([span.to_ns]) {
            longest = longest.max(at_ns.saturating_sub(last));
            last = last.max(at_ns);
        }
        longest
    }

    /// Packets that first arrived at that time or later behind one with a higher number that arrived in the same time:
    /// what came late from before does not count. Packets sent before the one that came first then are left out.
    pub fn reordered_since(&self, at_ns: u64) -> u64 {
        let since = self
            .arrivals
            .partition_point(|arrival| arrival.at_ns < at_ns);
        let Some(first) = self.arrivals.get(since) else {
            return 0;
        };
        let mut has_come = vec![false; self.sent_ns.len()];
        for arrival in &self.arrivals[..since] {
            if let Some(seen) = has_come.get_mut(arrival.number as usize) {
                *seen = true;
            }
        }
        let (mut highest, mut reordered) = (first.number, 0);
        for arrival in &self.arrivals[since..] {
            let Some(seen) = has_come.get_mut(arrival.number as usize) else {
                continue;
            };
            let is_late = (first.number..highest).contains(&arrival.number);
            reordered += u64::from(is_late && !*seen);
            *seen = true;
            highest = highest.max(arrival.number);
        }
        reordered
    }

    /// The longest pause of the sender that touches the span.
    pub fn sender_pause_ns(&self, span: Span) -> u64 {
        let numbers = self.numbers(span);
        let from = (numbers.start as usize).saturating_sub(1);
        let to = (numbers.end as usize + 1).min(self.sent_ns.len());
        let sent = &self.sent_ns[from..to.max(from)];
        let pauses = sent.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        pauses.max().unwrap_or(0)
    }

    /// When the last packet of the span was sent that did not arrive, or arrived more than `delay_max_ns` after that.
    pub fn last_bad_ns(&self, span: Span, delay_max_ns: u64) -> Option<u64> {
        let mut is_good = vec![false; self.sent_ns.len()];
        for arrival in &self.arrivals {
            let sent = self.sent_ns.get(arrival.number as usize);
            if let (Some(sent_ns), Some(good)) = (sent, is_good.get_mut(arrival.number as usize)) {
                *good |= arrival.at_ns.saturating_sub(*sent_ns) <= delay_max_ns;
            }
        }
        let bad = self.numbers(span).rev();
        bad.map(|number| number as usize)
            .find(|number| !is_good[*number])
            .map(|number| self.sent_ns[number])
    }

    /// One-way delays of the packets sent in the span, first arrivals only, in ns, sorted.
    pub fn delays_ns(&self, span: Span) -> Vec<u64> {
        let numbers = self.numbers(span);
        let mut first = vec![None; self.sent_ns.len()];
        for arrival in &self.arrivals {
            if let Some(slot) = first.get_mut(arrival.number as usize) {
                slot.get_or_insert(arrival.at_ns);
            }
        }
        let mut delays: Vec<u64> = numbers
            .filter_map(|number| {
                let number = number as usize;
                Some(first[number]?.saturating_sub(self.sent_ns[number]))
            })
            .collect();
        delays.sort_unstable();
        delays
    }

    /// Numbers of the packets sent in the span.
    fn numbers(&self, span: Span) -> std::ops::Range<u64> {
        let place = |at_ns| self.sent_ns.partition_point(|sent_ns| *sent_ns < at_ns) as u64;
        let from = place(span.from_ns);
        from..place(span.to_ns).max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// Packets sent every millisecond from 0 on; the arrivals are (number, millisecond).
    fn record(sent: u64, arrivals: &[(u64, u64)]) -> Record {
        Record {
            sent_ns: (0..sent).map(|number| number * MS).collect(),
            arrivals: arrivals
                .iter()
                .map(|(number, at_ms)| Arrival {
                    number: *number,
                    at_ns: at_ms * MS,
                })
                .collect(),
            refused: 0,
        }
    }

    fn span(from_ms: u64, to_ms: u64) -> Span {
        Span {
            from_ns: from_ms * MS,
            to_ns: to_ms * MS,
        }
    }

    #[test]
    fn losses_reorderings_and_duplicates_are_told_apart() {
        // 2 is lost, 3 comes behind 4, 5 comes twice.
        let flow = record(7, &[(0, 1), (1, 2), (4, 5), (3, 6), (5, 7), (5, 8), (6, 9)]);
        let account = flow.account(span(0, 7));
        assert_eq!(
            account,
            Account {
                sent: 7,
                lost: 1,
                reordered: 1,
                duplicated: 1,
            }
        );
    }

    #[test]
    fn a_duplicate_that_comes_late_is_a_duplicate_and_no_reordering() {
        let flow = record(3, &[(0, 1), (1, 2), (2, 3), (0, 4)]);
        let account = flow.account(span(0, 3));
        assert_eq!(
            (account.lost, account.reordered, account.duplicated),
            (0, 0, 1)
        );
    }

    #[test]
    fn a_pause_that_begins_inside_a_span_and_ends_outside_counts_for_what_is_inside() {
        let flow = record(300, &[(0, 1), (30, 31), (31, 32), (250, 251), (251, 252)]);
        assert_eq!(flow.pause_within_ns(span(20, 40)), 11 * MS);
        assert_eq!(flow.pause_within_ns(span(0, 100)), 68 * MS);
        assert_eq!(flow.pause_within_ns(span(100, 120)), 20 * MS);
    }

    #[test]
    fn packets_out_of_order_on_the_new_path_are_told_from_those_the_old_one_still_brings() {
        // From 10 ms on: 5 is the first on the new path, 3 and 4 come late from the old one, 7 comes behind 8, 6 twice.
        let arrivals = [
            (0, 1),
            (1, 2),
            (2, 3),
            (5, 10),
            (3, 11),
            (4, 12),
            (6, 13),
            (8, 14),
            (7, 15),
            (6, 16),
            (9, 17),
        ];
        let flow = record(10, &arrivals);
        assert_eq!(flow.reordered_since(10 * MS), 1);
        assert_eq!(flow.account(span(0, 10)).reordered, 3);
        assert_eq!(flow.reordered_since(15 * MS), 0);
        assert_eq!(flow.reordered_since(100 * MS), 0);
    }

    #[test]
    fn packets_belong_to_the_span_they_were_sent_in() {
        let flow = record(10, &[(0, 1), (1, 2), (8, 9), (7, 10)]);
        assert_eq!(flow.account(span(0, 2)).lost, 0);
        assert_eq!(flow.account(span(2, 7)).lost, 5);
        let after = flow.account(span(7, 10));
        assert_eq!((after.sent, after.lost, after.reordered), (3, 1, 1));
        assert_eq!(flow.account(span(20, 10)).sent, 0);
    }

    #[test]
    fn the_gap_is_the_longest_pause_that_touches_the_span() {
        let flow = record(300, &[(0, 1), (30, 31), (31, 32), (250, 251), (251, 252)]);
        // The pause from 1 to 31 is over before the span begins.
        let gap = flow.gap(span(40, 260)).unwrap();
        assert_eq!((gap.begun_ns, gap.length_ns), (32 * MS, 219 * MS));
        assert!(gap.is_over);
        assert_eq!(gap.sender_pause_ns, MS);
        assert_eq!(flow.gap(span(0, 30)).unwrap().length_ns, 30 * MS);
    }

    #[test]
    fn a_gap_that_nothing_ended_lasts_until_the_span_does_and_says_so() {
        let flow = record(100, &[(0, 1), (1, 2)]);
        let gap = flow.gap(span(0, 90)).unwrap();
        assert_eq!((gap.length_ns, gap.is_over), (88 * MS, false));
        assert_eq!(record(100, &[]).gap(span(0, 90)), None);
        assert_eq!(record(100, &[(0, 95)]).gap(span(0, 90)), None);
    }

    #[test]
    fn a_pause_of_the_sender_is_told_with_the_gap_that_it_made() {
        let mut flow = record(4, &[(0, 1), (1, 2), (2, 82), (3, 83)]);
        flow.sent_ns = [0, MS, 81 * MS, 82 * MS].to_vec();
        let gap = flow.gap(span(0, 90)).unwrap();
        assert_eq!((gap.length_ns, gap.sender_pause_ns), (80 * MS, 80 * MS));
    }

    #[test]
    fn the_last_bad_packet_is_the_last_one_lost_or_late() {
        let flow = record(6, &[(0, 1), (2, 50), (3, 51), (4, 5), (5, 6)]);
        assert_eq!(flow.last_bad_ns(span(0, 6), 100 * MS), Some(MS));
        assert_eq!(flow.last_bad_ns(span(0, 6), 10 * MS), Some(3 * MS));
        assert_eq!(flow.last_bad_ns(span(4, 6), 10 * MS), None);
    }

    #[test]
    fn delays_are_those_of_first_arrivals() {
        let flow = record(3, &[(0, 4), (0, 9), (2, 3)]);
        assert_eq!(flow.delays_ns(span(0, 3)), [MS, 4 * MS]);
    }

    proptest! {
        #[test]
        fn every_packet_sent_has_arrived_once_or_is_lost_and_every_arrival_is_accounted_for(
            numbers in prop::collection::vec(0_u64..50, 0..200),
        ) {
            let arrivals: Vec<(u64, u64)> = numbers
                .iter()
                .zip(1..)
                .map(|(number, at)| (*number, at))
                .collect();
            let account = record(50, &arrivals).account(span(0, 50));
            prop_assert_eq!(account.sent, 50);
            prop_assert_eq!(
                account.sent - account.lost + account.duplicated,
                numbers.len() as u64
            );
            prop_assert!(account.reordered <= account.sent - account.lost);
        }
    }
}
