//! The WAN side of a worker: what its doors to the uplinks have in common.
//!
//! Two kinds stand behind one trait: [`UdpSocket`], which every gateway has, and
//! [`XdpSocket`](crate::XdpSocket), which takes what it can of the same traffic past the kernel's stack and leaves the
//! rest to the UDP sockets. A worker knows the kind of each of its sockets, so that nothing is dispatched at run time.

use std::io;
use std::os::fd::AsFd;

use patronus_packet::batch::UdpBatch;
use patronus_packet::{UdpFrame, UplinkId};

use crate::udp::{RecvCounters, SendReport, UdpSocket};
use crate::uplink::Way;

/// A door of a worker to its uplinks.
pub trait WanSocket: AsFd + Send {
    /// Fills frames from the front with what waits: one datagram or one train of equal datagrams each, with both ends,
    /// the uplink it came on and its traffic class. Returns how many were filled; only 0 means that nothing waits.
    ///
    /// # Errors
    /// Only such as will come again.
    fn recv(&mut self, frames: &mut [UdpFrame]) -> io::Result<usize>;

    /// Sends the trains of `batch` that are this socket's and not in `done`. A socket that shares its endpoints with
    /// another one puts those that it sent or counted as failed into `done`; what it leaves out of it is for the other.
    fn send_rest(&mut self, batch: &UdpBatch, done: &mut TrainSet) -> SendReport;

    /// Says which interface each uplink has at the moment; see [`UdpSocket::set_uplinks`].
    fn set_uplinks(&mut self, uplinks: &[(UplinkId, Way)]);

    /// What did not reach the caller.
    fn recv_counters(&self) -> RecvCounters;
}

impl WanSocket for UdpSocket {
    fn recv(&mut self, frames: &mut [UdpFrame]) -> io::Result<usize> {
        UdpSocket::recv(self, frames)
    }

    fn send_rest(&mut self, batch: &UdpBatch, done: &mut TrainSet) -> SendReport {
        match done.is_empty() {
            true => self.send(batch),
            false => self.send_but(batch, done),
        }
    }

    fn set_uplinks(&mut self, uplinks: &[(UplinkId, Way)]) {
        UdpSocket::set_uplinks(self, uplinks);
    }

    fn recv_counters(&self) -> RecvCounters {
        UdpSocket::recv_counters(self)
    }
}

/// A set of the trains of one batch, by their place in [`UdpBatch::trains`]. Keeps its memory when it is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainSet {
    words: Vec<u64>,
    len: usize,
}

impl TrainSet {
    /// Puts the train at this place in.
    pub fn insert(&mut self, at: usize) {
        let word = at / WORD_BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (at % WORD_BITS);
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Whether the train at this place is in.
    #[inline]
    pub fn contains(&self, at: usize) -> bool {
        let word = self.words.get(at / WORD_BITS).copied().unwrap_or(0);
        word >> (at % WORD_BITS) & 1 == 1
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.words.fill(0);
            self.len = 0;
        }
    }
}

const WORD_BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_places_beyond_one_word_and_forgets_them() {
        let mut set = TrainSet::default();
        assert!(set.is_empty() && !set.contains(0) && !set.contains(1000));
        for at in [0, 63, 64, 200, 200] {
            set.insert(at);
        }
        let inside: Vec<usize> = (0..300).filter(|at| set.contains(*at)).collect();
        assert_eq!(inside, [0, 63, 64, 200]);
        set.clear();
        assert!(set.is_empty() && (0..300).all(|at| !set.contains(at)));
        set.insert(7);
        assert!(!set.is_empty() && set.contains(7));
    }
}
