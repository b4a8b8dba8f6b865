//! Readiness of a worker's descriptors, on mio, and the policy of spinning a little before sleeping.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

/// Wakes a sleeping [`Poller`] from another thread. Wakes that come before the poller sleeps are not lost.
pub use mio::Waker;

/// A number that the caller gives a descriptor and gets back when it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub usize);

impl Token {
    /// What [`Poller::wait`] reports when the [`Waker`] was used. Not to be given to a descriptor.
    pub const WAKE: Self = Self(usize::MAX);
}

/// One thing to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which descriptor, or [`Token::WAKE`].
    pub token: Token,
    /// The kernel reports an error or a hang-up: a TUN interface was deleted, for one. The next read says
    /// what it is.
    pub failed: bool,
}

/// One thread's set of descriptors to read.
///
/// Readiness is edge-triggered: a descriptor is reported once when it becomes readable. The caller reads
/// each reported descriptor until it has nothing left (`Ok(false)` of a TUN queue, `Ok(0)` of a socket)
/// before it waits again, or what it left lies there until something else arrives.
pub struct Poller {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

impl Poller {
    /// An empty set with a waker.
    ///
    /// # Errors
    /// The process has no descriptors left (`EMFILE`, raise `LimitNOFILE`), or no memory.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(Token::WAKE.0))?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            waker,
        })
    }

    /// Watches `fd` for reading. It must be deregistered, or this poller dropped, before it is closed.
    ///
    /// # Errors
    /// The descriptor is watched already (`EEXIST`), or cannot be watched (`EPERM`).
    pub fn register(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        assert_ne!(token, Token::WAKE, "this token is the waker's");
        self.poll.registry().register(
            &mut SourceFd(&fd.as_raw_fd()),
            mio::Token(token.0),
            Interest::READABLE,
        )
    }

    /// Watches `fd` no more.
    ///
    /// # Errors
    /// The descriptor is not watched (`ENOENT`).
    pub fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll
            .registry()
            .deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// The handle that wakes this poller from other threads.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Sleeps until something is ready or `timeout` has passed (`None`: for ever; zero: looks and returns)
    /// and says what is ready; nothing after a timeout or a signal.
    ///
    /// # Errors
    /// What `epoll_wait(2)` answers, except `EINTR`.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // mio leaves the events of the call before in place.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        Ok(self.events.iter().map(|event| Ready {
            token: Token(event.token().0),
            failed: event.is_error() || event.is_read_closed(),
        }))
    }
}

/// What a worker without work does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again at once.
    Spin,
    /// Sleep in [`Poller::wait`].
    Sleep,
}

/// Spins for a while after the last packet, then sleeps. Only work restarts the spinning, so a worker that
/// wakes for its timers alone goes straight back to sleep and an idle gateway uses no CPU.
#[derive(Clone, Debug)]
pub struct SpinThenSleep {
    budget: Duration,
    state: Idleness,
}

#[derive(Clone, Copy, Debug)]
enum Idleness {
    Working,
    SpinningSince(Instant),
    Asleep,
}

impl SpinThenSleep {
    /// Spins for `budget` after work; zero never spins. Begins asleep.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            state: Idleness::Asleep,
        }
    }

    /// Says that there was work in this round.
    pub fn worked(&mut self) {
        self.state = Idleness::Working;
    }

    /// Says that there was none, and asks what to do.
    pub fn idle(&mut self, now: Instant) -> Next {
        let since = match self.state {
            Idleness::Asleep => return Next::Sleep,
            Idleness::Working => now,
            Idleness::SpinningSince(since) => since,
        };
        if now.saturating_duration_since(since) < self.budget {
            self.state = Idleness::SpinningSince(since);
            return Next::Spin;
        }
        self.state = Idleness::Asleep;
        Next::Sleep
    }
}

/// Descriptors reported by one wait; a worker has far fewer.
const EVENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    const LONG: Option<Duration> = Some(Duration::from_secs(20));

    fn tokens(poller: &mut Poller, timeout: Option<Duration>) -> Vec<Token> {
        poller
            .wait(timeout)
            .unwrap()
            .map(|ready| ready.token)
            .collect()
    }

    #[test]
    fn a_wake_from_another_thread_ends_the_wait() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        let thread = std::thread::spawn(move || waker.wake().unwrap());
        assert_eq!(tokens(&mut poller, None), [Token::WAKE]);
        thread.join().unwrap();
        assert_eq!(tokens(&mut poller, Some(Duration::ZERO)), []);
    }

    #[test]
    fn a_wake_before_the_wait_is_not_lost() {
        let mut poller = Poller::new().unwrap();
        poller.waker().wake().unwrap();
        assert_eq!(tokens(&mut poller, LONG), [Token::WAKE]);
    }

    #[test]
    fn a_datagram_is_reported_once_under_its_token() {
        let mut poller = Poller::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.register(socket.as_fd(), Token(7)).unwrap();
        let send = || socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        send();
        assert_eq!(tokens(&mut poller, LONG), [Token(7)]);
        assert_eq!(tokens(&mut poller, Some(Duration::ZERO)), []);
        send();
        assert_eq!(tokens(&mut poller, LONG), [Token(7)]);
        poller.deregister(socket.as_fd()).unwrap();
        send();
        assert_eq!(tokens(&mut poller, Some(Duration::ZERO)), []);
    }

    #[test]
    fn spinning_ends_with_its_budget_and_only_work_restarts_it() {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut policy = SpinThenSleep::new(Duration::from_micros(50));
        assert_eq!(policy.idle(at(0)), Next::Sleep);
        policy.worked();
        assert_eq!(policy.idle(at(10)), Next::Spin);
        assert_eq!(policy.idle(at(59)), Next::Spin);
        assert_eq!(policy.idle(at(60)), Next::Sleep);
        assert_eq!(policy.idle(at(61)), Next::Sleep);
        policy.worked();
        assert_eq!(policy.idle(at(70)), Next::Spin);
    }

    #[test]
    fn no_budget_never_spins() {
        let mut policy = SpinThenSleep::new(Duration::ZERO);
        policy.worked();
        assert_eq!(policy.idle(Instant::now()), Next::Sleep);
    }
}
