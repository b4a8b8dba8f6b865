//! Messages of joining sites: handed to the shell, which issues or waits, and passed on to who issues.

use std::collections::{BTreeMap, VecDeque};

use rand_core::RngCore;

use crate::ids::SiteId;
use crate::join::{JoinAnswer, JoinRequest};
use crate::machine::Machine;
use crate::machine::arrival::Destination;
use crate::machine::counters::Drop;
use crate::machine::sites::Site;
use crate::message::{HOPS_MAX, Message, Relayed};

/// Most messages that wait to be collected.
const WAITING_MAX: usize = 64;
/// Most requests passed on whose answers are awaited.
const PASSED_MAX: usize = 256;

/// A message about the joining of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinArrival {
    /// A site asks for a certificate. Who can sign one answers with [`Machine::answer_join`]; who cannot may pass it on
    /// with [`Machine::pass_join_on`].
    Request {
        /// What it asks.
        request: Box<JoinRequest>,
        /// Where the answer goes.
        reply_to: ReplyTo,
    },
    /// An answer to a request that the shell made with [`Machine::ask_to_join`].
    Answer(Box<JoinAnswer>),
}

/// Where the answer to a [`JoinArrival::Request`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    to: Destination,
    /// Who passed it on, and its mark.
    relayed: Option<(SiteId, [u8; 8])>,
}

/// What waits for the shell, and where answers to requests that were passed on belong.
#[derive(Default)]
pub(super) struct Joins {
    waiting: VecDeque<JoinArrival>,
    passed: BTreeMap<[u8; 8], ReplyTo>,
    marks: VecDeque<[u8; 8]>,
}

impl JoinArrival {
    pub(super) fn direct(request: JoinRequest, back: Destination) -> Self {
        Self::Request {
            request: Box::new(request),
            reply_to: ReplyTo {
                to: back,
                relayed: None,
            },
        }
    }

    pub(super) fn relayed(request: JoinRequest, by: SiteId, tag: [u8; 8]) -> Self {
        Self::Request {
            request: Box::new(request),
            reply_to: ReplyTo {
                to: Destination::Site(by),
                relayed: Some((by, tag)),
            },
        }
    }
}

impl Machine {
    /// The next message about the joining of a site.
    pub fn poll_join(&mut self) -> Option<JoinArrival> {
        self.joins.waiting.pop_front()
    }

    /// Sends the answer to a request.
    pub fn answer_join(&mut self, reply_to: ReplyTo, answer: JoinAnswer) {
        let answer = Message::JoinAnswer(answer);
        let message = match reply_to.relayed {
            None => Some(answer),
            Some((by, tag)) => Relayed::new(by, HOPS_MAX, tag, answer).map(Message::Relayed),
        };
        if let Some(message) = message {
            self.send(&message, reply_to.to);
        }
    }

    /// Passes a request on to a site that can sign. `false` where there is no session with it.
    pub fn pass_join_on(
        &mut self,
        issuer: SiteId,
        request: JoinRequest,
        reply_to: ReplyTo,
    ) -> bool {
        if !self.sites.site(issuer).is_some_and(Site::is_connected) {
            return false;
        }
        let mut tag = [0; 8];
        self.dice.fill_bytes(&mut tag);
        let message = Message::JoinRequest(request);
        let Some(relayed) = Relayed::new(issuer, HOPS_MAX, tag, message) else {
            return false;
        };
        if self.joins.marks.len() == PASSED_MAX
            && let Some(oldest) = self.joins.marks.pop_front()
        {
            self.joins.passed.remove(&oldest);
        }
        self.joins.marks.push_back(tag);
        self.joins.passed.insert(tag, reply_to);
        self.send(&Message::Relayed(relayed), Destination::Site(issuer));
        true
    }

    /// Asks for a newer certificate: a site that can sign, or one that passes it on.
    pub fn ask_to_join(&mut self, to: Destination, request: JoinRequest) {
        self.send(&Message::JoinRequest(request), to);
    }

    pub(super) fn take_join(&mut self, arrival: JoinArrival) -> Result<(), Drop> {
        if self.joins.waiting.len() == WAITING_MAX {
            return Err(Drop::Busy);
        }
        self.joins.waiting.push_back(arrival);
        Ok(())
    }

    /// An answer came back to who passed the request on.
    pub(super) fn return_join(&mut self, answer: JoinAnswer, tag: [u8; 8]) -> Result<(), Drop> {
        let reply_to = self.joins.passed.remove(&tag).ok_or(Drop::Unasked)?;
        self.joins.marks.retain(|known| *known != tag);
        self.answer_join(reply_to, answer);
        Ok(())
    }
}
