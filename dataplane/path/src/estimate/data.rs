//! Loss of data packets in one direction, from the cumulative counters at both ends (RFC 6374 direct mode).

use std::time::Duration;

use crate::time::Time;

/// Fewer packets say nothing.
const LEAST_PACKETS: u32 = 100;
/// Shorter windows say little: counters are read some time beside the hello.
const LEAST_SPAN: Duration = Duration::from_millis(400);
/// After a pause of this length nothing is under way any more.
const PAUSE: Duration = Duration::from_millis(500);
/// A share older than this is no news.
const FRESH: Duration = Duration::from_secs(10);
/// Over how many balances a hole is looked for.
const RECENT: usize = 4;
/// As many packets must be missing there.
const HOLE_PACKETS: i64 = 3;

/// Compares what one end sent with what the other received. What is under way, queued or counted late makes the
/// difference too large, never too small, so the least difference of two windows is the loss.
#[derive(Clone, Debug, Default)]
pub(crate) struct DataLoss {
    last: Option<(u32, u32)>,
    /// Sent less received, since the beginning.
    balance: i64,
    /// The part of it that is lost for sure.
    lost: i64,
    window: Option<Window>,
    /// When packets were sent last, as far as hellos tell.
    sent_at: Option<Time>,
    /// The least balance of the window before: with one window alone, luck looks like loss.
    least_before: Option<i64>,
    /// Windows with enough packets have been seen; the first one only finds the base.
    is_based: bool,
    share: Option<(f64, Time)>,
    recent: [i64; RECENT],
    recent_len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    from: Time,
    sent: u32,
    least: i64,
}

/// Data packets of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataFates {
    pub(crate) sent: u32,
    pub(crate) lost: u32,
}

impl DataLoss {
    /// The counters began anew at one end.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            share: self.share,
            ..Self::default()
        };
    }

    /// The sender had sent `sent` and the receiver had received `received`, about the same hello; low 32 bits.
    pub(crate) fn add(&mut self, sent: u32, received: u32, now: Time) -> Option<DataFates> {
        let (sent_before, received_before) = self.last.replace((sent, received))?;
        let newly_sent = sent.wrapping_sub(sent_before);
        let newly_received = received.wrapping_sub(received_before);
        if newly_sent > u32::MAX / 2 || newly_received > u32::MAX / 2 {
            self.restart();
            return None;
        }
        self.balance += i64::from(newly_sent) - i64::from(newly_received);
        self.note_recent();
        match (newly_sent, self.sent_at) {
            (0, Some(at)) if now.since(at) >= PAUSE => return self.pause(now),
            (0, _) => {}
            (_, _) => self.sent_at = Some(now),
        }
        let window = self.window.get_or_insert(Window {
            from: now,
            sent: 0,
            least: i64::MAX,
        });
        window.sent = window.sent.saturating_add(newly_sent);
        window.least = window.least.min(self.balance);
        let window = *window;
        if window.sent < LEAST_PACKETS || now.since(window.from) < LEAST_SPAN {
            return None;
        }
        self.window = None;
        let least_before = self.least_before.replace(window.least)?;
        let least = window.least.min(least_before);
        let lost = (least - self.lost).max(0);
        if !self.is_based {
            (self.is_based, self.lost) = (true, least);
            return None;
        }
        self.lost += lost;
        let lost = u32::try_from(lost).unwrap_or(u32::MAX).min(window.sent);
        self.share = Some((f64::from(lost) / f64::from(window.sent), now));
        Some(DataFates {
            sent: window.sent,
            lost,
        })
    }

    /// Nothing was sent for a while: what is missing is lost, and belongs to the time before. The window that was open
    /// ends, however few its packets, since none of them is under way; it is not to blame those that follow.
    fn pause(&mut self, now: Time) -> Option<DataFates> {
        let sent = self.window.take().map_or(0, |window| window.sent);
        let lost = (self.balance - self.lost).max(0);
        let was_based = self.is_based;
        self.sent_at = None;
        (self.is_based, self.lost) = (true, self.balance);
        self.least_before = Some(self.balance);
        if !was_based || sent == 0 {
            return None;
        }
        let lost = u32::try_from(lost).unwrap_or(u32::MAX).min(sent);
        if sent >= LEAST_PACKETS {
            self.share = Some((f64::from(lost) / f64::from(sent), now));
        }
        Some(DataFates { sent, lost })
    }

    fn note_recent(&mut self) {
        self.recent.copy_within(..RECENT - 1, 1);
        self.recent[0] = self.balance;
        self.recent_len = (self.recent_len + 1).min(RECENT);
    }

    /// Whether packets went missing in the last few hellos: perhaps a hole for large ones.
    pub(crate) fn smells_of_hole(&self) -> bool {
        let recent = &self.recent[..self.recent_len];
        let least = recent.iter().min().copied().unwrap_or(0);
        self.balance - least >= HOLE_PACKETS
    }

    /// Lost share of the last window that had enough packets.
    pub(crate) fn share(&self, now: Time) -> Option<f64> {
        self.share
            .filter(|(_, at)| now.since(*at) < FRESH)
            .map(|(share, _)| share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 hellos a second beside `pps` packets, of which every `lost_every`th is lost, counted up to `late` late.
    fn run(pps: u32, lost_every: u32, late: u32, seconds: u32) -> (DataLoss, u32, u32) {
        let mut loss = DataLoss::default();
        let (mut sent_all, mut lost_all) = (0, 0);
        for step in 0..seconds * 20 {
            let sent = step * pps / 20;
            let received = sent - sent / lost_every;
            let received = received.saturating_sub(step * 7 % (late + 1));
            let now = Time(u64::from(step) * 50_000_000);
            let offset = u32::MAX - 1000;
            let (sent, received) = (sent.wrapping_add(offset), received.wrapping_add(offset));
            if let Some(fates) = loss.add(sent, received, now) {
                sent_all += fates.sent;
                lost_all += fates.lost;
            }
        }
        (loss, sent_all, lost_all)
    }

    #[test]
    fn loss_is_right_though_counters_wrap_and_are_read_late() {
        for (lost_every, late) in [(5, 0), (20, 0), (20, 40), (100, 40)] {
            let (_, sent, lost) = run(1000, lost_every, late, 60);
            let share = f64::from(lost) / f64::from(sent);
            let truth = 1.0 / f64::from(lost_every);
            assert!(
                (share - truth).abs() < 0.002,
                "{share} for {truth}, {late} late"
            );
        }
    }

    #[test]
    fn without_loss_late_counters_feign_hardly_any() {
        let (loss, sent, lost) = run(1000, u32::MAX, 100, 60);
        assert!(sent > 50_000);
        assert!(lost < 25, "{lost}");
        assert_eq!(loss.share(Time(60_000_000_000)), Some(0.0));
        assert_eq!(loss.share(Time(80_000_000_000)), None);
    }

    #[test]
    fn few_packets_say_nothing() {
        let (_, sent, _) = run(20, 5, 0, 4);
        assert_eq!(sent, 0);
    }

    #[test]
    fn what_was_lost_before_a_pause_is_not_blamed_on_what_follows() {
        let mut loss = DataLoss::default();
        let (mut sent, mut received) = (0, 0);
        let mut told_lost = [0; 2];
        for step in 0..800_u32 {
            // 2 s with a fifth of the packets lost, a pause of 30 s, 8 s without loss.
            let part = usize::from(step >= 640);
            if step < 44 || part == 1 {
                sent += 50;
                received += 50 - 10 * (1 - part as u32);
            }
            let now = Time(u64::from(step) * 50_000_000);
            if let Some(fates) = loss.add(sent, received, now) {
                told_lost[part] += fates.lost;
            }
        }
        assert!(told_lost[0] > 100, "{told_lost:?}");
        assert_eq!(told_lost[1], 0);
    }

    #[test]
    fn what_bursts_lose_is_told_though_each_is_short() {
        let mut loss = DataLoss::default();
        let (mut sent, mut received) = (0, 0);
        let (mut told_sent, mut told_lost) = (0, 0);
        for step in 0..400_u32 {
            // 40 packets every 2 s, of which 8 are lost.
            if step % 40 == 20 {
                sent += 40;
                received += 32;
            }
            let now = Time(u64::from(step) * 50_000_000);
            if let Some(fates) = loss.add(sent, received, now) {
                told_sent += fates.sent;
                told_lost += fates.lost;
            }
        }
        // The first burst finds the base.
        assert_eq!((told_sent, told_lost), (360, 72));
    }
}
