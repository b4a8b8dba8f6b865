//! TUN devices: one interface, one queue per worker, with as much offload as this kernel gives.
//!
//! Two backends behind one trait: `native` (`/dev/net/tun` with a virtio-net header and several queues) and
//! `portable` (the `tun-tap` crate: one queue, plain packets). The interface lives as long as a queue of it
//! is open. Addresses, MTU and routes are the gateway's business.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use patronus_packet::TunFrame;
use patronus_packet::batch::TunWrite;

use crate::offload::TunOffload;
use crate::tun_native::NativeQueue;
use crate::tun_tap::PortableQueue;

/// One queue of a TUN interface, for one worker.
pub trait TunQueue: Send + AsFd {
    /// Reads one packet or superpacket into `frame`; `Ok(false)` when nothing waits.
    ///
    /// # Errors
    /// [`TunFault`] sorts them. `EMSGSIZE`: the packet was larger than a frame, and is gone. `EINVAL`: the
    /// kernel had a superpacket of a kind that it may not hand over, and dropped it. Both leave the queue
    /// usable.
    fn recv(&mut self, frame: &mut TunFrame) -> io::Result<bool>;

    /// Writes one packet or superpacket.
    ///
    /// # Errors
    /// [`TunFault`] sorts them; none breaks the queue. `EMSGSIZE`: more fragments than one system call takes.
    /// `EINVAL`: the kernel refuses the packet or its superpacket header, or the queue has no virtio-net
    /// header to carry one.
    fn send(&mut self, write: &TunWrite<'_>) -> io::Result<()>;

    /// What runs on this queue.
    fn offload(&self) -> TunOffload;

    /// Takes offloads away, or gives them back, while the interface runs; returns what runs then. The kernel
    /// keeps one setting per interface, so one queue's call changes what the others read; they learn it from
    /// their own call. Whether there is a virtio-net header never changes.
    ///
    /// # Errors
    /// What the kernel answers; the setting stays what it was.
    fn set_offload(&mut self, want: TunOffload) -> io::Result<TunOffload>;

    /// Attaches the queue to its interface, as it is at first, or detaches it (`TUNSETQUEUE`). The kernel
    /// spreads packets over the attached queues only. A detached queue must not be read; what waited in it is
    /// lost. Nothing happens where the state is that already, or where there is one queue only.
    ///
    /// # Errors
    /// What the kernel answers; the state stays what it was.
    fn set_attached(&mut self, attached: bool) -> io::Result<()>;
}

/// An open interface.
pub struct TunDevice {
    /// Its name.
    pub name: String,
    /// Its number, for netlink.
    pub ifindex: u32,
    /// Its queues, at least one; fewer than asked for where `notes` says so.
    pub queues: Vec<Box<dyn TunQueue>>,
    /// What runs.
    pub offload: TunOffload,
    /// Why something that was wanted does not run, one line each.
    pub notes: Vec<String>,
    /// `native` or `portable`.
    pub backend: &'static str,
}

impl TunDevice {
    /// Changes the offloads of all queues that this device still holds; see [`TunQueue::set_offload`].
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_offload(&mut self, want: TunOffload) -> io::Result<TunOffload> {
        for queue in &mut self.queues {
            self.offload = queue.set_offload(want)?;
        }
        Ok(self.offload)
    }
}

impl fmt::Debug for TunDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunDevice")
            .field("name", &self.name)
            .field("ifindex", &self.ifindex)
            .field("queues", &self.queues.len())
            .field("offload", &self.offload)
            .field("notes", &self.notes)
            .field("backend", &self.backend)
            .finish()
    }
}

/// Which way to the kernel to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Native, and portable where this kernel does not know what native needs.
    Auto,
    /// `/dev/net/tun` with several queues and offloads.
    Native,
    /// The `tun-tap` crate: one queue, no offloads.
    Portable,
}

/// Creates interface `name` with `queues` queues and the offloads of `want` that this kernel has.
///
/// # Errors
/// See [`TunError`].
pub fn open(name: &str, queues: usize, want: TunOffload) -> Result<TunDevice, TunError> {
    open_with(name, queues, want, Backend::Auto)
}

/// [`open`] through a backend of the caller's choice.
///
/// # Errors
/// See [`TunError`].
pub fn open_with(
    name: &str,
    queues: usize,
    want: TunOffload,
    backend: Backend,
) -> Result<TunDevice, TunError> {
    check_name(name)?;
    if queues == 0 || queues > QUEUES_MAX {
        return Err(TunError::QueueCount { queues });
    }
    if nix::net::if_::if_nametoindex(name).is_ok() {
        return Err(taken(name));
    }
    match backend {
        Backend::Native => native(name, queues, want).map_err(|refused| refused.error),
        Backend::Portable => portable(name, queues, want, Vec::new()),
        Backend::Auto => match native(name, queues, want) {
            Ok(device) => Ok(device),
            Err(refused) if refused.lacks_feature => {
                let why = format!("portable backend: {}", refused.error);
                portable(name, queues, want, vec![why])
            }
            Err(refused) => Err(refused.error),
        },
    }
}

/// What an error of [`TunQueue`] means for the one who got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunFault {
    /// The interface is down (`EIO`): drop, and go on; packets pass when somebody sets it up again.
    Down,
    /// The interface was deleted (`EBADFD`): the queue is dead and must be opened anew.
    Gone,
    /// The packet, or the number of its fragments, is too large (`EMSGSIZE`).
    TooBig,
    /// The kernel refuses the packet (`EINVAL`). If it was a superpacket: stop making them.
    Refused,
    /// The kernel is short of memory or room (`ENOMEM`, `ENOBUFS`, `EAGAIN`).
    NoBuffers,
    /// Anything else.
    Other,
}

impl TunFault {
    /// Sorts an error.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EIO) => Self::Down,
            // EFAULT is what a read gets that races with the deletion.
            Some(libc::EBADFD | libc::ENODEV | libc::EFAULT) => Self::Gone,
            Some(libc::EMSGSIZE) => Self::TooBig,
            Some(libc::EINVAL) => Self::Refused,
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN) => Self::NoBuffers,
            _ => Self::Other,
        }
    }
}

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The TUN driver is not there (`ENOENT`, `ENODEV`, `ENXIO` on `/dev/net/tun`).
    #[error(
        "/dev/net/tun is missing: run `modprobe tun`, or start the container with `--device /dev/net/tun`"
    )]
    DriverMissing,
    /// The device node may not be opened (`EACCES`, `EPERM` on `/dev/net/tun`).
    #[error(
        "/dev/net/tun may not be opened: run as root, or start the container with `--device /dev/net/tun --cap-add NET_ADMIN`"
    )]
    DriverNotPermitted,
    /// No CAP_NET_ADMIN (`EPERM` on `TUNSETIFF`).
    #[error(
        "creating interface {name} needs CAP_NET_ADMIN: run as root, or `setcap cap_net_admin+ep {binary}`"
    )]
    NotPermitted {
        /// The interface's name.
        name: String,
        /// Path of the running program.
        binary: String,
    },
    /// There is an interface of this name.
    #[error(
        "interface {name} exists already: set another name, or remove it with `ip link delete {name}` if it is a leftover"
    )]
    NameTaken {
        /// The interface's name.
        name: String,
    },
    /// No interface can have this name.
    #[error(
        "`{name}` cannot be an interface name: it {why}; use 1 to 15 letters, digits, `-`, `_` or `.`"
    )]
    BadName {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More queues than the driver has, or none.
    #[error("{queues} TUN queues cannot be opened: set 1 to {QUEUES_MAX} workers")]
    QueueCount {
        /// Queues asked for.
        queues: usize,
    },
    /// Anything else.
    #[error("{operation} failed for interface {name}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The interface's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// `MAX_TAP_QUEUES` of the driver.
pub const QUEUES_MAX: usize = 256;

/// A native open that failed, and whether another backend may do better.
struct Refused {
    error: TunError,
    lacks_feature: bool,
}

fn native(name: &str, queues: usize, want: TunOffload) -> Result<TunDevice, Refused> {
    let mut notes = Vec::new();
    let first = match NativeQueue::create(name, want.vnet) {
        Err(refused) if want.vnet && is_unknown_feature(&refused) => {
            notes.push(format!("tun offload off: IFF_VNET_HDR: {}", refused.source));
            NativeQueue::create(name, false)
        }
        outcome => outcome,
    };
    let mut first = first.map_err(|refused| refused.sort(name))?;
    let offload = climb(&mut first, want, &mut notes).map_err(|source| Refused {
        error: io_error("TUNSETOFFLOAD", name, source),
        lacks_feature: false,
    })?;
    let mut boxed: Vec<Box<dyn TunQueue>> = Vec::with_capacity(queues);
    boxed.push(Box::new(first));
    while boxed.len() < queues {
        let mut queue =
            NativeQueue::join(name, offload.vnet).map_err(|refused| refused.sort(name))?;
        queue.set_offload(offload).map_err(|source| Refused {
            error: io_error("TUNSETOFFLOAD", name, source),
            lacks_feature: false,
        })?;
        boxed.push(Box::new(queue));
    }
    let device = finish(name, boxed, offload, notes, "native").map_err(|error| Refused {
        error,
        lacks_feature: false,
    })?;
    Ok(device)
}

/// The highest rung of the ladder, not above `want`, that the kernel accepts.
fn climb(
    queue: &mut NativeQueue,
    want: TunOffload,
    notes: &mut Vec<String>,
) -> io::Result<TunOffload> {
    let rungs = [
        TunOffload::FULL,
        TunOffload::TCP,
        TunOffload::CHECKSUM,
        TunOffload::NONE,
    ];
    let mut tried = None;
    for rung in rungs {
        let rung = rung.common(want);
        if tried == Some(rung) {
            continue;
        }
        tried = Some(rung);
        match queue.set_offload(rung) {
            Ok(runs) => return Ok(runs),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                notes.push(format!("tun offload {rung} off: TUNSETOFFLOAD: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    // Even asking for nothing is refused: nothing is what runs.
    Ok(queue.offload())
}

fn portable(
    name: &str,
    queues: usize,
    want: TunOffload,
    mut notes: Vec<String>,
) -> Result<TunDevice, TunError> {
    let queue = PortableQueue::create(name).map_err(|refused| refused.sort(name).error)?;
    if want.vnet {
        notes.push("tun offload off: the portable backend has none".to_owned());
    }
    if queues > 1 {
        notes.push(format!(
            "1 tun queue, not {queues}: the portable backend has one"
        ));
    }
    finish(
        name,
        vec![Box::new(queue)],
        TunOffload::NONE,
        notes,
        "portable",
    )
}

fn finish(
    name: &str,
    queues: Vec<Box<dyn TunQueue>>,
    offload: TunOffload,
    notes: Vec<String>,
    backend: &'static str,
) -> Result<TunDevice, TunError> {
    let ifindex = nix::net::if_::if_nametoindex(name)
        .map_err(|errno| io_error("if_nametoindex", name, errno.into()))?;
    Ok(TunDevice {
        name: name.to_owned(),
        ifindex,
        queues,
        offload,
        notes,
        backend,
    })
}

/// The rules of `dev_valid_name` in the kernel, and none of `%`, which asks the driver to pick a number.
fn check_name(name: &str) -> Result<(), TunError> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_LEN_MAX {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "is a folder"
    } else if name
        .bytes()
        .any(|byte| byte.is_ascii_whitespace() || byte == 0x0b)
    {
        "has a space in it"
    } else if name.contains('/') {
        "has a slash in it"
    } else if name.contains([':', '%']) {
        "has a `:` or `%` in it"
    } else if name.bytes().any(|byte| byte.is_ascii_control()) {
        "has a control character in it"
    } else {
        return Ok(());
    };
    Err(TunError::BadName {
        name: name.to_owned(),
        why,
    })
}

/// Which step of opening a queue failed.
pub(crate) struct OpenError {
    pub(crate) step: OpenStep,
    pub(crate) source: io::Error,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenStep {
    /// `open("/dev/net/tun")`
    Driver,
    /// `TUNSETIFF`
    Interface,
    /// Making the descriptor non-blocking.
    NonBlocking,
}

impl OpenError {
    fn sort(self, name: &str) -> Refused {
        let lacks_feature = is_unknown_feature(&self);
        let error = match (self.step, self.source.raw_os_error()) {
            (OpenStep::Driver, Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
                TunError::DriverMissing
            }
            (OpenStep::Driver, Some(libc::EPERM | libc::EACCES)) => TunError::DriverNotPermitted,
            (OpenStep::Driver, _) => io_error("opening /dev/net/tun", name, self.source),
            (OpenStep::Interface, Some(libc::EPERM | libc::EACCES)) => TunError::NotPermitted {
                name: name.to_owned(),
                binary: std::env::current_exe()
                    .map_or_else(|_| "patronus".to_owned(), |path| path.display().to_string()),
            },
            (OpenStep::Interface, Some(libc::EBUSY | libc::EEXIST)) => taken(name),
            (OpenStep::Interface, _) => io_error("TUNSETIFF", name, self.source),
            (OpenStep::NonBlocking, _) => io_error("O_NONBLOCK", name, self.source),
        };
        Refused {
            error,
            lacks_feature,
        }
    }
}

fn is_unknown_feature(refused: &OpenError) -> bool {
    refused.step == OpenStep::Interface && refused.source.raw_os_error() == Some(libc::EINVAL)
}

fn io_error(operation: &'static str, name: &str, source: io::Error) -> TunError {
    TunError::Io {
        operation,
        name: name.to_owned(),
        source,
    }
}

fn taken(name: &str) -> TunError {
    TunError::NameTaken {
        name: name.to_owned(),
    }
}

/// `IFNAMSIZ` less the terminating NUL.
const NAME_LEN_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_for_what_is_wrong_with_them() {
        let cases = [
            ("", "is empty"),
            ("a234567890123456", "is longer than 15 bytes"),
            ("..", "is a folder"),
            ("wan 0", "has a space in it"),
            ("wan\n", "has a space in it"),
            ("wan/0", "has a slash in it"),
            ("tun%d", "has a `:` or `%` in it"),
            ("wan\0", "has a control character in it"),
        ];
        for (name, want) in cases {
            match check_name(name) {
                Err(TunError::BadName { why, .. }) => assert_eq!(why, want, "{name:?}"),
                other => panic!("{name:?} gave {other:?}"),
            }
        }
        for name in ["patronus0", "a23456789012345", "wan-0.12_x", "büro"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn faults_are_sorted_by_what_to_do() {
        let of = |errno| TunFault::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EIO), TunFault::Down);
        assert_eq!(of(libc::EBADFD), TunFault::Gone);
        assert_eq!(of(libc::EINVAL), TunFault::Refused);
        assert_eq!(of(libc::EPERM), TunFault::Other);
        assert_eq!(TunFault::of(&io::Error::other("no errno")), TunFault::Other);
    }

    #[test]
    fn errors_of_opening_are_sorted_by_the_fix() {
        let sort = |step, errno| {
            let source = io::Error::from_raw_os_error(errno);
            OpenError { step, source }.sort("wan0")
        };
        let text = |step, errno| sort(step, errno).error.to_string();
        assert!(text(OpenStep::Driver, libc::ENOENT).contains("`modprobe tun`"));
        assert!(text(OpenStep::Driver, libc::EPERM).contains("--cap-add NET_ADMIN"));
        assert!(text(OpenStep::Interface, libc::EPERM).contains("setcap cap_net_admin+ep /"));
        assert!(text(OpenStep::Interface, libc::EBUSY).starts_with("interface wan0 exists"));
        assert!(text(OpenStep::NonBlocking, libc::EBADF).contains("O_NONBLOCK failed"));
        assert!(sort(OpenStep::Interface, libc::EINVAL).lacks_feature);
        assert!(!sort(OpenStep::Driver, libc::EINVAL).lacks_feature);
    }
}
